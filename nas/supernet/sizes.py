"""What the open sizes of a space are sizes of: kernels, depths, channels or the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nas.architecture import Architecture, Scalar
from nas.draws import Draws
from nas.space import DrawsIntegers, SearchSpace
from nas.supernet.mixture import Current
from nas.supernet.relaxed import RelaxedBuilder

Options = Mapping[str, Sequence[Scalar]]
"""Which options of a choice may be picked, by its label; all of those that are not named."""


@dataclass(frozen=True)
class Sizes:
    """The labels of the sizes that are open, each of one kind.

    Attributes:
        kernels: resize kernels and no channels.
        depths: say how many blocks there are.
        inner: resize channels that no two other such numbers resize: expansions, heads, ratios.
        widths: resize channels all through the network, which others resize too.
        images: resize no weights: the image's height and width.
        options: of each.
    """

    kernels: tuple[str, ...]
    depths: tuple[str, ...]
    inner: tuple[str, ...]
    widths: tuple[str, ...]
    images: tuple[str, ...]
    options: Mapping[str, tuple[int, ...]]

    @property
    def of_weights(self) -> tuple[str, ...]:
        """All but the images'."""
        return (*self.kernels, *self.depths, *self.inner, *self.widths)


def open_sizes(space: SearchSpace) -> Sizes:
    """Reads a space's description for its sizes, on tensors without memory.

    Raises:
        UnsupportedRequest: the description cannot be read relaxed.
    """
    builder, largest = _shapes(space, {})
    choices = {choice.label for choice in space.choices}
    depths = [k for k, v in builder.depths.items() if len(v) > 1 and k in choices]
    numbers = [k for k, v in builder.numbers.items() if len(v) > 1 and k in choices]
    kernels: list[str] = []
    images: list[str] = []
    resized: dict[str, set[str]] = {}
    for label in numbers:
        if label in depths:
            continue
        _, shapes = _shapes(space, {label: min(builder.numbers[label])})
        changed = {name for name, shape in shapes.items() if shape != largest.get(name)}
        channels = {name for name in changed if shapes[name][:2] != largest.get(name, ())[:2]}
        if channels:
            resized[label] = channels
        else:
            (kernels if changed else images).append(label)
    widths = [label for label in resized if _overlapped(label, resized) >= 2]
    return Sizes(
        tuple(kernels),
        tuple(depths),
        tuple(label for label in resized if label not in widths),
        tuple(widths),
        tuple(images),
        {label: {**builder.numbers, **builder.depths}[label] for label in (*numbers, *depths)},
    )


def _shapes(
    space: SearchSpace, picked: Mapping[str, int]
) -> tuple[RelaxedBuilder, dict[str, torch.Size]]:
    """The builder, and the shapes of the largest network with some numbers as they are picked."""
    builder = RelaxedBuilder(
        space, Current(), size=lambda label, options: picked.get(label, max(options))
    )
    with torch.device("meta"):
        network = space.build(builder)
    return builder, {name: tensor.shape for name, tensor in network.named_parameters()}


def _overlapped(label: str, resized: Mapping[str, set[str]]) -> int:
    """How many other numbers resize something that this one resizes too."""
    return sum(bool(resized[label] & names) for other, names in resized.items() if other != label)


def draw_within(
    space: SearchSpace, allowed: Options, rng: DrawsIntegers | np.random.Generator | Draws
) -> Architecture:
    """A random architecture of these options; where none of them is legal, of those that are."""
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        if choice.label in allowed:
            kept = tuple(option for option in options if option in allowed[choice.label])
            options = kept or options
        made[choice.label] = options[int(rng.integers(len(options)))]
    return Architecture.of_legal(space.name, tuple(made.items()))


def only(sizes: Sizes, labels: Sequence[str], rank: int) -> dict[str, tuple[int, ...]]:
    """One option of each of these sizes: the largest has rank 0, the smallest rank -1."""
    found: dict[str, tuple[int, ...]] = {}
    for label in labels:
        ordered = sorted(sizes.options[label], reverse=True)
        found[label] = (ordered[min(rank, len(ordered) - 1)],)
    return found

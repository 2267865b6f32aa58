"""Vision Transformers with open width, depth, heads and MLP ratios.

Chen, Peng, Fu & Ling, AutoFormer: Searching Transformers for Visual Recognition, ICCV 2021. The
defaults are the supernet of AutoFormer-T; ``points`` are the networks that were found, with the
settings of the authors' code (pooled patches, relative positions, heads of 64).

What differs from the code:

- a sub-network has the leading queries of the shared ones with the biases of those; there weights
  are interleaved, so that biases change places among queries, keys and values;
- the shared tensors are of the largest architecture, not a little wider (240 for 256);
- products with relative positions are taken by rows and by columns: the same, for 14 × 14 patches
  in a seventh of the multiply-accumulates;
- linear layers start as torch's do, tokens and positions at 0.02 as there: with everything at 0.02
  stochastic gradient descent, which trains here, is slow to begin;
- no dropout; drop path is a setting of the training, the same in all layers.

AutoFormer-T has ratios of 300, which its search space as published (350, 400) has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError
from nas.layers.mobile import InOrder
from nas.layers.transformer import (
    ClassToken,
    EncoderLayer,
    PatchEmbedding,
    PatchMean,
    RelativeEncoderLayer,
)
from nas.points import Point
from nas.space import Legal, check_input, count_choices, next_choice

PAPER = "Chen et al., AutoFormer, ICCV 2021"


def _point(embedding: int, heads: str, ratios: str, /, **arguments: tuple[int, ...]) -> Point:
    """A network by what its layers have, from the first to the last."""
    layers = list(zip(heads.split(), ratios.split(), strict=True))
    picks = [f"embedding={embedding} depth={len(layers)}"]
    picks += [
        f"layer{number}/heads={count} layer{number}/ratio={ratio}"
        for number, (count, ratio) in enumerate(layers, start=1)
    ]
    return Point(" ".join(picks), PAPER, arguments)


POINTS: Mapping[str, Point] = {
    "AutoFormer_T": _point(
        192,
        "3 3 3 3 3 3 3 3 3 3 4 3 3",
        "350 350 300 350 300 300 400 400 350 400 350 400 350",
        ratios=(300, 350, 400),
    ),
    "AutoFormer_S": _point(
        384,
        "6 6 5 7 5 5 5 6 6 7 7 6 7",
        "300 350 300 350 400 400 400 400 400 400 400 350 400",
        embeddings=(320, 384, 448),
        heads=(5, 6, 7),
        ratios=(300, 350, 400),
    ),
    "AutoFormer_B": _point(
        576,
        "9 9 9 9 9 10 9 9 10 9 10 9 9 10",
        "350 350 400 350 400 350 350 300 400 400 300 400 300 350",
        embeddings=(528, 576, 624),
        depths=(14, 15, 16),
        heads=(8, 9, 10),
        ratios=(300, 350, 400),
    ),
}


@dataclass(frozen=True)
class AutoFormer:
    """Vision Transformers: one embedding width, a depth, and in each layer heads and MLP ratio.

    Args:
        embeddings: options for the width of all tokens.
        depths: options for the number of layers.
        heads: options for the heads of a layer, each ``head_dim`` wide.
        ratios: options for the width of a layer's MLP, in per cent of the tokens'.
        head_dim: of queries, keys and values of one head.
        patch: height and width of a patch, in pixels; it divides the image's.
        max_relative_position: from which distance in patches on relative positions are one; 0 for
            none.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).

    Raises:
        ConfigError: an argument is out of range, or patches do not fill the image.
    """

    embeddings: tuple[int, ...] = (192, 216, 240)
    depths: tuple[int, ...] = (12, 13, 14)
    heads: tuple[int, ...] = (3, 4)
    ratios: tuple[int, ...] = (350, 400)
    head_dim: int = 64
    patch: int = 16
    max_relative_position: int = 14
    classes: int = 1000
    input: tuple[int, ...] = (3, 224, 224)

    name: ClassVar[str] = "autoformer/v1"
    paper: ClassVar[str] = PAPER
    points: ClassVar[Mapping[str, Point]] = POINTS
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "autoformer"))
        if len(self.input) != 3:
            raise ConfigError(
                f"autoformer: input must be (channels, height, width), got {self.input}"
            )
        for argument in ("embeddings", "depths", "heads", "ratios"):
            options = tuple(getattr(self, argument))
            if not options or min(options) < 1:
                raise ConfigError(
                    f"autoformer: {argument} must be numbers of at least 1, got {options}"
                )
            object.__setattr__(self, argument, options)
        for argument, least in (
            ("head_dim", 1),
            ("patch", 1),
            ("max_relative_position", 0),
            ("classes", 1),
        ):
            if getattr(self, argument) < least:
                raise ConfigError(
                    f"autoformer: {argument} must be at least {least}, got "
                    f"{getattr(self, argument)}"
                )
        if any(size % self.patch for size in self.input[1:]):
            raise ConfigError(
                f"autoformer: patches of {self.patch} × {self.patch} pixels do not fill an image "
                f"of {self.input[1]} × {self.input[2]}: patch must divide both"
            )
        if min(self.embeddings) * min(self.ratios) < 100:
            raise ConfigError(
                f"autoformer: an MLP of {min(self.ratios)} per cent of {min(self.embeddings)} has "
                "no width: ratios must be larger"
            )
        object.__setattr__(self, "choices", tuple(self._choices()))

    def _choices(self) -> Iterator[Choice]:
        yield Choice("embedding", self.embeddings)
        yield Choice("depth", self.depths)
        for number in range(1, max(self.depths) + 1):
            when = {"depth": tuple(depth for depth in self.depths if depth >= number)}
            yield Choice(f"layer{number}/heads", self.heads, when)
            yield Choice(f"layer{number}/ratio", self.ratios, when)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {}

    def canonical(self, arch: Architecture) -> Architecture:
        """Of ratios that round to the same width, the first stands for all."""
        dim = int(arch["embedding"])

        def first(label: str, option: Scalar) -> Scalar:
            if not label.endswith("/ratio"):
                return option
            width = self._hidden(dim, int(option))
            return next(ratio for ratio in self.ratios if self._hidden(dim, ratio) == width)

        return Architecture(
            arch.space, tuple((label, first(label, option)) for label, option in arch.picks)
        )

    @staticmethod
    def _hidden(dim: int, ratio: int) -> int:
        return dim * ratio // 100

    def build(self, builder: Builder) -> nn.Module:
        dim = builder.number("embedding")
        rows, columns = (size // self.patch for size in self.input[1:])

        def layer(index: int) -> nn.Module:
            heads = builder.number(f"layer{index + 1}/heads")
            hidden = self._hidden(dim, builder.number(f"layer{index + 1}/ratio"))
            if not self.max_relative_position:
                return EncoderLayer(dim, heads, self.head_dim, hidden)
            farthest = self.max_relative_position
            return RelativeEncoderLayer(dim, heads, self.head_dim, hidden, rows, columns, farthest)

        parts: dict[str, nn.Module] = {
            "patches": PatchEmbedding(c_in=self.input[0], dim=dim, patch=self.patch),
            "tokens": ClassToken(tokens=1 + rows * columns, dim=dim),
        }
        for number, made in enumerate(builder.depth("depth", layer), start=1):
            parts[f"layer{number}"] = made
        parts["norm"] = nn.LayerNorm(dim)
        parts["pool"] = PatchMean()
        parts["classifier"] = nn.Linear(dim, self.classes)
        return InOrder(nn.ModuleDict(parts))

"""Important channels first: the shared weights permuted so that the largest network is the same.

A smaller number of channels takes the leading ones, so before the smaller ones are trained, the
channels are sorted by the L1 norm of the weights that read them (Cai et al., "Once-for-All",
ICLR 2020; the authors' ``re_organize_middle_weights``).

What differs: which channels belong together is found by following the forward pass
(``nas.supernet.ties``), so any space's are sorted, not the inside of inverted bottlenecks alone;
the norm is summed over all weights that read a channel, so over a squeeze's beside the
projection's. Channels that are told apart by position, as attention's heads, stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from nas.architecture import Architecture, Scalar
from nas.builder import FixedBuilder
from nas.errors import UnsupportedRequest, nearest
from nas.morphism.trace import Graph, trace
from nas.space import SearchSpace, from_picks, member, validate
from nas.supernet.slicing import Layout, layouts_of
from nas.supernet.supernet import Supernet
from nas.supernet.ties import POSITIONS, Place, Ties, follow

Permutations = Mapping[str, Sequence[tuple[int, torch.Tensor]]]
"""By a tensor's name, the dimensions to permute, each with the place where each entry was."""


@dataclass(frozen=True)
class Group:
    """Channels that are the same ones in several tensors.

    Attributes:
        name: the first tensor of it.
        inner: by the tensors' names in ``supernet.largest`` and a dimension of each, how many
            entries in a row are of one channel.
        readers: those of them along which weights read the channels.
        channels: how many; some of the tensors may have fewer, the leading ones.
        sizes: ascending, the numbers of leading channels that networks have which compute what
            they did; channels are sorted between one of them and the next.
        reason: why it is left alone; empty where it is sorted.
    """

    name: str
    inner: Mapping[Place, int]
    readers: tuple[Place, ...] = ()
    channels: int = 0
    sizes: tuple[int, ...] = ()
    reason: str = ""

    @property
    def dimensions(self) -> tuple[Place, ...]:
        """The places: a tensor's name and a dimension of it."""
        return tuple(self.inner)


@dataclass(frozen=True)
class Sorted:
    """What was sorted.

    Attributes:
        groups: all whose size is open.
        permutations: of the tensors that changed, by their names in ``supernet.largest``; the
            optimiser's momentum is to be permuted likewise (``permute``).
    """

    groups: tuple[Group, ...]
    permutations: Permutations


def sort_channels(
    supernet: Supernet,
    largest: Architecture,
    trained: Sequence[Architecture] = (),
    labels: Collection[str] | None = None,
) -> Sorted:
    """Permutes the shared tensors in place so that the important channels come first.

    The largest network computes what it did, up to rounding, whatever option its slots hold one
    at a time, and so does every network of ``trained``. Views of the shared tensors stay valid.
    Others, a shallower one say that reads channels further on, may compute something else.

    Args:
        supernet: whose weights are sorted.
        largest: has the greatest of all numbers and depths.
        trained: architectures that the weights already serve; give one of every depth that has
            been trained.
        labels: of numbers; only channels whose number changes with one of them are sorted.
            ``None``: all whose number is open.

    Raises:
        InvalidArchitecture: an architecture is none of the space.
        UnsupportedRequest: ``largest`` is not, or the space has no such number.
    """
    space = supernet.space
    for arch in (largest, *trained):
        validate(space, arch)
    for label in labels or ():
        if label not in supernet.numbers:
            raise UnsupportedRequest(
                f"{space.name!r} has no number {label!r}: {nearest(label, supernet.numbers)}"
            )
    _check_largest(supernet, largest)
    resized = _resized(supernet, largest, supernet.numbers if labels is None else labels)
    if not resized:
        return Sorted((), {})
    ties, sizes = _tied(supernet, (*_variants(supernet, largest), *trained))
    groups = tuple(_groups(supernet, ties, sizes, resized))
    permutations: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for group in groups:
        order = None if group.reason else _order(supernet, group)
        if order is None:
            continue
        for name, dimension in group.dimensions:
            inner = group.inner[name, dimension]
            mine = order[: supernet.tensors[name].shape[dimension] // inner]
            if not torch.equal(mine, mine.sort().values):
                indices = mine[:, None] * inner + torch.arange(inner, device=mine.device)
                permutations.setdefault(name, []).append((dimension, indices.flatten()))
    permute(supernet.tensors, permutations)
    return Sorted(groups, permutations)


def importance(supernet: Supernet, group: Group) -> torch.Tensor:
    """The L1 norm of all weights that read a channel, of each channel, as float64."""
    shared = supernet.tensors
    found = torch.zeros(
        group.channels, dtype=torch.float64, device=shared[group.dimensions[0][0]].device
    )
    for name, dimension in group.readers:
        tensor = shared[name].detach().movedim(dimension, 0)
        channels = tensor.shape[0] // group.inner[name, dimension]
        # Sorted, so that a channel's sum does not depend on the order of other groups' channels.
        norms = tensor.reshape(channels, -1).abs().double().sort(dim=1).values.sum(dim=1)
        found[:channels] += norms
    return found


@torch.no_grad()
def permute(tensors: Mapping[str, torch.Tensor], permutations: Permutations) -> None:
    """Permutes tensors in place; those without a permutation, and those missing, are left out.

    Args:
        tensors: by their names in ``supernet.largest``: momentum buffers, say.
        permutations: of a ``Sorted``.

    Raises:
        UnsupportedRequest: a tensor has another size than its permutation.
    """
    for name in permutations.keys() & tensors.keys():
        tensor = tensors[name]
        for dimension, indices in permutations[name]:
            if dimension >= tensor.dim() or tensor.shape[dimension] != len(indices):
                raise UnsupportedRequest(
                    f"{name!r} has shape {tuple(tensor.shape)}: dimension {dimension} cannot be "
                    f"permuted by {len(indices)} indices"
                )
            tensor.copy_(tensor.index_select(dimension, indices.to(tensor.device)))


def _order(supernet: Supernet, group: Group) -> torch.Tensor | None:
    """The channels in their new order; ``None`` where it is the one they have."""
    norms = importance(supernet, group)
    order = torch.arange(group.channels, device=norms.device)
    before = order.clone()
    for start, end in zip((0, *group.sizes), group.sizes, strict=False):
        segment = norms[start:end].sort(descending=True, stable=True).indices
        order[start:end] = segment + start
    return None if torch.equal(order, before) else order


# --------------------------------------------------------------------------- what is tied


def _check_largest(supernet: Supernet, arch: Architecture) -> None:
    """Refuses one that takes a part of a shared tensor, or not all blocks."""
    space, picks = supernet.space, arch.as_dict()
    for label, depths in supernet.depths.items():
        if picks.get(label, max(depths)) != max(depths):
            raise UnsupportedRequest(
                f"{space.name!r}: the largest architecture is asked for, but {label!r} is "
                f"{picks[label]}, not {max(depths)}"
            )
    for name, shape in _shapes(*_built(supernet, arch)).items():
        if shape != supernet.tensors[name].shape:
            raise UnsupportedRequest(
                f"{space.name!r}: the largest architecture is asked for, but {name!r} has shape "
                f"{tuple(shape)}, not {tuple(supernet.tensors[name].shape)}, in {arch}"
            )


def _tied(supernet: Supernet, archs: Iterable[Architecture]) -> tuple[Ties, dict[Place, set[int]]]:
    """What networks tie, and the sizes that each place has in them."""
    ties = Ties()
    sizes: dict[Place, set[int]] = {}
    for arch in dict.fromkeys(archs):
        network = _Network(supernet, arch)
        for name, shape in network.shapes.items():
            for dimension, size in enumerate(shape):
                sizes.setdefault((name, dimension), set()).add(size)
                if isinstance(network.graph, str):
                    ties.fix(ties.at((name, dimension)), network.graph)
        for name, layout in network.layouts.items():
            for dimension, extent in enumerate(layout):
                if isinstance(extent, range):
                    ties.fix(ties.at((name, dimension)), POSITIONS)
                elif isinstance(extent, tuple) and sum(size > 1 for size in extent) > 1:
                    ties.fix(ties.at((name, dimension)), f"it is nested, {extent}")
        if isinstance(network.graph, Graph):
            follow(ties, network.graph, network.names)
    return ties, sizes


class _Network:
    """An architecture's network, its tensors by their names in the largest one.

    Attributes:
        names: of its tensors, to those in the largest network.
        shapes: by the names in the largest network; those that are shared.
        layouts: likewise.
        graph: of its forward pass, or why there is none.
    """

    def __init__(self, supernet: Supernet, arch: Architecture) -> None:
        self.names, built = _built(supernet, arch)
        self.shapes = _shapes(self.names, built)
        layouts = layouts_of(built)
        self.layouts: dict[str, Layout] = {
            name: layouts[own] for own, name in self.names.items() if own in layouts
        }
        self.graph: Graph | str
        try:
            self.graph = trace(built.eval(), supernet.space.input)
        except UnsupportedRequest as error:
            self.graph = str(error)


def _built(supernet: Supernet, arch: Architecture) -> tuple[dict[str, str], torch.nn.Module]:
    space: SearchSpace = member(supernet.space, arch)
    builder = FixedBuilder(space, arch)
    with torch.device("meta"):
        built = space.build(builder)
    return {
        own: supernet.names[shared]
        for own, shared in builder.shared_names(built).items()
        if shared in supernet.names and supernet.names[shared] in supernet.tensors
    }, built


def _shapes(names: Mapping[str, str], built: torch.nn.Module) -> dict[str, torch.Size]:
    state = built.state_dict()
    return {name: state[own].shape for own, name in names.items()}


def _variants(supernet: Supernet, arch: Architecture) -> list[Architecture]:
    """An architecture and those with another option in one slot: their layers read it as well."""
    space, held = supernet.space, arch.as_dict()
    others = [
        _with(space, arch, {label: option})
        for label, options in supernet.slots.items()
        for option in options
        if label in held
    ]
    return list(dict.fromkeys((arch, *others)))


def _with(space: SearchSpace, arch: Architecture, picks: Mapping[str, Scalar]) -> Architecture:
    """An architecture with other picks, as far as they are legal."""
    wanted = {**arch.as_dict(), **picks}
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        pick = wanted.get(choice.label, options[-1])
        made[choice.label] = pick if pick in options else options[-1]
    return from_picks(space, made)


def _resized(supernet: Supernet, arch: Architecture, labels: Iterable[str]) -> set[Place]:
    """The places whose sizes are others with the least of these numbers, in any slot's option."""
    least: dict[str, Scalar] = {label: min(supernet.numbers[label]) for label in labels}
    held = arch.as_dict()
    slots = {label: options for label, options in supernet.slots.items() if label in held}
    found: set[Place] = set()
    for turn in range(max(map(len, slots.values()), default=1)):
        picks = {label: options[turn % len(options)] for label, options in slots.items()}
        smaller = _with(supernet.space, arch, {**picks, **least})
        for name, shape in _shapes(*_built(supernet, smaller)).items():
            full = supernet.tensors[name].shape
            found |= {(name, place) for place, size in enumerate(shape) if size != full[place]}
    return found


def _groups(
    supernet: Supernet, ties: Ties, sizes: Mapping[Place, set[int]], resized: set[Place]
) -> Iterator[Group]:
    """The groups whose size is open, with what is known against sorting them."""
    known: set[Place] = set()
    for places, reason in ties.groups():
        known |= places.keys()
        if resized & places.keys() and reason != POSITIONS:
            name, _ = next(iter(places))
            group = Group(name, places, reason=reason)
            yield group if reason else _measured(supernet, ties, sizes, group)
    for name, dimension in sorted(resized - known):
        yield Group(name, {(name, dimension): 1}, reason="nothing is known of it")


def _measured(
    supernet: Supernet, ties: Ties, sizes: Mapping[Place, set[int]], group: Group
) -> Group:
    """A group with its sizes; with a reason where it has none."""
    cuts: set[int] = set()
    for place, inner in group.inner.items():
        name, dimension = place
        for size in (supernet.tensors[name].shape[dimension], *sizes.get(place, ())):
            if size % inner:
                return replace(group, reason=f"{name} has no whole number of channels")
            cuts.add(size // inner)
    readers = tuple(place for place in group.inner if place in ties.readers)
    if not readers:
        return replace(group, reason="no weights read it")
    return replace(group, readers=readers, channels=max(cuts), sizes=tuple(sorted(cuts)))

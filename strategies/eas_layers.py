"""Architectures as EAS sees them: a token a layer, layers that may be widened, places to deepen.

A layer is the choices that share a path (``conv3/kernel`` and ``conv3/width`` are of layer
``conv3``); a choice without one is a layer of its own. Its token is its picks by the last part of
their labels, so that two layers alike have the same token wherever they are. A block ends behind
a layer that makes the maps smaller, and where the path above the layers changes (a stage's).
What can be grown is asked of the space's morphisms; where, is read off from the child.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture
from nas.morphism import morphisms
from nas.space import SearchSpace, from_picks

_MOST_KNOWN = 4096

Pick = tuple[str, Scalar]
"""The last part of a choice's label, and the option."""


@dataclass(frozen=True)
class Layer:
    """A layer's name and its token."""

    name: str
    token: tuple[Pick, ...]

    @property
    def reduces(self) -> bool:
        """Whether it makes the maps smaller, as far as its picks tell."""
        return any(
            ("stride" in attribute and isinstance(option, int) and option > 1)
            or (isinstance(option, str) and option.startswith(("pool", "max_pool", "avg_pool")))
            for attribute, option in self.token
        )


@dataclass(frozen=True)
class Growths:
    """What may be made of an architecture.

    Attributes:
        layers: its layers.
        wider: by a layer's index, the architecture in which it has its next width.
        deeper: by block and position in it, the architectures with one more layer there.
    """

    layers: tuple[Layer, ...]
    wider: Mapping[int, Architecture]
    deeper: Mapping[tuple[int, int], Sequence[Architecture]]


class Grower:
    """Knows what can be grown in a space, and remembers it."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._positions = {
            (choice.label, option): position
            for choice in space.choices
            for position, option in enumerate(choice.options)
        }
        self._known: OrderedDict[Architecture, Growths] = OrderedDict()

    def growths(self, arch: Architecture) -> Growths:
        if arch in self._known:
            self._known.move_to_end(arch)
            return self._known[arch]
        layers = layers_of(arch)
        wider: dict[int, Architecture] = {}
        deeper: dict[tuple[int, int], list[Architecture]] = {}
        places = _places(layers)
        for morphism in morphisms(self.space, arch):
            child = morphism.child
            if morphism.kind == "wider":
                index = _in_common(layers, layers_of(child))
                if index not in wider or self._size(child) < self._size(wider[index]):
                    wider[index] = child
            elif morphism.kind == "deeper":
                index = _in_common(_listed(layers), _listed(layers_of(child)))
                deeper.setdefault(places[index], []).append(child)
        self._known[arch] = Growths(layers, dict(sorted(wider.items())), deeper)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return self._known[arch]

    def widened(self, arch: Architecture, chosen: Sequence[int]) -> Architecture:
        """Layers at their next widths, one after the other; where that is not legal it is left."""
        here = arch.as_dict()
        wider = self.growths(arch).wider
        for index in chosen:
            changes = {k: v for k, v in wider[index].picks if here.get(k) != v}
            try:
                arch = from_picks(self.space, {**arch.as_dict(), **changes})
            except InvalidArchitecture:
                continue
        return arch

    def _size(self, arch: Architecture) -> int:
        return sum(self._positions[pick] for pick in arch.picks)


def layers_of(arch: Architecture) -> tuple[Layer, ...]:
    """Its layers, in order."""
    tokens: dict[str, list[Pick]] = {}
    for label, option in arch.picks:
        path, _, attribute = label.rpartition("/")
        tokens.setdefault(path or label, []).append((attribute, option))
    return tuple(Layer(name, tuple(token)) for name, token in tokens.items())


def tokens_of(space: SearchSpace) -> tuple[Pick, ...]:
    """Every pick that a token of the space may have, once."""
    picks = (
        (choice.label.rpartition("/")[2], option)
        for choice in space.choices
        for option in choice.options
    )
    return tuple(dict.fromkeys(picks))


def most_layers(space: SearchSpace) -> int:
    """How many layers an architecture of the space may have."""
    return len({c.label.rpartition("/")[0] or c.label for c in space.choices})


def _listed(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Those with a path, if any have one: the others (a depth, say) are of the whole network."""
    return [layer for layer in layers if any(a != layer.name for a, _ in layer.token)] or layers


def _places(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """Of each listed layer, and of the end behind the last, its block and the position in it."""
    listed = _listed(layers)
    block, position = 0, 0
    places = [(0, 0)]
    for index, layer in enumerate(listed):
        after = listed[index + 1] if index + 1 < len(listed) else layer
        if layer.reduces or _above(layer) != _above(after):
            block, position = block + 1, 0
        else:
            position += 1
        places.append((block, position))
    return places


def _above(layer: Layer) -> str:
    return layer.name.rpartition("/")[0]


def _in_common(one: Sequence[Layer], other: Sequence[Layer]) -> int:
    """With how many layers alike two networks begin."""
    for index, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine.token != theirs.token:
            return index
    return min(len(one), len(other))

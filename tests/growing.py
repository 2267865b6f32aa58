"""What the tests of strategies that grow networks share: spaces whose morphisms are found fast."""

from __future__ import annotations

import dataclasses
import functools

from nas.architecture import Architecture, Choice
from nas.morphism import Morphism, morphisms
from nas.space import next_choice
from search_spaces.chain import Chain

SPACE = Chain(depths=(1, 2), kernels=(3,), widths=(4, 6), strides=(1,), dense=(0,), input=(3, 6, 6))

FOUND_ONCE = functools.cache(morphisms)
"""The same morphisms, for all laws together."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Up to ``layers`` layers with a kernel, a width and a stride: it has no networks."""

    layers: int = 10
    classes: int = 2
    input: tuple[int, ...] = (3, 8, 8)

    name = "blocks/v1"

    @functools.cached_property
    def choices(self):
        found = [Choice("depth", tuple(range(1, self.layers + 1)))]
        for i in range(self.layers):
            when = {"depth": tuple(range(i + 1, self.layers + 1))}
            found += [
                Choice(f"layer{i}/kernel", (1, 3, 5), when),
                Choice(f"layer{i}/width", (8, 16, 32, 64, 128), when),
                Choice(f"layer{i}/stride", (1, 2), when),
            ]
        return tuple(found)

    def legal(self, prefix):
        return next_choice(self.choices, prefix)

    def canonical(self, arch):
        return arch


def layer_picks(arch):
    return [
        tuple(arch[f"layer{i}/{what}"] for what in ("kernel", "width", "stride"))
        for i in range(arch["depth"])
    ]


def of_layers(layers):
    picks = [("depth", len(layers))]
    for i, layer in enumerate(layers):
        names = (f"layer{i}/{what}" for what in ("kernel", "width", "stride"))
        picks += zip(names, layer, strict=True)
    return Architecture(Blocks.name, tuple(picks))


def grown_by_hand(space, arch):
    """Wider, and deeper behind any layer."""
    layers, found = layer_picks(arch), []
    for i, (kernel, width, stride) in enumerate(layers):
        for wider in (8, 16, 32, 64, 128):
            if wider > width:
                child = [*layers[:i], (kernel, wider, stride), *layers[i + 1 :]]
                found.append(Morphism("wider", f"layer{i}/width", of_layers(child)))
    if len(layers) < space.layers:
        for i, (_, width, _) in enumerate(layers):
            for kernel in (1, 3, 5):
                child = [*layers[: i + 1], (kernel, width, 1), *layers[i + 1 :]]
                found.append(Morphism("deeper", f"layer{i + 1}", of_layers(child)))
    return found

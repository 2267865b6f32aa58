"""The edits of a grown chain: the structural mutations of large-scale evolution.

Real et al., "Large-Scale Evolution of Image Classifiers", ICML 2017. Each is listed with all its
outcomes, under the paper's name:

- ``insert_convolution``: 3×3, any stride, as many channels as what comes in (the next width
  listed), with batch norm and ReLU or neither; ``insert_one_to_one``: batch norm and ReLU alone;
- ``remove_convolution``;
- ``alter_stride``, ``filter_size``: to any other; ``alter_channels``: to others between half and
  double;
- ``add_skip``, ``remove_skip``.

Skips keep their ends: one that spans the place where a layer goes in or out grows or shrinks.
Where that would take a span that is not listed, nothing is inserted there. What differs from the
paper: no edit adds a second skip to a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

KINDS = ("conv", "linear", "one_to_one")
"""Convolution, norm, ReLU; a convolution alone; norm and ReLU alone."""

INSERTED_KERNEL = 3


class Layer(NamedTuple):
    """A layer's picks; those that are not active are 0 or empty."""

    kind: str
    kernel: int = 0
    width: int = 0
    stride: int = 0
    skip: int = 0
    join: str = ""


class Limits(NamedTuple):
    """How many layers there may be, the image's channels, and the options of every choice."""

    layers: int
    c_in: int
    kernels: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    spans: tuple[int, ...]
    joins: tuple[str, ...]


Chain = Sequence[Layer]


def edits(chain: Chain, limits: Limits) -> Mapping[str, Sequence[Chain]]:
    """What one edit may make of a chain, by the edit's name; edits that cannot be are absent."""
    channels = _channels(chain, limits.c_in)
    places = range(len(chain) + 1) if len(chain) < limits.layers else range(0)
    found: dict[str, Iterable[Chain]] = {
        "insert_convolution": (
            _inserted(chain, place, Layer(kind, INSERTED_KERNEL, width, stride))
            for place in places
            for width in [_at_least(limits.widths, channels[place])]
            for kind in KINDS[:2]
            for stride in limits.strides
        ),
        "remove_convolution": (
            _removed(chain, place) for place, layer in enumerate(chain) if layer.kernel
        ),
        "alter_stride": _altered(
            chain, lambda layer: (layer._replace(stride=stride) for stride in limits.strides)
        ),
        "alter_channels": _altered(
            chain,
            lambda layer: (
                layer._replace(width=width)
                for width in limits.widths
                if layer.width <= 2 * width <= 4 * layer.width
            ),
        ),
        "filter_size": _altered(
            chain, lambda layer: (layer._replace(kernel=kernel) for kernel in limits.kernels)
        ),
        "insert_one_to_one": (_inserted(chain, place, Layer("one_to_one")) for place in places),
        "add_skip": (
            _replaced(chain, place, layer._replace(skip=span, join=join))
            for place, layer in enumerate(chain)
            for span in limits.spans
            for join in limits.joins
            if span <= place + 1 and not layer.skip
        ),
        "remove_skip": (
            _replaced(chain, place, layer._replace(skip=0, join=""))
            for place, layer in enumerate(chain)
            if layer.skip
        ),
    }
    spans = (0, *limits.spans)
    legal: dict[str, Sequence[Chain]] = {
        name: [
            made  # once, from whichever place
            for made in dict.fromkeys(map(tuple, edited))
            if all(layer.skip in spans for layer in made)
        ]
        for name, edited in found.items()
    }
    return {name: edited for name, edited in legal.items() if edited}


def _channels(chain: Chain, c_in: int) -> list[int]:
    """Of each state, the image first."""
    channels = [c_in]
    for layer in chain:
        out = layer.width or channels[-1]
        channels.append(out + (channels[-layer.skip] if layer.join == "concat" else 0))
    return channels


def _at_least(widths: Sequence[int], channels: int) -> int:
    return next((width for width in widths if width >= channels), widths[-1])


def _replaced(chain: Chain, place: int, layer: Layer) -> Chain:
    return [*chain[:place], layer, *chain[place + 1 :]]


def _inserted(chain: Chain, place: int, layer: Layer) -> Chain:
    return [*chain[:place], layer, *_following(chain, place, place, 1)]


def _removed(chain: Chain, place: int) -> Chain:
    return [*chain[:place], *_following(chain, place + 1, place, -1)]


def _following(chain: Chain, first: int, place: int, change: int) -> Iterable[Layer]:
    """The layers from one on, when one went in or out at a place that their skips may span."""
    for index in range(first, len(chain)):
        layer = chain[index]
        reads = index + 1 - layer.skip  # the state that goes into the layer of this index
        spans = layer.skip and reads <= place
        yield layer._replace(skip=layer.skip + change) if spans else layer


def _altered(chain: Chain, others: Callable[[Layer], Iterable[Layer]]) -> Iterable[Chain]:
    """Every chain in which one convolution is another one that it may become."""
    for place, layer in enumerate(chain):
        if layer.kernel:
            yield from (_replaced(chain, place, new) for new in others(layer) if new != layer)

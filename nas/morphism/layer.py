"""The rule of a layer of one's own: how it grows out of a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class Grows(Protocol):
    """A layer, from one tensor to one, that says itself how its weights follow from a smaller one.

    Channels are given as a tuple with a number for each channel of this layer's input: the
    channel of the smaller layer's input that it equals.
    """

    def grows_from(self, parent: Any, channels: tuple[int, ...]) -> tuple[int, ...] | None:
        """The channels of its output, likewise; ``None`` where it cannot do what the other does.

        Both layers are without weights here.

        Args:
            parent: the layer of the smaller network in its place, of the same class.
            channels: of the input.
        """

    def grown(
        self, weights: Mapping[str, torch.Tensor], channels: tuple[int, ...]
    ) -> Mapping[str, torch.Tensor]:
        """Its state, so that it does what the other layer does.

        Args:
            weights: the other layer's state, by its names within the layer.
            channels: of the input, as they were given to ``grows_from``.
        """

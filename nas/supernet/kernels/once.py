"""What several slots compute of one tensor, computed once a forward pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

STATES = 8
"""How many tensors are remembered at a time, those last asked for: a cell has fewer live."""


class Once:
    """Results of this forward pass, by the tensor they were computed of and what was computed.

    A tensor is known by identity; while it is remembered it is held, so no other can take its
    place. It must not be changed in place meanwhile.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[torch.Tensor, dict[Hashable, torch.Tensor]]]
        self._known = OrderedDict()

    def __call__(
        self, x: torch.Tensor, key: Hashable, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """What ``compute`` gives for this tensor and key, which is called the first time alone."""
        _, results = self._known.setdefault(id(x), (x, {}))
        self._known.move_to_end(id(x))
        while len(self._known) > STATES:
            self._known.popitem(last=False)
        if key not in results:
            results[key] = compute()
        return results[key]


def suits(x: torch.Tensor) -> bool:
    """Whether the kernels are for such an input: images on a CPU, at a precision of its own."""
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )

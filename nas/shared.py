"""Tensors that all processes of a machine may hold in one place, read-only.

What holds a large tensor and never writes into it (an evaluator its trained weights, a data set
its images) puts it into its pickled state as ``Shared``. Pickled as usual it is a copy, as any
tensor is. An executor that has memory in common with its workers puts it there once instead
(``nas.execution.ray_sharing``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Shared:
    """A tensor in a pickled state; unpickled it is the tensor itself."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> Any:
        return own, (self.tensor,)


def own(value: Any) -> Any:
    """The tensor of ``Shared``, which ``copy.copy`` leaves as it is; any other value itself."""
    return value.tensor if isinstance(value, Shared) else value

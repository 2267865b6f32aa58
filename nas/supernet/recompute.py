"""Parts of a supernet that are computed again in the backward pass instead of being kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, on the parts that a space's
description names (``builder.part``: its cells). Kept is what goes from part to part, and the inner
values of one part at a time. A step takes one more forward pass; what is learnt is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nas.supernet import kernels
from nas.supernet.form import Form
from nas.supernet.mixture import Current, Mixed, Skippable


class Recomputed(nn.Module):
    """A part that keeps its input alone for the backward pass."""

    def __init__(self, part: nn.Module, current: Current) -> None:
        super().__init__()
        self.part = part
        self.current = current

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        if not (self.training and torch.is_grad_enabled()):
            out: torch.Tensor = self.part(*inputs)
            return out
        # The backward pass comes when the supernet has put its gates away.
        gates, shares = self.current.gates, self.current.once is not None

        def run(*inputs: torch.Tensor) -> torch.Tensor:
            with self.current.under(gates, kernels.Once() if shares else None):
                given: torch.Tensor = self.part(*inputs)
                return given

        found: torch.Tensor = checkpoint(
            run, *inputs, use_reentrant=False, context_fn=self._contexts
        )
        return found

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_kept(self.part)


def recomputed(form: Form) -> Form:
    """The same form, with the parts that hold anything open computed again."""

    def wrap(part: nn.Module, current: Current) -> nn.Module:
        if not any(isinstance(module, Mixed | Skippable) for module in part.modules()):
            return part
        return Recomputed(part, current)

    made: Callable[[nn.Module, Current], nn.Module] = wrap
    return replace(form, part=made)


@contextmanager
def _statistics_kept(part: nn.Module) -> Iterator[None]:
    """Within, batch norms may take another step: it is taken back. The first pass has done it."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

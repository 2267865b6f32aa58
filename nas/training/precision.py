"""Gradients in float32, or in mixed precision on a GPU; either way finite or named.

Micikevicius et al., "Mixed Precision Training", ICLR 2018: where a scaled loss overflows, the
step is left out and the scale halved. That is normal. A gradient that is not finite although
nothing was scaled up is not: it ends the training, naming the epoch, the step and a parameter.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas.training.recipe import Recipe
from nas.trial import NotFinite


class Gradients:
    """Makes the gradients of steps and takes the steps.

    Args:
        place: where the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        place: torch.device,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.clip = recipe.gradient_clip
        self.kind = place.type
        scaled = is_mixed(recipe, place)
        self.scaler = torch.amp.GradScaler(place.type) if scaled else None

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which outputs and losses are computed."""
        if self.scaler is None:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=torch.float16)

    def step(self, loss: torch.Tensor, where: str) -> None:
        """One step down a loss.

        Args:
            where: the epoch and the step, for the message.

        Raises:
            NotFinite: the gradient is not finite, and no scaling of the loss is to blame.
        """
        self.optimizer.zero_grad()
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        else:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # as above
            self.scaler.unscale_(self.optimizer)
        self._clip(loss, where)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _clip(self, loss: torch.Tensor, where: str) -> None:
        parameters = list(self.network.parameters())
        bound = math.inf if self.clip is None else self.clip  # by infinity nothing is changed
        try:
            nn.utils.clip_grad_norm_(parameters, bound, error_if_nonfinite=True)
        except RuntimeError:  # torch has no class of its own for it; nothing is clipped then
            if self.scaler is not None and self.scaler.get_scale() > 1:
                return
            self._refuse(float(loss.detach()), where)
            nn.utils.clip_grad_norm_(parameters, bound)

    def _refuse(self, loss: float, where: str) -> None:
        """Raises, unless each number is finite and only their norm is not."""
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                what = f"the gradient of {name!r} is not finite"
                if not math.isfinite(loss):
                    raise NotFinite(f"the training loss is {loss} in {where}, and {what}")
                raise NotFinite(f"{what} in {where}, where the loss is {loss:.4g}")

    def state(self) -> dict[str, torch.Tensor]:
        """The scale, and how long it has held."""
        if self.scaler is None:
            return {}
        return {key: torch.tensor(float(v)) for key, v in self.scaler.state_dict().items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from what ``state`` gave; nothing where there was no scale."""
        if self.scaler is None or not state:
            return
        known = self.scaler.state_dict()
        self.scaler.load_state_dict({k: type(v)(float(state[k])) for k, v in known.items()})


def is_mixed(recipe: Recipe, place: torch.device) -> bool:
    """Whether a recipe trains in mixed precision there."""
    return recipe.mixed_precision and place.type != "cpu"

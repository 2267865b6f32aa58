"""Steps of two kinds of parameters, of which the architecture's are the rarer."""

from __future__ import annotations

import math
from collections.abc import Callable

from nas.errors import ConfigError
from nas.supernet import Gates
from strategies.gradient import Batch, GradientSearch


class Periodic:
    """A step of the weights for every batch, and one of the architecture after every so many.

    Args:
        every: steps of the weights for one of the architecture, counted from 1 in each epoch.
        path: the gates of a step of the weights; draws from torch's generator.
        update: a whole step of the architecture parameters, on a batch of their own share.
    """

    def __init__(
        self,
        every: int,
        path: Callable[[GradientSearch], Gates],
        update: Callable[[GradientSearch, Batch], None],
    ) -> None:
        if every < 1:
            raise ConfigError(f"every must be at least 1, got {every}")
        self.every = every
        self.path = path
        self.update = update
        self._steps = 0

    def __call__(self, search: GradientSearch, training: Batch, validation: Batch) -> float:
        if search.progress == search.epoch / search.settings.epochs:  # an epoch begins
            self._steps = 0
        self._steps += 1
        search.weight_optimiser.zero_grad()
        loss = search.cross_entropy(training, self.path(search))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        search.step_weights()
        if self._steps % self.every == 0 and not search.resting:
            self.update(search, validation)
        return float(loss.detach())


def check_share(share: float) -> None:
    """Refuses a share of the training set that leaves one kind of parameters without data."""
    if not (math.isfinite(share) and 0 < share < 1):
        raise ConfigError(
            f"share must be above 0 and below 1: the weights' part of the training set; got {share}"
        )


def check_period(search: GradientSearch, every: int, share: float) -> None:
    """Refuses a search whose epochs end before the architecture's first step.

    Raises:
        ConfigError: an epoch has fewer steps than ``every``.
    """
    examples = round(search.whole * share)
    steps = math.ceil(examples / search.settings.batch_size)
    if steps < every:
        raise ConfigError(
            f"every is {every}, but an epoch has {steps} steps ({examples} examples in batches of "
            f"{search.settings.batch_size}), so the architecture parameters would never move: "
            "give a smaller every, or smaller batches"
        )

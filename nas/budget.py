"""What a search may spend, and what it has spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nas.errors import ConfigError

_AMOUNTS = ("trials", "seconds", "epochs")


@dataclass(frozen=True, slots=True)
class Cost:
    """Compute: trials, seconds of work (summed over workers), epochs of training."""

    trials: int = 0
    seconds: float = 0.0
    epochs: float = 0.0

    def __post_init__(self) -> None:
        for name in _AMOUNTS:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"cost: {name} must be zero or more, got {value!r}")

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.trials + other.trials, self.seconds + other.seconds, self.epochs + other.epochs
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """The end of a search: no trial starts once any of the limits is reached.

    What is in flight counts. A trial that has started is let finish, so seconds and epochs can
    be exceeded by the trials in flight; trials never are. An architecture found infeasible before
    any training does not count as a trial. ``seconds`` is work, not the clock on
    the wall: four workers spend four seconds in one, and time a strategy spends on its own
    training counts too.
    """

    trials: int | None = None
    seconds: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        limits = {field.name: getattr(self, field.name) for field in fields(self)}
        if all(limit is None for limit in limits.values()):
            raise ConfigError("the budget has no limit: give trials, seconds or epochs")
        for name, limit in limits.items():
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise ConfigError(f"budget: {name} must be above zero, got {limit!r}")

    def allows(self, spent: Cost) -> int:
        """How many more trials may start: zero when the budget is used up."""
        if self.seconds is not None and spent.seconds >= self.seconds:
            return 0
        if self.epochs is not None and spent.epochs >= self.epochs:
            return 0
        if self.trials is not None:
            return max(0, self.trials - spent.trials)
        return 2**31

    def used(self, spent: Cost) -> float:
        """The share that is spent, 0 to 1, of whatever limit is nearest."""
        shares = [0.0]
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                shares.append(float(getattr(spent, field.name) / limit))
        return min(1.0, max(shares))

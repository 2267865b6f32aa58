"""Proposals and trials: frozen values that check themselves. Failure is a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import ConfigError, NasError

CHECKPOINT = "checkpoint"
"""The artifact that a trial's training is taken up from; deleted once nothing may do that."""

STOPPED = "stopped"
"""The note of a trial whose training was given up before its fidelity: when, and why."""

FailureCause = Literal["exception", "timeout", "memory", "not finite", "worker died"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How much of the full training is asked for; ``None`` leaves it to the evaluator.

    Attributes:
        epochs: passes over the training data.
        data_fraction: share of the training data, in (0, 1].
        resolution: image height and width in pixels.
        channels, cells: the space's arguments of these names: narrower and shallower networks.
    """

    epochs: int | None = None
    data_fraction: float | None = None
    resolution: int | None = None
    channels: int | None = None
    cells: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "resolution", "channels", "cells"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"fidelity: {name} must be at least 1, got {value}")
        if self.data_fraction is not None and not 0 < self.data_fraction <= 1:
            raise ConfigError(
                f"fidelity: data_fraction must be above 0 and at most 1, got {self.data_fraction}"
            )


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants measured.

    Attributes:
        number: counts the strategy's proposals from 0; it is the trial's number.
        seed: for the evaluator's own randomness (initial weights, batches).
        parent: the trial whose architecture this one was made from.
        spent: compute the strategy itself used to find this proposal.
        notes: what the strategy has to say of it, as JSON values; they become the trial's.
        continues: the measured trial, of the same architecture and seed, whose training this one
            takes up where it ended; ``fidelity.epochs`` counts from the very start all the same.
    """

    number: int
    arch: Architecture
    seed: int = 0
    fidelity: Fidelity = Fidelity()
    parent: int | None = None
    spent: Cost = Cost()
    notes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    continues: int | None = None

    def __post_init__(self) -> None:
        if self.continues is not None and not 0 <= self.continues < self.number:
            raise ConfigError(
                f"proposal {self.number} continues trial {self.continues}, expected one before it"
            )


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluator found: finite values by metric.

    Attributes:
        cost: compute used, where the evaluator knows better than the clock (epochs trained, or
            simulated seconds); seconds left at 0 are filled in by the executor.
        notes: what else a reader wants to know, as JSON values (a learning curve, say).
        artifacts: files that belong to the trial, by name; the journal keeps them beside itself.
    """

    values: Mapping[str, float]
    cost: Cost = Cost()
    notes: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {name: float(value) for name, value in self.values.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise NotFinite(f"{name} is {value}")
        object.__setattr__(self, "values", values)


class NotFinite(NasError, ArithmeticError):
    """A measurement that is NaN or infinite; the executor makes it a failed trial."""


@dataclass(frozen=True, slots=True)
class Infeasible:
    """An architecture that breaks a limit: what was known by then, and which limit."""

    reason: str
    values: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = Cost()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A trial that gave no measurement: the kind of cause, one line, and the traceback."""

    cause: FailureCause
    message: str
    traceback: str = ""


Outcome = Measured | Infeasible | Failed


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal, what came of it, and all it cost (the proposal's own cost included)."""

    proposal: Proposal
    outcome: Outcome
    cost: Cost

    def __str__(self) -> str:
        if isinstance(self.outcome, Failed):
            found = f"failed, {self.outcome.cause}: {self.outcome.message}"
        elif isinstance(self.outcome, Infeasible):
            found = f"infeasible: {self.outcome.reason}"
        else:
            found = " ".join(f"{name}={value:.6g}" for name, value in self.values.items())
        return f"#{self.number} {found} ({self.cost.seconds:.1f} s)"

    @property
    def number(self) -> int:
        return self.proposal.number

    @property
    def arch(self) -> Architecture:
        return self.proposal.arch

    @property
    def values(self) -> Mapping[str, float]:
        """The measurements of a measured trial; empty for any other."""
        return self.outcome.values if isinstance(self.outcome, Measured) else {}

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the strategy and, unless it failed, the evaluator noted."""
        found = {} if isinstance(self.outcome, Failed) else self.outcome.notes
        return {**self.proposal.notes, **found}

"""Small spaces, evaluators and a strategy to test others against: each works, none is useful."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.architecture import Architecture, Choice, Scalar
from nas.budget import Cost
from nas.errors import ConfigError, nearest
from nas.objective import Metric, Objective, check_objectives
from nas.space import Legal, SearchSpace, count_choices, next_choice, sample, validate
from nas.strategy import proposal_rng, proposal_seed
from nas.trial import CHECKPOINT, Fidelity, Infeasible, Measured, Proposal, Trial

if TYPE_CHECKING:
    from torch import nn

    from nas.builder import Builder


@dataclass(frozen=True)
class FlatSpace:
    """A space in which no choice depends on another: an operation, a width, a kernel.

    Two of the operations are the same, so that not every architecture is its canonical form.
    """

    classes: int = 3
    input: tuple[int, ...] = (2, 6, 6)

    name = "flat/v1"
    choices = (
        Choice("width", (2, 3, 4, 6)),
        Choice("kernel", (1, 3)),
        Choice("operation", ("identity", "again", "relu", "tanh")),
        Choice("bias", ("no", "yes")),
    )

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def canonical(self, arch: Architecture) -> Architecture:
        return Architecture(
            arch.space,
            tuple((label, "identity" if pick == "again" else pick) for label, pick in arch.picks),
        )

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {"operation": str(arch["operation"]), "bias": str(arch["bias"])}

    def build(self, builder: Builder) -> nn.Module:
        from torch import nn

        from nas.layers import GlobalAveragePool

        width, kernel = builder.number("width"), builder.number("kernel")
        options = {
            "identity": nn.Identity,
            "again": nn.Identity,
            "relu": nn.ReLU,
            "tanh": nn.Tanh,
        }
        head = {
            "no": lambda: nn.Linear(width, self.classes, bias=False),
            "yes": lambda: nn.Linear(width, self.classes),
        }
        return nn.Sequential(
            nn.Conv2d(self.input[0], width, kernel, padding=kernel // 2),
            builder.slot("operation", options),
            GlobalAveragePool(),
            builder.slot("bias", head),
        )


@dataclass(frozen=True)
class NestedSpace:
    """A space in which choices open others: a depth, and a width a layer."""

    classes: int = 3
    input: tuple[int, ...] = (2, 6, 6)

    name = "nested/v1"
    choices = (
        Choice("depth", (1, 2, 3)),
        Choice("width0", (2, 4)),
        Choice("width1", (2, 4, 6), {"depth": (2, 3)}),
        Choice("width2", (2, 4), {"depth": (3,)}),
        Choice("activation", ("relu", "tanh")),
    )

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {"activation": str(arch["activation"])}

    def build(self, builder: Builder) -> nn.Module:
        from torch import nn

        from nas.layers import GlobalAveragePool

        c = self.input[0]

        def layer(index: int) -> nn.Module:
            nonlocal c
            c_in, c = c, builder.number(f"width{index}")
            return nn.Conv2d(c_in, c, 3, padding=1)

        layers = nn.Sequential(*builder.depth("depth", layer))
        activation = builder.slot("activation", {"relu": nn.ReLU, "tanh": nn.Tanh})
        return nn.Sequential(layers, activation, GlobalAveragePool(), nn.Linear(c, self.classes))


@dataclass(frozen=True)
class ToyEvaluator:
    """Made-up measurements that depend on the architecture alone: ``score`` and ``cost``.

    The cost is the sum of the picked positions; the score rises with it, but for noise that the
    architecture's digest stands for.
    """

    space: SearchSpace

    metrics = (Metric("score", "1", "maximize"), Metric("cost", "1", "minimize"))

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        validate(self.space, proposal.arch)
        return Measured(
            toy_values(self.space, proposal.arch),
            Cost(epochs=self.planned_epochs(proposal.fidelity)),
        )

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 2.0 if fidelity.epochs is None else float(fidelity.epochs)


def toy_values(space: SearchSpace, arch: Architecture) -> dict[str, float]:
    """What ``ToyEvaluator`` measures; both are above zero."""
    by_label = {choice.label: choice for choice in space.choices}
    cost = 1.0 + sum(by_label[label].index(option) for label, option in arch.picks)
    noise = int(space.canonical(arch).digest()[:8], 16) / 2**32
    return {"score": cost + 2.0 * noise, "cost": cost}


@dataclass(frozen=True)
class Continues:
    """Measures how many epochs were trained in all, going on from an earlier trial's checkpoint."""

    metrics = (Metric("score", "1", "maximize"),)

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        return self._trained(proposal, 0)

    def evaluate_from(self, proposal: Proposal, earlier: Trial) -> Measured | Infeasible:
        outcome = earlier.outcome
        kept = outcome.artifacts.get(CHECKPOINT) if isinstance(outcome, Measured) else None
        return self._trained(proposal, int(kept or 0))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return float(fidelity.epochs or 1)

    def _trained(self, proposal: Proposal, done: int) -> Measured:
        epochs = int(self.planned_epochs(proposal.fidelity))
        return Measured(
            {"score": float(epochs)},
            Cost(epochs=epochs - done),
            artifacts={CHECKPOINT: str(epochs).encode()},
        )


@dataclass(frozen=True)
class Inherits:
    """Measures how many generations lie behind a proposal, which their trials hand down."""

    metrics = (Metric("score", "1", "maximize"),)

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        return self._generation(1)

    def evaluate_child(self, proposal: Proposal, parent: Trial) -> Measured | Infeasible:
        outcome = parent.outcome
        handed = outcome.artifacts.get("generation") if isinstance(outcome, Measured) else None
        return self._generation(int(handed or 0) + 1)

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0

    def _generation(self, number: int) -> Measured:
        kept = {"generation": str(number).encode()}
        return Measured({"score": float(number)}, Cost(epochs=1), artifacts=kept)


MISCHIEF = ("raises", "nan", "memory", "infeasible", "sleeps")


@dataclass(frozen=True)
class Misbehaves:
    """An evaluator that does what evaluators should not: every time, and in one way.

    Args:
        how: ``"raises"``, ``"nan"``, ``"memory"`` (a ``MemoryError``), ``"infeasible"``, or
            ``"sleeps"`` (for a minute).
    """

    how: str

    metrics = (Metric("score", "1", "maximize"),)

    def __post_init__(self) -> None:
        if self.how not in MISCHIEF:
            raise ConfigError(f"misbehaves: no way {self.how!r}: {nearest(self.how, MISCHIEF)}")

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        if self.how == "raises":
            raise RuntimeError("the cable is loose")
        if self.how == "memory":
            raise MemoryError("there is no more")
        if self.how == "infeasible":
            return Infeasible("cost is 9, must be at most 5", {"cost": 9.0})
        if self.how == "sleeps":
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.05)
        return Measured({"score": float("nan")})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0


class Uniform:
    """A strategy that samples and learns nothing; unlike random search it may repeat itself."""

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self._number = 0

    def ask(self, n: int) -> Sequence[Proposal]:
        numbers = range(self._number, self._number + n)
        self._number += n
        return [self._propose(number) for number in numbers]

    def _propose(self, number: int) -> Proposal:
        arch = sample(self.space, proposal_rng(self.seed, number))
        return Proposal(number, arch, seed=proposal_seed(self.seed, number))

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]


def toy_proposals(space: SearchSpace, n: int, seed: int = 0) -> list[Proposal]:
    """Random proposals, numbered from 0."""
    rng = np.random.default_rng(seed)
    return [
        Proposal(number, sample(space, rng), seed=proposal_seed(seed, number))
        for number in range(n)
    ]

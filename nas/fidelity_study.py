"""How well low fidelities rank what full training ranks: the same architectures at each.

``FidelitySweep`` proposes random architectures at several fidelities; it is run as any search is,
so the work is journaled, distributed and resumed. ``compare`` reads the trials.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.errors import ConfigError, NasError
from nas.fidelity import format_fidelity, parse_fidelity
from nas.objective import Objective, check_objectives
from nas.ranking import (
    Agreement,
    Pair,
    distinct_architectures,
    draw_pairs,
    rank_agreement,
    ranking_document,
)
from nas.space import SearchSpace
from nas.strategy import proposal_seed
from nas.trial import Failed, Measured, Proposal, Trial

OTHER_SEEDS = "full, other seeds"
"""What full training itself is worth as a guess of full training."""


class FidelitySweep:
    """Random architectures, no two the same network, each at full fidelity and at lower ones.

    Every trial has a seed of its own, so that what two fidelities agree on is the architecture's.

    Args:
        low: the fidelities that are judged, as ``nas.fidelity.parse_fidelity`` reads them.
        full: the one that they are judged by.
        count: how many architectures.
        seeds: how often each is measured at each fidelity.

    Raises:
        ConfigError: a fidelity is not written so or there twice, or a number is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        low: Sequence[str],
        full: str,
        count: int = 20,
        seeds: int = 1,
        seed: int = 0,
    ) -> None:
        if count < 3 or seeds < 1 or seed < 0:
            raise ConfigError(
                "fidelity: count must be at least 3, seeds at least 1 and seed zero or more, got "
                f"{count}, {seeds} and {seed}"
            )
        if not low:
            raise ConfigError("fidelity: there is no low fidelity to judge")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.low = tuple(low)
        self.full = full
        self.count = count
        self.seeds = seeds
        self.seed = seed
        self._fidelities = tuple(parse_fidelity(text) for text in (full, *low))
        if len(set(self._fidelities)) != len(self._fidelities):
            written = ", ".join(format_fidelity(fidelity) for fidelity in self._fidelities)
            raise ConfigError(f"fidelity: one is there twice among {written}")
        self._number = 0
        self._architectures: list[Architecture] = []

    @property
    def trials(self) -> int:
        """How many there will be."""
        return self.count * self.seeds * len(self._fidelities)

    def ask(self, n: int) -> Sequence[Proposal]:
        if not self._architectures:
            self._architectures = list(distinct_architectures(self.space, self.count, self.seed))
        last = min(self._number + n, self.trials)
        asked = [self._proposal(number) for number in range(self._number, last)]
        self._number = last
        return asked

    def _proposal(self, number: int) -> Proposal:
        repeat, fidelity = divmod(number, len(self._fidelities))
        return Proposal(
            number,
            self._architectures[repeat // self.seeds],
            proposal_seed(self.seed, number),
            self._fidelities[fidelity],
        )

    def tell(self, trial: Trial) -> None:
        """Nothing is learnt."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One fidelity against full training.

    Attributes:
        fidelity: as it was asked for, or ``OTHER_SEEDS``.
        agreement: of the ranks.
        pairs: what both gave, higher being better; means over the seeds.
        seconds, epochs: what a trial cost, as a share of what one at full fidelity did; ``None``
            where those cost nothing.
        left_out: architectures without a value at either fidelity: failed or infeasible.
    """

    fidelity: str
    agreement: Agreement
    pairs: tuple[Pair, ...]
    seconds: float | None
    epochs: float | None
    left_out: int


def compare(sweep: FidelitySweep, trials: Sequence[Trial]) -> list[Comparison]:
    """What the trials of a sweep say of each of its low fidelities, in order.

    Where there are several seeds the last row compares full training with full training, every
    other seed against the rest: more than that cannot be asked of any fidelity.

    Raises:
        NasError: fewer than three architectures were measured at both fidelities, or all values
            of one are the same; the message says what failed.
    """
    objective = sweep.objectives[0]
    sign = 1.0 if objective.direction == "maximize" else -1.0
    values: dict[tuple[int, Architecture], list[tuple[int, float]]] = {}
    costs: dict[int, list[tuple[float, float]]] = {}
    kinds = [parse_fidelity(text) for text in (sweep.full, *sweep.low)]
    for trial in sorted(trials, key=lambda trial: trial.number):
        kind = kinds.index(trial.proposal.fidelity)
        if isinstance(trial.outcome, Measured):
            value = sign * trial.values[objective.metric]
            values.setdefault((kind, trial.arch), []).append((trial.number, value))
            costs.setdefault(kind, []).append((trial.cost.seconds, trial.cost.epochs))
    seen = dict.fromkeys(trial.arch for trial in sorted(trials, key=lambda trial: trial.number))
    found = []
    for kind, name in enumerate(sweep.low, start=1):
        pairs = tuple(
            Pair(arch, _mean(values[kind, arch]), _mean(values[0, arch]))
            for arch in seen
            if (kind, arch) in values and (0, arch) in values
        )
        found.append(_compared(name, pairs, costs, kind, len(seen), trials, sweep))
    if sweep.seeds > 1:
        halves = [(arch, values.get((0, arch), [])) for arch in seen]
        pairs = tuple(
            Pair(arch, _mean(full[1::2]), _mean(full[::2]))
            for arch, full in halves
            if len(full) > 1
        )
        found.append(_compared(OTHER_SEEDS, pairs, costs, 0, len(seen), trials, sweep))
    return found


def _compared(
    name: str,
    pairs: tuple[Pair, ...],
    costs: Mapping[int, Sequence[tuple[float, float]]],
    kind: int,
    count: int,
    trials: Sequence[Trial],
    sweep: FidelitySweep,
) -> Comparison:
    if len(pairs) < 3:
        failures = [t.outcome.message for t in trials if isinstance(t.outcome, Failed)]
        why = f"; the first failure: {failures[0]}" if failures else ""
        raise NasError(
            f"fidelity {name}: only {len(pairs)} of {count} architectures were measured at it and "
            f"at full fidelity, three are needed{why}"
        )
    scores, truths = [pair.score for pair in pairs], [pair.truth for pair in pairs]
    try:
        agreement = rank_agreement(scores, truths, seed=sweep.seed)
    except NasError as error:
        raise type(error)(f"fidelity {name}: {error}") from error
    own, full = np.mean(costs[kind], axis=0), np.mean(costs[0], axis=0)
    seconds, epochs = (float(o / f) if f > 0 else None for o, f in zip(own, full, strict=True))
    return Comparison(name, agreement, pairs, seconds, epochs, count - len(pairs))


def _mean(measured: Sequence[tuple[int, float]]) -> float:
    return float(np.mean([value for _, value in measured]))


def study_document(
    sweep: FidelitySweep, comparisons: Sequence[Comparison], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything as JSON values.

    Args:
        facts: what else is known of the sweep.
    """
    rows = []
    for one in comparisons:
        told = {"fidelity": one.fidelity, "cost_seconds": one.seconds, "cost_epochs": one.epochs}
        rows.append(ranking_document(one.pairs, one.agreement, {**told, "left_out": one.left_out}))
    return {
        **facts,
        "space": sweep.space.name,
        "metric": sweep.objectives[0].metric,
        "full": sweep.full,
        "architectures": sweep.count,
        "seeds": sweep.seeds,
        "seed": sweep.seed,
        "fidelities": rows,
    }


def study_png(sweep: FidelitySweep, comparisons: Sequence[Comparison]) -> bytes:
    """Each fidelity's values against full training's, at most four in a row, as a PNG."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(comparisons) / 4)
    columns = math.ceil(len(comparisons) / rows)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), dpi=110, layout="constrained")
    metric = sweep.objectives[0].metric
    for index, one in enumerate(comparisons):
        axes = figure.add_subplot(rows, columns, index + 1)
        draw_pairs(axes, one.pairs, f"{metric}, {one.fidelity}", f"{metric}, {sweep.full}")
        axes.set_title(f"Kendall τ {one.agreement.kendall}", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

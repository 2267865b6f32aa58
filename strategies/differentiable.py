# No postponed annotations here: a subclass in another module gets the types themselves, and what
# reads a configuration finds them.
"""What the differentiable strategies are around their own idea: ask, tell, state, guards, limits.

A strategy says what its search is; here an ``ask`` advances it by some epochs and proposes the
architecture of then. Nothing is learnt from trials: what is learnt is learnt from the data.
"""

import functools
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nas.architecture import Architecture
from nas.budget import Cost
from nas.data import Data
from nas.errors import ConfigError
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace
from nas.supernet import Form, recomputed, search_form
from nas.supernet.parallel import Group
from nas.supernet.workers import Workers, as_workers, check_workers, run_resumable
from nas.training import Device
from nas.trial import Proposal, Trial
from strategies.epochs import propose
from strategies.gradient import (
    ArchitectureStep,
    GradientSearch,
    GradientSettings,
    Relaxation,
    Steps,
    alternating,
    first_order,
)
from strategies.guards import Guards, Watch, limit_skips
from strategies.hardware import ExpectedCost, Limits, Penalty

SETTINGS = GradientSettings()
NO_PENALTY = Penalty()
NO_GUARDS = Guards()


@dataclass(eq=False, repr=False)
class DifferentiableStrategy(ABC):
    """A search by gradient descent on a supernet. Give ``search``.

    A proposal is charged for the examples that were taken through the supernet and back, as
    epochs of the whole training set: 1 for an epoch of both halves, 2.5 at second order.

    Args:
        data: the training set is cut in half, for weights and architecture; the test set is not
            looked at.
        settings: of the two optimisers.
        propose_every: epochs of the search a proposal.
        penalty: costs of the gates that an architecture step minimises besides.
        guards: against collapse; when one acts, the proposal's notes say so.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU; more than one is not reproducible to the bit.
        recompute: whether cells are computed again in the backward pass instead of being kept:
            less memory for more time (``nas.supernet.recompute``).
        workers: processes that make every step together, each on its rows of both batches: a
            number of them on this machine, or ``Workers`` (of a Ray cluster, say). They are
            started for each proposal, so an epoch, or ``propose_every`` of them, should take long
            beside the seconds that this takes.

    Limits on ``macs``, ``parameters`` and ``weight_bytes`` among the objectives are kept by all
    that is proposed.
    """

    space: SearchSpace
    objectives: Sequence[Objective]
    data: Data
    seed: int = 0
    settings: GradientSettings = SETTINGS
    propose_every: int = 1
    penalty: Penalty = NO_PENALTY
    guards: Guards = NO_GUARDS
    device: Device = "auto"
    threads: int = 1
    recompute: bool = False
    workers: int | Workers = 1

    def __post_init__(self) -> None:
        self.objectives = check_objectives(self.objectives)
        if self.propose_every < 1:
            raise ConfigError(f"propose_every must be at least 1, got {self.propose_every}")
        search = self.search()
        size = self.settings.batch_size
        check_workers(self.workers, search.training_examples, size, self.device)
        self._run = _Run(search, self.guards, self.limits())
        self._number = 0

    @abstractmethod
    def search(self) -> GradientSearch:
        """The search of this strategy, at its beginning."""

    def limits(self) -> Limits:
        """What all that is proposed keeps."""
        return Limits(self.space, self.objectives)

    def gradient_search(
        self,
        relaxation: Relaxation,
        step: ArchitectureStep = first_order,
        *,
        steps: Steps = alternating,
        share: float = 0.5,
        form: Form | None = None,
    ) -> GradientSearch:
        """A search with this strategy's arguments."""
        form = search_form(self.space) if form is None else form
        search = GradientSearch(
            self.space,
            self.data,
            relaxation,
            step,
            self.settings,
            self.seed,
            self.device,
            self.threads,
            share,
            recomputed(form) if self.recompute else form,
            steps,
        )
        if any(getattr(self.penalty, field.name) for field in fields(self.penalty)):
            search.penalty = ExpectedCost(self.space, self.penalty, search.supernet.slots)
        return search

    def ask(self, n: int) -> Sequence[Proposal]:
        if n < 1:
            return []
        search = self._run.search
        before = search.examples
        run = self._run if as_workers(self.workers).count == 1 else _Together(self, self._run)
        proposals = propose(run, self._number, self.seed, self.propose_every)
        self._number += len(proposals)
        spent = Cost(epochs=(search.examples - before) / search.whole)
        return [replace(one, spent=spent, notes=self._run.notes()) for one in proposals]

    def tell(self, trial: Trial) -> None:  # noqa: B027  # a whole method: there is nothing to do
        """Nothing: what is learnt is learnt from the data."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number, "run": self._run.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = int(state["number"])
        self._run.load_state_dict(state["run"])


class _Run:
    """A search, its guards, and the architecture of each of its epochs."""

    def __init__(self, search: GradientSearch, guards: Guards, limits: Limits) -> None:
        self.search = search
        self.guards = guards
        self.limits = limits
        self.watch = Watch(guards, search.space, search.supernet.slots)
        # Of each epoch: the architecture, and what a guard did to it.
        self._made: list[tuple[Architecture, dict[str, Any]]] = []
        self._derive()  # limits that cannot be kept are known before any work

    @property
    def epoch(self) -> int:
        return self.search.epoch

    @property
    def done(self) -> bool:
        return self.search.done or bool(self.watch.stopped)

    def advance(self) -> None:
        self.search.advance()
        self.watch.look(self.search)
        self._made.append(self._derive())

    def architecture(self) -> Architecture:
        return self._made[self.watch.kept - 1][0]

    def notes(self) -> dict[str, Any]:
        """What the guards did, if anything, to what is proposed now."""
        if not self._made:
            return {}
        notes = dict(self._made[self.watch.kept - 1][1])
        if self.watch.stopped:
            notes["guard_stop"] = f"{self.watch.stopped}; proposed is epoch {self.watch.kept}"
        return notes

    def _derive(self) -> tuple[Architecture, dict[str, Any]]:
        search, guards = self.search, self.guards
        weights, slots = search.weights(), search.supernet.slots
        free = search.architecture()
        fewer = limit_skips(search.space, weights, slots, guards)
        notes: dict[str, Any] = {}
        if fewer != free:
            notes["guard_skips"] = (
                f"max_skips {guards.max_skips} of {guards.skip!r}: changed {free}"
            )
        arch = self.limits.derive(
            lambda moved: limit_skips(search.space, moved, slots, guards), weights, slots
        )
        if arch != fewer:
            notes["limit"] = f"{self.limits.excess(fewer)}: changed {fewer}"
        return arch, notes

    def state_dict(self) -> dict[str, Any]:
        return {
            "search": self.search.state_dict(),
            "watch": self.watch.state_dict(),
            "made": [[arch.to_json(), dict(notes)] for arch, notes in self._made],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.search.load_state_dict(state["search"])
        self.watch.load_state_dict(state["watch"])
        self._made = [(Architecture.from_json(text), dict(notes)) for text, notes in state["made"]]


class _Together:
    """The same run, which workers take to the next proposal."""

    def __init__(self, strategy: DifferentiableStrategy, run: _Run) -> None:
        self.strategy = strategy
        self.run = run

    @property
    def epoch(self) -> int:
        return self.run.epoch

    @property
    def done(self) -> bool:
        return self.run.done

    def architecture(self) -> Architecture:
        return self.run.architecture()

    def advance(self) -> None:
        """So many epochs as there are between two proposals."""
        strategy = self.strategy
        kind = type(strategy)
        given = {f.name: getattr(strategy, f.name) for f in fields(kind) if f.init}
        until = self.run.epoch + strategy.propose_every
        state = run_resumable(
            functools.partial(_further, kind, {**given, "workers": 1}, until),
            pickle.dumps(self.run.state_dict()),
            as_workers(strategy.workers),
            strategy.device,
            strategy.threads,
        )
        self.run.load_state_dict(pickle.loads(state))


def _further(
    kind: Callable[..., DifferentiableStrategy],
    arguments: Mapping[str, Any],
    until: int,
    kept: bytes,
    group: Group,
    keep: Callable[[bytes, Any], None],
) -> bytes:
    """What each worker does: all that one process would, on its rows of every batch."""
    run = kind(**arguments)._run
    run.search.group = group
    run.load_state_dict(pickle.loads(kept))
    while not run.done and run.epoch < until:
        run.advance()
        kept = pickle.dumps(run.state_dict())
        if group.rank == 0:
            keep(kept, run.epoch)
    return kept

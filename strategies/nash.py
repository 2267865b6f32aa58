"""NASH: hill climbing by network morphisms, whose children begin where their parent ended.

Elsken, Metzen & Hutter, "Simple and Efficient Architecture Search for Convolutional Neural
Networks", 2017: of the best network so far seven children are made, each by five random
morphisms (deepen, widen, skip; each kind as likely), which keep its function; they are trained
for 17 epochs, and so is the best itself; the best of the eight is the next to climb from. Eight
steps. The evaluator ``inherited`` starts the children from their parent's weights; the paper's
learning rate falls from 0.05 to 0 along a cosine in each of these trainings.

What differs from the paper: the morphisms are those of the space (``nas.morphism``), to its next
options, where the paper widens by a factor of 2 or 4. The first network is the one given or the
plainest of the space, where the paper has three convolutions. A first network that fails is
proposed again, one that breaks a limit gives way to a random one. Children that fail are left
out; where all of them do, the next step is from the same network again. It ends before its last
step where nothing can be grown. On a space in which nothing can be grown to begin with, a morphism
is a mutation (``nas.space.mutate``), and keeps what the evaluator can inherit. With several
objectives the best has the largest weighted product (``nas.objective.scalarize``). The longer
training of what was found is left to ``nas retrain``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError, nearest
from nas.morphism import MORPHISM_KINDS, morphisms
from nas.objective import Objective, check_objectives, scalarize
from nas.space import SearchSpace, mutate, sample
from nas.strategy import proposal_draws, proposal_seed
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial
from strategies.starting import starting

KINDS = ("deeper", "wider", "skip")
"""The paper's morphisms."""

_REDRAWS = 20


class Nash:
    """Hill climbing by network morphisms.

    Args:
        neighbours: networks trained in a step: children, and the best itself.
        changes: morphisms from a parent to a child.
        steps: how often to climb; then the search is over.
        epochs: of each of these trainings; ``None`` leaves them to the evaluator.
        start_epochs: of the first network's; ``None`` likewise.
        kinds: of morphisms (``nas.morphism.Morphism.kind``).
        initial: the text of the architecture to start from (``nas.space.parse``), at most one; by
            default the first option of every choice.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        neighbours: int = 8,
        changes: int = 5,
        steps: int = 8,
        epochs: int | None = 17,
        start_epochs: int | None = 20,
        kinds: Sequence[str] = KINDS,
        initial: Sequence[str] = (),
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        for name, value, least in (
            ("neighbours", neighbours, 2),
            ("changes", changes, 1),
            ("steps", steps, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if isinstance(kinds, str) or not kinds:
            raise ConfigError(f"kinds must name morphisms, as in {list(KINDS)}; got {kinds!r}")
        for kind in kinds:
            if kind not in MORPHISM_KINDS:
                raise ConfigError(f"kinds: no morphism {kind!r}: {nearest(kind, MORPHISM_KINDS)}")
        if len(initial) > 1:
            raise ConfigError(f"initial: a climb starts from one architecture, got {len(initial)}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.neighbours = neighbours
        self.changes = changes
        self.steps = steps
        self.epochs = epochs
        self.start_epochs = start_epochs
        self.kinds = tuple(kinds)
        self.initial = tuple(initial)
        self._fidelity = Fidelity(epochs=epochs)
        self._start_fidelity = Fidelity(epochs=start_epochs)
        self._known: dict[Architecture, Mapping[str, Sequence[Architecture]]] = {}  # in this step
        (self._start,) = starting(space, initial)
        self._grows = bool(self._growths(self._start))
        self._number = 0
        self._step = 0  # the one under way; 0 is the first network's training
        self._left = 1  # proposals of this step that are still to be made
        self._flying = 0
        self._start_is_legal = True
        self._best: tuple[int, Architecture] | None = None
        self._winner: tuple[float, int, Architecture] | None = None  # of this step, so far
        self._tried: set[Architecture] = set()  # in this step

    # ----------------------------------------------------------------------------- asking

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(min(n, self._left))]

    def _propose(self) -> Proposal:
        number, self._number = self._number, self._number + 1
        self._left -= 1
        self._flying += 1
        seed = proposal_seed(self.seed, number)
        draws = proposal_draws(self.seed, number)
        if self._best is None:
            arch = self._start if self._start_is_legal else sample(self.space, draws)
            return Proposal(number, arch, seed, self._start_fidelity)
        parent, arch = self._best
        if self._left:  # the last of a step is the best itself, trained on
            arch = self._child(arch, draws)
        return Proposal(number, arch, seed, self._fidelity, parent=parent)

    def _child(self, parent: Architecture, draws: Draws) -> Architecture:
        for _ in range(_REDRAWS):
            child = parent
            for _ in range(self.changes):
                child = self._changed(child, draws)
            if child not in self._tried and child != parent:
                break
        self._tried.add(child)
        return child

    def _changed(self, arch: Architecture, draws: Draws) -> Architecture:
        """One morphism on, of a kind drawn first; the same where there is none."""
        if not self._grows:
            return mutate(self.space, arch, draws)
        growths = self._growths(arch)
        if not growths:
            return arch
        kinds = [kind for kind in self.kinds if kind in growths]
        children = growths[kinds[draws.integers(len(kinds))]]
        return children[draws.integers(len(children))]

    def _growths(self, arch: Architecture) -> Mapping[str, Sequence[Architecture]]:
        """What one morphism makes of an architecture, by the morphism's kind."""
        if arch not in self._known:
            found: dict[str, list[Architecture]] = {}
            for morphism in morphisms(self.space, arch):
                if morphism.kind in self.kinds:
                    found.setdefault(morphism.kind, []).append(morphism.child)
            self._known[arch] = found
        return self._known[arch]

    # ---------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        self._flying -= 1
        if isinstance(trial.outcome, Measured):
            fitness = scalarize(self.objectives, trial.values)
            entry = (fitness, -trial.number, trial.arch)  # of equal ones the first
            if self._winner is None or entry[:2] > self._winner[:2]:
                self._winner = entry
        elif isinstance(trial.outcome, Infeasible) and self._best is None:
            self._start_is_legal = False
        if not self._left and not self._flying:
            self._climb()

    def _climb(self) -> None:
        """Every trial of a step is back: the next one begins at the winner."""
        if self._winner is not None:
            _, number, arch = self._winner
            self._best = -number, arch
        self._winner = None
        self._tried = set()
        self._known = {}
        if self._best is None:  # the first network failed
            self._left = 1
        elif self._step < self.steps and (not self._grows or self._growths(self._best[1])):
            self._step += 1
            self._left = self.neighbours

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "step": self._step,
            "left": self._left,
            "flying": self._flying,
            "start_is_legal": self._start_is_legal,
            "best": None if self._best is None else [self._best[0], self._best[1].to_json()],
            "winner": None
            if self._winner is None
            else [*self._winner[:2], self._winner[2].to_json()],
            "tried": sorted(arch.to_json() for arch in self._tried),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]
        self._step = state["step"]
        self._left = state["left"]
        self._flying = state["flying"]
        self._start_is_legal = state["start_is_legal"]
        best, winner = state["best"], state["winner"]
        self._best = None if best is None else (best[0], Architecture.from_json(best[1]))
        self._winner = None if winner is None else (*winner[:2], Architecture.from_json(winner[2]))
        self._tried = set(map(Architecture.from_json, state["tried"]))

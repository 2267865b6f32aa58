"""LaNAS and LA-MCTS: the space is cut in good and bad parts, and a tree search picks the part.

Wang, Xie, Li, Fonseca & Tian, "Sample-Efficient Neural Architecture Search by Learning Actions
for Monte Carlo Tree Search" (LaNAS), TPAMI 2021; Wang, Fonseca & Tian, "Learning Search Space
Partition for Black-box Optimization using Monte Carlo Tree Search" (LA-MCTS), NeurIPS 2020. A
split learnt from the trials in a node sends every architecture of the space to the good or to the
bad child; UCT walks from the root to a leaf; what is proposed is drawn from the leaf's region.

What differs from the papers: architectures are one-hot vectors of their picks. Values are
replaced by their ranks, from 0 to 1, when a tree is grown: so one Cp serves every metric (the
papers scale it with the best accuracy) and an outlier bends no split. Linear regression is
solved with a small ridge rather than by gradient steps, and a trial goes where the split predicts
it to be (LaNAS's code takes its measured value there). k-means sees the value next to the picks
and scaled to weigh as much as all of them. LA-MCTS draws from a leaf with Bayesian optimisation
or TuRBO, which are for continuous spaces; here, as in LaNAS, it is a uniform draw, by rejection.
No architecture is proposed twice. Proposals in flight count as visits, failed ones as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError, nearest
from nas.objective import Objective, check_objectives, scalarize
from nas.space import HasSize, SearchSpace, enumerate_architectures, mutate, sample
from nas.strategy import proposal_draws, proposal_seed
from nas.trial import Measured, Proposal, Trial

Floats = NDArray[np.float64]

_DRAWS = 100  # random architectures for one leaf, and then as many mutants of its trials
_RIDGE = 1.0


class Split(Protocol):
    """A cut through the whole space, learnt from some of it."""

    def good(self, tokens: Sequence[int]) -> bool:
        """Whether an architecture is in the good part; its tokens as in ``nas.encoding``."""


@dataclass(frozen=True)
class LinearSplit:
    """Good is what a linear model of the picks predicts to be above the mean of the trials."""

    weights: Sequence[float]
    threshold: float

    def good(self, tokens: Sequence[int]) -> bool:
        return sum(map(self.weights.__getitem__, tokens)) > self.threshold


@dataclass(frozen=True)
class SvmSplit:
    """Good is one side of a support vector machine with a Gaussian kernel.

    Args:
        vectors: the support vectors as one-hot rows, and the ``norms`` of their squares.
        sign: 1 where the machine's second class is the good one, else −1.
    """

    vectors: Floats
    norms: Floats
    weights: Floats
    intercept: float
    gamma: float
    sign: float

    def decision(self, tokens: Sequence[int]) -> float:
        distances = self.norms + len(tokens) - 2.0 * self.vectors[:, tokens].sum(axis=1)
        return float(self.weights @ np.exp(-self.gamma * distances)) + self.intercept

    def good(self, tokens: Sequence[int]) -> bool:
        return self.sign * self.decision(tokens) > 0


def linear_split(rows: Floats, values: Floats, seed: int) -> LinearSplit | None:
    """LaNAS's: regression on one-hot rows, cut at the mean; ``None`` if it predicts one value."""
    mean_row, mean = rows.mean(axis=0), float(values.mean())
    centred, target = rows - mean_row, values - mean
    if len(rows) < rows.shape[1]:  # the same solution, from the smaller of two systems
        inner = centred @ centred.T + _RIDGE * np.eye(len(rows))
        weights = centred.T @ np.linalg.solve(inner, target)
    else:
        outer = centred.T @ centred + _RIDGE * np.eye(rows.shape[1])
        weights = np.linalg.solve(outer, centred.T @ target)
    if np.ptp(rows @ weights) < 1e-12:
        return None
    return LinearSplit(weights.tolist(), float(mean_row @ weights))


def svm_split(rows: Floats, values: Floats, seed: int) -> SvmSplit | None:
    """LA-MCTS's: two clusters of picks and value, told apart by a machine that sees the picks."""
    from sklearn.cluster import KMeans
    from sklearn.svm import SVC

    spread = float(values.std())
    if spread == 0:
        return None
    weight = math.sqrt(float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())) / spread
    clusters = KMeans(2, n_init=10, random_state=seed).fit_predict(
        np.column_stack([rows, weight * values])
    )
    if len(set(clusters.tolist())) < 2:
        return None
    machine = SVC(kernel="rbf", gamma="auto", random_state=seed).fit(rows, clusters)
    better = values[clusters == 1].mean() > values[clusters == 0].mean()
    vectors = np.asarray(machine.support_vectors_, dtype=np.float64)
    return SvmSplit(
        vectors,
        (vectors**2).sum(axis=1),
        machine.dual_coef_[0],
        float(machine.intercept_[0]),
        1.0 / rows.shape[1],
        1.0 if better else -1.0,
    )


SPLITS: dict[str, Callable[[Floats, Floats, int], Split | None]] = {
    "linear": linear_split,
    "svm": svm_split,
}


@dataclass
class Node:
    """A part of the space: its trials, and what came of looking there.

    Attributes:
        trials: the positions of the trials the tree was grown from that lie in it.
        visits: these, and the proposals made for it since.
        measured, total: how many of them were measured, and the sum of their values.
    """

    trials: list[int]
    visits: int
    measured: int
    total: float
    split: Split | None = None
    children: list[Node] = field(default_factory=list)  # the good one, the bad one

    def uct(self, parent_visits: int, exploration: float) -> float:
        """The mean value, and 2 Cp √(2 ln n_parent / n) for what was looked at too little."""
        bonus = 2 * exploration * math.sqrt(2 * math.log(parent_visits) / self.visits)
        return self.total / self.measured + bonus

    def path(self, tokens: Sequence[int]) -> Iterator[Node]:
        """The nodes an architecture is in, down to its leaf."""
        node = self
        yield node
        while node.split is not None:
            node = node.children[0 if node.split.good(tokens) else 1]
            yield node

    def nodes(self) -> Iterator[Node]:
        """This node and all below, parents before children."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def leaves(self, exploration: float) -> Iterator[Node]:
        """All leaves, that which UCT walks to first, then those of the turns it did not take."""
        if self.split is None:
            yield self
            return
        ranked = sorted(self.children, key=lambda c: c.uct(self.visits, exploration), reverse=True)
        for child in ranked:
            yield from child.leaves(exploration)


class LaMcts:
    """Tree search over a learnt partition of the space.

    Args:
        split: ``linear`` (LaNAS) or ``svm`` (k-means and a support vector machine, LA-MCTS).
        exploration: Cp, in units of the values' whole range; 0.1 in LaNAS.
        initial: random architectures measured before the first tree; 10 in LaNAS's code.
        rebuild_every: trials measured between two trees; 20 in LaNAS's code, 1 in LA-MCTS.
        leaf_size: a node with more trials is split; 20 in LA-MCTS.
        height: levels of the tree, the root's included; 5 in LaNAS.
        enumerate_up_to: spaces of at most so many architectures are listed, so that a leaf's
            region is drawn from exactly however small it is.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        split: Literal["linear", "svm"] = "linear",
        exploration: float = 0.1,
        initial: int = 10,
        rebuild_every: int = 20,
        leaf_size: int = 20,
        height: int = 5,
        enumerate_up_to: int = 2000,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if split not in SPLITS:
            raise ConfigError(f"there is no split {split!r}: {nearest(split, SPLITS)}")
        if not (math.isfinite(exploration) and exploration >= 0):
            raise ConfigError(f"exploration must be zero or more, got {exploration}")
        for name, value, least in (
            ("initial", initial, 1),
            ("rebuild_every", rebuild_every, 1),
            ("leaf_size", leaf_size, 1),
            ("height", height, 1),
            ("enumerate_up_to", enumerate_up_to, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.split = split
        self.exploration = exploration
        self.initial = initial
        self.rebuild_every = rebuild_every
        self.leaf_size = leaf_size
        self.height = height
        self.enumerate_up_to = enumerate_up_to
        sizes = [len(choice.options) for choice in space.choices]
        self._width = sum(sizes)
        self._token = {
            (choice.label, option): first + position
            for choice, first in zip(space.choices, accumulate(sizes, initial=0), strict=False)
            for position, option in enumerate(choice.options)
        }
        self._pool: list[Architecture] | None = None
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._seen: dict[Architecture, None] = {}
        self._flying: dict[int, Architecture] = {}
        self._trials: list[tuple[Architecture, float]] = []
        self._grown = 0  # how many trials the tree was grown from
        self._sorted: list[float] = []
        self._root: Node | None = None

    # ------------------------------------------------------------------------------ asking

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n:
            draws = proposal_draws(self.seed, self._number)
            arch = self._draw(draws)
            if arch is None:
                break
            self._seen[arch] = None
            self._flying[self._number] = arch
            self._visit(arch)
            seed = proposal_seed(self.seed, self._number)
            proposals.append(Proposal(self._number, arch, seed=seed))
            self._number += 1
        return proposals

    def _draw(self, draws: Draws) -> Architecture | None:
        """An architecture that was not proposed, from the first leaf that has one."""
        if self._root is None:
            leaves = [Node([], 0, 0, 0.0)]
        else:
            leaves = list(self._root.leaves(self.exploration))
        order = {id(leaf): position for position, leaf in enumerate(leaves)}
        listed = self._listed()
        best, best_position = None, len(leaves)
        for arch in self._candidates(leaves[0].trials if listed is None else [], draws):
            if arch not in self._seen:
                position = self._position(arch, order)
                if position < best_position:
                    best, best_position = arch, position
                if position == 0:
                    return best
        left = [arch for arch in listed or () if arch not in self._seen]
        if left:
            positions = [self._position(arch, order) for arch in left]
            first = min(positions)
            inside = [
                arch for arch, position in zip(left, positions, strict=True) if position == first
            ]
            return inside[draws.integers(len(inside))]
        if best is None and listed is None:  # a small space that is not to be listed
            every = enumerate_architectures(self.space)
            return next((arch for arch in every if arch not in self._seen), None)
        return best

    def _candidates(self, trials: Sequence[int], draws: Draws) -> Iterator[Architecture]:
        for _ in range(_DRAWS):
            yield sample(self.space, draws)
        for _ in range(_DRAWS if trials else 0):
            arch, _ = self._trials[trials[draws.integers(len(trials))]]
            yield mutate(self.space, arch, draws)

    def _listed(self) -> list[Architecture] | None:
        """All architectures, if they are few."""
        if self._pool is None:
            most = self.enumerate_up_to
            few = self.space.size() <= most if isinstance(self.space, HasSize) else True
            every = islice(enumerate_architectures(self.space), most + 1 if few else 0)
            self._pool = list(every)
        return self._pool if 0 < len(self._pool) <= self.enumerate_up_to else None

    def _tokens(self, arch: Architecture) -> list[int]:
        return [self._token[pick] for pick in arch.picks]

    def _position(self, arch: Architecture, order: Mapping[int, int]) -> int:
        if self._root is None:
            return 0
        *_, leaf = self._root.path(self._tokens(arch))
        return order[id(leaf)]

    def _visit(self, arch: Architecture) -> None:
        if self._root is not None:
            for node in self._root.path(self._tokens(arch)):
                node.visits += 1

    # ----------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        self._flying.pop(trial.number, None)
        if not isinstance(trial.outcome, Measured):
            return
        value = scalarize(self.objectives, trial.values)
        self._trials.append((trial.arch, value))
        due = self._grown + (self.rebuild_every if self._grown else self.initial)
        if len(self._trials) >= due:
            self._grow(len(self._trials))
            for arch in self._flying.values():
                self._visit(arch)
        elif self._root is not None:
            for node in self._root.path(self._tokens(trial.arch)):
                node.measured += 1
                node.total += self._rank(value)

    def _grow(self, count: int) -> None:
        """The tree of the first ``count`` trials."""
        self._grown = count
        self._sorted = sorted(value for _, value in self._trials[:count])
        tokens = [self._tokens(arch) for arch, _ in self._trials[:count]]
        rows = np.zeros((count, self._width))
        for row, picked in zip(rows, tokens, strict=True):
            row[picked] = 1.0
        values = np.array([self._rank(value) for _, value in self._trials[:count]])
        self._root = self._node(tokens, rows, values, list(range(count)), 1)

    def _rank(self, value: float) -> float:
        """Where a value lies among those the tree was grown from: 0 below all, 1 above all."""
        below = np.searchsorted(self._sorted, value, "left")
        above = np.searchsorted(self._sorted, value, "right")
        return float(below + above) / (2 * len(self._sorted))

    def _node(
        self,
        tokens: Sequence[list[int]],
        rows: Floats,
        values: Floats,
        trials: list[int],
        level: int,
    ) -> Node:
        node = Node(trials, len(trials), len(trials), float(values[trials].sum()))
        if level == self.height or len(trials) <= self.leaf_size:
            return node
        split = SPLITS[self.split](rows[trials], values[trials], self.seed % 2**32)
        if split is None:
            return node
        parts: tuple[list[int], list[int]] = ([], [])
        for trial in trials:
            parts[0 if split.good(tokens[trial]) else 1].append(trial)
        if parts[0] and parts[1]:
            node.split = split
            node.children = [self._node(tokens, rows, values, part, level + 1) for part in parts]
        return node

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        nodes = [] if self._root is None else self._root.nodes()
        return {
            "number": self._number,
            "seen": [arch.to_json() for arch in self._seen],
            "flying": [[number, arch.to_json()] for number, arch in self._flying.items()],
            "trials": [[arch.to_json(), value] for arch, value in self._trials],
            "grown": self._grown,
            "nodes": [[node.visits, node.measured, node.total] for node in nodes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._begin()
        self._number = state["number"]
        self._seen = dict.fromkeys(map(Architecture.from_json, state["seen"]))
        self._flying = {number: Architecture.from_json(text) for number, text in state["flying"]}
        self._trials = [(Architecture.from_json(text), value) for text, value in state["trials"]]
        if state["grown"]:
            self._grow(state["grown"])
            assert self._root is not None
            for node, (visits, measured, total) in zip(
                self._root.nodes(), state["nodes"], strict=True
            ):
                node.visits, node.measured, node.total = visits, measured, total

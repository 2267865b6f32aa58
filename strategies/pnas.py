"""PNAS: small architectures first, then the best of them grown, ranked by a learnt predictor.

Liu et al., "Progressive Neural Architecture Search", ECCV 2018, Algorithm 1: all cells of one
block are measured; then, level after level, a predictor is fitted to everything measured, all
ways to add a block to the cells of the level before are ranked by it, and the best K are measured.

A space that can grow its architectures (``Grows``: the PNAS space) is searched exactly so. A level
then holds architectures of the space with that many blocks (``Pnas.level_space``), which an
evaluator must be able to measure. On any other space a level opens the next ``step`` of the ordered
choices, and an architecture of the level is a prefix of picks, completed to be measured: the rest
is that of the best architecture measured before the level (at first: of a random one) wherever
that is legal, and the first legal option elsewhere. The predictor reads the picks of the prefix
alone. After the last level it begins anew from the best architecture, until a whole round
proposes nothing new: each round searches around a better completion.

What differs from the paper: a level's architectures are proposed as soon as ``ask`` wants them and
the next level begins when all came back; what failed is not grown. A level that has at most K
candidates measures all without a predictor (as the paper does with its first). Targets of the
predictor are ranks, so that failures of training do not rule it (``nas.predictor.networks`` says
what differs there). With several objectives the score is their weighted product.

The notes of a proposal say its level and, from the second predicted level on, how well the
predictor ranked the level before: Spearman's coefficient between prediction and measurement.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Scalar
from nas.errors import ConfigError, nearest
from nas.objective import Objective, check_objectives, scalarize
from nas.plain import nearest_to
from nas.predictor.protocol import Floats
from nas.predictor.targets import normal_scores, rank_correlation
from nas.space import SearchSpace, enumerate_architectures, sample
from nas.strategy import proposal_rng, proposal_seed
from nas.trial import Measured, Proposal, Trial

Reader = Literal["lstm", "mlp"]
Picks = tuple[tuple[str, Scalar], ...]


@runtime_checkable
class Grows(Protocol):
    """A space whose architectures have a number of blocks, and can be given one more."""

    @property
    def blocks(self) -> int: ...

    def smallest(self) -> SearchSpace:
        """The same space with one block."""

    def extend(self, arch: Architecture) -> tuple[SearchSpace, Iterator[Architecture]]:
        """The space of one block more, and every way to add a block to this architecture."""


class Pnas:
    """Progressive search: a beam of K, widened by one block (or step of choices) a level.

    Args:
        beam: K, how many are measured on a level after the first; 256 in the paper.
        reader: of the predictor, ``"lstm"`` or ``"mlp"``.
        members: of its ensemble; 5 in the paper.
        units: of its layers and embeddings; 100 in the paper.
        epochs: passes over the measurements, each time it is fitted.
        step: choices that a level opens, on a space that does not say how to grow.
        most: so many extensions of a level are ranked at most; beyond them a random sample is.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        beam: int = 256,
        reader: Reader = "mlp",
        members: int = 5,
        units: int = 100,
        epochs: int = 30,
        step: int = 1,
        most: int = 100_000,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if reader not in ("lstm", "mlp"):
            raise ConfigError(f"pnas: reader: no {reader!r}: {nearest(reader, ('lstm', 'mlp'))}")
        for name, number in (
            ("beam", beam),
            ("members", members),
            ("units", units),
            ("epochs", epochs),
            ("step", step),
            ("most", most),
        ):
            if number < 1:
                raise ConfigError(f"pnas: {name} must be at least 1, got {number}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.beam = beam
        self.reader = reader
        self.members = members
        self.units = units
        self.epochs = epochs
        self.step = step
        self.most = most
        self._grows = isinstance(space, Grows)
        self._forget()

    def _forget(self) -> None:
        self._number = 0
        self._level = 0
        self._queue: list[tuple[Picks, Architecture, float | None]] = []
        self._flying: dict[int, tuple[Picks, Architecture, float | None]] = {}
        self._measured: list[tuple[Picks, Architecture, float]] = []
        self._grown_from: list[Picks] = []
        self._level_results: list[tuple[Picks, float, float | None]] = []
        self._correlation: float | None = None
        self._held: Architecture | None = None
        self._seen: dict[Architecture, float | None] = {}
        self._new_in_round = 0

    # ------------------------------------------------------------------------------- asking

    @property
    def rank_correlation(self) -> float | None:
        """Between prediction and measurement on the last level that a predictor had ranked."""
        return self._correlation

    def ask(self, n: int) -> Sequence[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n:
            if not self._queue:
                if self._flying or not self._more():
                    break
                continue
            entry = self._queue.pop(0)
            number, self._number = self._number, self._number + 1
            self._flying[number] = entry
            notes: dict[str, Any] = {"level": self._level}
            if self._correlation is not None:
                notes["rank_correlation"] = self._correlation
            if entry[2] is not None:
                notes["predicted"] = entry[2]
            seed = proposal_seed(self.seed, number)
            proposals.append(Proposal(number, entry[1], seed=seed, notes=notes))
        return proposals

    def _more(self) -> bool:
        """Goes on until there is something to propose; where there is nothing, nothing changes."""
        before = self.state_dict()
        while self._next_level():
            if self._queue:
                return True
        self.load_state_dict(before)
        return False

    def _next_level(self) -> bool:
        """Fills the queue with what is new of the next level; false where there is no level."""
        self._finish_level()
        rng = proposal_rng(self.seed, self._number)
        if self._is_last():
            if isinstance(self.space, Grows) or not self._new_in_round:
                return False
            self._level, self._new_in_round, self._grown_from = 0, 0, []
        if not isinstance(self.space, Grows):
            best = max(self._measured, key=lambda one: one[2], default=None)
            self._held = best[1] if best else sample(self.space, rng)
        found = self._extensions(rng)
        self._level += 1
        chosen: list[tuple[Picks, Architecture, float | None]] = []
        if len(found) <= self.beam or self._level == 1 or len(self._measured) < 2:
            if len(found) > self.beam and self._level > 1:
                found = [found[int(i)] for i in rng.permutation(len(found))[: self.beam]]
            chosen = [(picks, arch, None) for picks, arch in found]
        else:
            said = self._predict([picks for picks, _ in found])
            order = np.argsort(-said, kind="stable")[: self.beam]
            chosen = [(*found[int(i)], float(said[i])) for i in order]
        for entry in chosen:
            if entry[1] not in self._seen:
                self._queue.append(entry)
                self._seen[entry[1]] = None
                self._new_in_round += 1
            elif (score := self._seen[entry[1]]) is not None:
                # Measured before as the completion of another prefix: known at no cost.
                self._level_results.append((entry[0], score, None))
                self._measured.append((entry[0], entry[1], score))
        return True

    def _finish_level(self) -> None:
        predicted = [(said, score) for _, score, said in self._level_results if said is not None]
        if len(predicted) > 1:
            found = rank_correlation(*zip(*predicted, strict=True))
            self._correlation = self._correlation if found is None else found
        # A prefix may have been measured more than once, with other completions: its best counts.
        best: dict[Picks, float] = {}
        for picks, score, _ in self._level_results:
            best[picks] = max(score, best.get(picks, score))
        ordered = sorted(best, key=lambda picks: -best[picks])
        if self._level:
            self._grown_from = ordered if self._level == 1 else ordered[: self.beam]
        self._level_results = []

    def _is_last(self) -> bool:
        if isinstance(self.space, Grows):
            return self._level >= self.space.blocks or (self._level > 0 and not self._grown_from)
        if not self._level:
            return False
        open_ = [p for p in self._grown_from if self.space.legal(dict(p)) is not None]
        return not open_

    # ---------------------------------------------------------------------------- extending

    def _extensions(self, rng: np.random.Generator) -> list[tuple[Picks, Architecture]]:
        """All candidates of the next level, each once: what the predictor reads, and whole."""
        found: dict[Picks, Architecture] = {}
        if isinstance(self.space, Grows):
            smaller: Any = self.level_space(max(1, self._level))
            level: Iterator[Architecture] = (
                itertools.chain.from_iterable(
                    smaller.extend(Architecture(self.space.name, picks))[1]
                    for picks in self._grown_from
                )
                if self._level
                else enumerate_architectures(smaller)
            )
            found = {arch.picks: arch for arch in level}
        else:
            for prefix in self._grown_from if self._level else [()]:
                for picks in self._prefixes(dict(prefix), self.step):
                    found[picks] = self._completed(picks)
        if len(found) > self.most:
            listed = list(found.items())
            return [listed[i] for i in np.sort(rng.choice(len(listed), self.most, replace=False))]
        return list(found.items())

    def level_space(self, level: int) -> SearchSpace:
        """The space that a level's architectures are of: that with so many blocks, if it grows."""
        if not isinstance(self.space, Grows):
            return self.space
        space: Any = self.space.smallest()
        arch = next(enumerate_architectures(space))
        for _ in range(level - 1):
            space, larger = space.extend(arch)
            arch = next(larger)
        grown: SearchSpace = space
        return grown

    def _prefixes(self, made: dict[str, Scalar], steps: int) -> Iterator[Picks]:
        step = self.space.legal(made)
        if step is None or not steps:
            yield tuple(made.items())
            return
        choice, options = step
        for option in options:
            yield from self._prefixes(made | {choice.label: option}, steps - 1)

    def _completed(self, prefix: Picks) -> Architecture:
        held = self._held.as_dict() if self._held else {}
        return nearest_to(self.space, held | dict(prefix))

    # --------------------------------------------------------------------------- predicting

    def _predict(self, prefixes: Sequence[Picks]) -> Floats:
        from nas.predictor import SequenceEnsemble

        known = [picks for picks, *_ in self._measured]
        tokens: dict[tuple[str, Scalar], int] = {}
        for picks in [*known, *prefixes]:
            for label, option in picks:
                tokens.setdefault(self._token(label, option), len(tokens))
        rows = self._rows([*known, *prefixes], tokens)
        model = SequenceEnsemble(
            len(tokens),
            reader=self.reader,
            period=len(known[0]) if self._grows else rows.shape[1],
            members=self.members,
            units=self.units,
            epochs=self.epochs,
            # The paper's learning rates: 0.01 for the first level's data, 0.002 from then on.
            lr=0.01 if self._level <= 2 else 0.002,
            seed=self.seed,
        )
        model.fit(rows[: len(known)], normal_scores([score for *_, score in self._measured]))
        said: Floats = model.predict(rows[len(known) :]).mean
        return said

    def _token(self, label: str, option: Scalar) -> tuple[str, Scalar]:
        """Blocks share their tokens: what a block learns of an operation serves all."""
        return (label.rpartition("/")[2] if self._grows else label, option)

    def _rows(
        self, prefixes: Sequence[Picks], tokens: Mapping[tuple[str, Scalar], int]
    ) -> NDArray[np.int64]:
        rows = np.full((len(prefixes), max(len(picks) for picks in prefixes)), -1, dtype=np.int64)
        for row, picks in zip(rows, prefixes, strict=True):
            row[: len(picks)] = [tokens[self._token(*pick)] for pick in picks]
        return rows

    # ------------------------------------------------------------------------------ telling

    def tell(self, trial: Trial) -> None:
        entry = self._flying.pop(trial.number, None)
        if entry is None or not isinstance(trial.outcome, Measured):
            return
        picks, arch, said = entry
        score = scalarize(self.objectives, trial.values)
        self._measured.append((picks, arch, score))
        self._level_results.append((picks, score, said))
        self._seen[arch] = score

    # ------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "level": self._level,
            "queue": [_entry(*entry) for entry in self._queue],
            "flying": {str(number): _entry(*entry) for number, entry in self._flying.items()},
            "measured": [
                [_pairs(picks), arch.to_json(), score] for picks, arch, score in self._measured
            ],
            "grown_from": [_pairs(picks) for picks in self._grown_from],
            "level_results": [
                [_pairs(picks), score, said] for picks, score, said in self._level_results
            ],
            "correlation": self._correlation,
            "held": self._held.to_json() if self._held else None,
            "seen": [[arch.to_json(), score] for arch, score in self._seen.items()],
            "new_in_round": self._new_in_round,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        read = Architecture.from_json
        self._number = state["number"]
        self._level = state["level"]
        self._queue = [(_picks(p), read(a), said) for p, a, said in state["queue"]]
        self._flying = {
            int(number): (_picks(p), read(a), said)
            for number, (p, a, said) in state["flying"].items()
        }
        self._measured = [(_picks(p), read(a), score) for p, a, score in state["measured"]]
        self._grown_from = [_picks(p) for p in state["grown_from"]]
        self._level_results = [(_picks(p), s, said) for p, s, said in state["level_results"]]
        self._correlation = state["correlation"]
        self._held = read(state["held"]) if state["held"] else None
        self._seen = {read(text): score for text, score in state["seen"]}
        self._new_in_round = state["new_in_round"]


def _entry(picks: Picks, arch: Architecture, said: float | None) -> list[Any]:
    return [_pairs(picks), arch.to_json(), said]


def _pairs(picks: Picks) -> list[list[Any]]:
    return [list(pick) for pick in picks]


def _picks(pairs: Any) -> Picks:
    return tuple((label, option) for label, option in pairs)

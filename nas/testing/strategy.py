"""The contract of a search strategy."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from nas.budget import Budget, Cost
from nas.components import create, describe
from nas.errors import NasError
from nas.execution.serial import Serial
from nas.history import SNAPSHOT, History
from nas.journal import proposal_from_document
from nas.objective import Objective, maximize, minimize
from nas.search import search
from nas.space import SearchSpace, validate
from nas.strategy import HasContinuable, Strategy
from nas.testing.compare import first_difference
from nas.testing.driving import drive, judge
from nas.testing.process import in_another_process
from nas.testing.toys import FlatSpace, NestedSpace, ToyEvaluator
from nas.trial import Failed, Outcome, Proposal, Trial


class StrategyContract(ABC):
    """What every strategy holds, on any space. Give ``strategy``.

    Attributes:
        trials: how many trials a law is tried for: enough for the strategy to leave its initial
            phase (make its populations small).
    """

    trials: ClassVar[int] = 36

    @abstractmethod
    def strategy(self, space: SearchSpace, objectives: Sequence[Objective], seed: int) -> Strategy:
        """A new strategy with small settings."""

    def spaces(self) -> Sequence[SearchSpace]:
        """The spaces it is tried on: with and without choices that depend on others."""
        return (FlatSpace(), NestedSpace())

    def objectives(self) -> Sequence[Sequence[Objective]]:
        """The objectives it is tried with, of the toys' metrics ``score`` and ``cost``.

        Override it for a strategy that takes no single objective, or not several.
        """
        return ((maximize("score"),), (maximize("score"), minimize("cost", limit=5.0)))

    # -------------------------------------------------------------------------- proposals

    def test_proposals_are_numbered_and_legal(self) -> None:
        for strategy in self._strategies():
            made: list[Proposal] = []
            for position, document in enumerate(drive(strategy, self.trials, judge(strategy))):
                proposal = proposal_from_document(json.loads(json.dumps(document)))
                assert proposal.number == position
                validate(strategy.space, proposal.arch)
                assert 0 <= proposal.seed < 2**31
                assert proposal.parent is None or 0 <= proposal.parent < position
                made.append(proposal)
                if proposal.continues is not None:
                    assert isinstance(strategy, HasContinuable)
                    earlier = made[proposal.continues]
                    assert (proposal.arch, proposal.seed) == (earlier.arch, earlier.seed)
                    assert (proposal.fidelity.epochs or 0) > (earlier.fidelity.epochs or 0)

    def test_asking_for_none_gives_none_and_changes_nothing(self) -> None:
        for strategy in self._strategies():
            drive(strategy, 5, judge(strategy))
            before = copy.deepcopy(strategy.state_dict())
            assert list(strategy.ask(0)) == []
            assert same(before, strategy.state_dict())

    def test_an_empty_answer_changes_nothing(self) -> None:
        for strategy in self._strategies():
            flying: list[Proposal] = []
            for _ in range(4 * self.trials):
                before = copy.deepcopy(strategy.state_dict())
                proposals = list(strategy.ask(3))
                if not proposals:
                    assert same(before, strategy.state_dict())
                    if not flying:
                        break
                    done, flying = flying, []
                    for proposal in done:
                        outcome = judge(strategy)(proposal)
                        strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
                flying += proposals

    def test_same_seed_same_proposals(self) -> None:
        for one, other in zip(self._strategies(), self._strategies(), strict=True):
            first = drive(one, self.trials, judge(one))
            assert not first_difference(first, drive(other, self.trials, judge(other)))

    def test_same_proposals_in_another_process(self) -> None:
        strategies = list(self._strategies())
        descriptions = [describe(strategy) for strategy in strategies]
        here = [drive(strategy, self.trials, judge(strategy)) for strategy in strategies]
        there = in_another_process(
            "nas.testing.driving:drive_described", strategies=descriptions, trials=self.trials
        )
        for mine, theirs in zip(json.loads(json.dumps(here)), there, strict=True):
            assert not first_difference(mine, theirs)

    def test_another_seed_other_proposals(self) -> None:
        for one, other in zip(self._strategies(0), self._strategies(1), strict=True):
            first = drive(one, self.trials, judge(one))
            second = drive(other, self.trials, judge(other))
            assert [p["arch"] for p in first] != [p["arch"] for p in second]
            assert [p["seed"] for p in first] != [p["seed"] for p in second]

    def test_global_random_state_is_neither_used_nor_moved(self) -> None:
        for one, other in zip(self._strategies(), self._strategies(), strict=True):
            first = drive(one, self.trials, judge(one))
            np.random.seed(4)
            torch.manual_seed(4)
            before = pickle.dumps(np.random.get_state()), torch.get_rng_state()
            assert not first_difference(drive(other, self.trials, judge(other)), first)
            assert pickle.dumps(np.random.get_state()) == before[0]
            assert torch.equal(before[1], torch.get_rng_state())

    # ---------------------------------------------------------------------------- trials

    @pytest.mark.parametrize("order", range(5))
    def test_takes_trials_in_any_order(self, order: int) -> None:
        for strategy in self._strategies():
            drive(strategy, self.trials, judge(strategy), seed=order)

    def test_goes_on_when_everything_fails(self) -> None:
        def fails(proposal: Proposal) -> Outcome:
            return Failed("worker died", "the machine is gone")

        for strategy in self._strategies():
            assert drive(strategy, 10, fails)

    def test_asks_for_no_metric_but_its_objectives(self) -> None:
        for one, other in zip(self._strategies(), self._strategies(), strict=True):
            bare = drive(one, self.trials, judge(one))
            crowded = drive(other, self.trials, judge(other, accuracy=0.5, a_noise=-3.0, zeal=1e9))
            assert not first_difference(bare, crowded)

    # ----------------------------------------------------------------------------- state

    def test_state_is_plain(self) -> None:
        for strategy in self._strategies():
            assert_plain(strategy.state_dict(), "state")
            drive(strategy, self.trials, judge(strategy))
            state = strategy.state_dict()
            assert_plain(state, "state")
            assert same(_saved_and_loaded(state), state)

    def test_state_is_a_copy(self) -> None:
        for strategy in self._strategies():
            drive(strategy, 6, judge(strategy))
            state = strategy.state_dict()
            before = copy.deepcopy(state)
            drive(strategy, 6, judge(strategy), seed=1)
            assert same(state, before), "a state that was given out changed with the strategy"

    def test_loaded_state_continues_identically(self) -> None:
        for k in (1, self.trials // 3, self.trials // 2):
            for whole, saved, loaded in zip(
                self._strategies(), self._strategies(), self._strategies(), strict=True
            ):
                first = drive(whole, k, judge(whole))
                assert not first_difference(drive(saved, k, judge(saved)), first)
                state = _saved_and_loaded(saved.state_dict())
                loaded.load_state_dict(state)
                rest = drive(whole, self.trials - k, judge(whole), seed=1)
                again = drive(loaded, self.trials - k, judge(loaded), seed=1)
                assert not first_difference(again, rest)
                assert same(loaded.state_dict(), whole.state_dict())
                assert same(state, saved.state_dict()), "loading a state must not keep hold of it"

    def test_description_makes_the_same_strategy(self) -> None:
        for strategy in self._strategies(7):
            description = json.loads(json.dumps(describe(strategy)))
            again: Strategy = create("strategies", description, "strategy")
            assert describe(again) == description
            first = drive(strategy, 8, judge(strategy))
            assert not first_difference(drive(again, 8, judge(again)), first)

    def test_nonsense_is_refused(self) -> None:
        space, objectives = self.spaces()[0], self.objectives()[0]
        with pytest.raises(NasError, match="-1"):
            self.strategy(space, objectives, -1)
        with pytest.raises(NasError, match="objective"):
            self.strategy(space, (), 0)
        with pytest.raises(NasError, match="twice"):
            self.strategy(space, (objectives[0], objectives[0]), 0)

    # --------------------------------------------------------------------------- searches

    @pytest.mark.parametrize("resume", ["snapshot", "replay"])
    def test_resumed_search_equals_the_uninterrupted_one(self, tmp_path: Path, resume: str) -> None:
        rng = np.random.default_rng(8)
        for number, (whole, begun, resumed) in enumerate(
            zip(self._strategies(), self._strategies(), self._strategies(), strict=True)
        ):
            trials = list(self._search(whole, History()))
            if len(trials) < 2:
                pytest.fail(f"{len(trials)} trials are too few to be interrupted")
            stop = int(rng.integers(1, len(trials)))
            folder = tmp_path / str(number)
            history = History(folder, snapshot_every_s=0.0)
            with contextlib.closing(self._search(begun, history)) as broken_off:
                first = list(itertools.islice(broken_off, stop))
            if resume == "replay":
                (folder / SNAPSHOT).unlink()
            history = History(folder)
            rest = list(self._search(resumed, history))
            assert not first_difference(
                [(t.proposal, t.outcome) for t in first + rest],
                [(t.proposal, t.outcome) for t in trials],
            )
            assert [t.number for t in history.trials] == [t.number for t in trials]
            assert same(resumed.state_dict(), whole.state_dict())

    # ---------------------------------------------------------------------------- helpers

    def _strategies(self, seed: int = 0) -> Iterator[Strategy]:
        for space in self.spaces():
            for objectives in self.objectives():
                yield self.strategy(space, objectives, seed)

    def _search(self, strategy: Strategy, history: History) -> Generator[Trial, None, None]:
        evaluator = ToyEvaluator(strategy.space)
        return search(strategy, evaluator, Serial(), Budget(trials=self.trials // 2), history)


def assert_plain(value: Any, place: str) -> None:
    """Numbers, strings, lists, dictionaries with string keys, and tensors: nothing else."""
    if value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor):
        return
    if type(value) is list:
        for index, item in enumerate(value):
            assert_plain(item, f"{place}[{index}]")
        return
    assert isinstance(value, Mapping), f"{place} is a {type(value).__name__}: {value!r:.80}"
    for key, item in value.items():
        assert type(key) is str, f"{place} has the key {key!r}, expected a string"
        assert_plain(item, f"{place}.{key}")


def same(one: Any, other: Any) -> bool:
    """Whether two plain states are equal, tensors included."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and torch.equal(one, other)
        )
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def _saved_and_loaded(state: Mapping[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded

"""The history: what is read from it is the same in memory and on disk."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.architecture import Architecture
from nas.budget import Budget, Cost
from nas.components import describe
from nas.errors import NasError, ResumeError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.history import JOURNAL, SNAPSHOT, History
from nas.objective import maximize, minimize, violated
from nas.search import search
from nas.space import sample
from nas.testing.toys import FlatSpace, NestedSpace, ToyEvaluator, Uniform, toy_proposals
from nas.trial import Failed, Fidelity, Infeasible, Measured, Proposal, Trial

SPACE = NestedSpace()
OBJECTIVES = (maximize("score"), minimize("cost", limit=6.0))
COSTS = st.builds(
    Cost,
    st.integers(0, 3),
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 100, allow_nan=False),
)
VALUES = st.fixed_dictionaries(
    {"score": st.floats(-10, 10), "cost": st.floats(0, 10)},
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1, 1)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
OUTCOMES = (
    st.builds(Measured, VALUES, COSTS, st.dictionaries(st.text(max_size=4), JSON, max_size=2))
    | st.builds(Infeasible, st.text(max_size=10), VALUES, COSTS)
    | st.builds(
        Failed,
        st.sampled_from(["exception", "timeout", "memory", "not finite", "worker died"]),
        st.text(max_size=20),
        st.text(max_size=20),
    )
)
FIDELITIES = st.builds(
    Fidelity,
    st.none() | st.integers(1, 9),
    st.none() | st.floats(0.01, 1),
    st.none() | st.integers(1, 64),
)


@st.composite
def trials(draw):
    made = []
    for number in range(draw(st.integers(0, 8))):
        proposal = Proposal(
            number,
            sample(SPACE, np.random.default_rng(draw(st.integers(0, 999)))),
            seed=draw(st.integers(0, 2**31 - 1)),
            fidelity=draw(FIDELITIES),
            parent=draw(st.none() | st.integers(0, number - 1)) if number else None,
            spent=draw(COSTS),
        )
        made.append(Trial(proposal, draw(OUTCOMES), draw(COSTS)))
    return draw(st.permutations(made))


def recorded(history, done):
    history.begin({"version": "0", "strategy": {"objectives": [describe(o) for o in OBJECTIVES]}})
    proposals = sorted((trial.proposal for trial in done), key=lambda proposal: proposal.number)
    half = len(proposals) // 2
    for batch in (proposals[:half], proposals[half:]):
        history.asked(len(batch), batch)
    for trial in done:
        history.append(trial)
    history.close()
    return history


@settings(max_examples=60, deadline=None)
@given(trials())
def test_a_history_read_from_disk_equals_the_one_in_memory(tmp_path_factory, done):
    folder = tmp_path_factory.mktemp("run") / "new" / "folder"
    memory, disk = recorded(History(), done), recorded(History(folder), done)
    read = History(folder)
    assert memory.trials == disk.trials == read.trials == list(done)
    assert memory.spent == disk.spent == read.spent
    assert memory.header == disk.header == read.header
    assert memory.failures() == read.failures()
    fronts = [history.front(OBJECTIVES) for history in (memory, disk, read)]
    assert fronts[0] == fronts[1] == fronts[2]
    for trial in done:
        assert read.trial(trial.number) == memory.trial(trial.number) == trial
    if any(isinstance(trial.outcome, Measured) for trial in done):
        for metric in ("score", "cost", maximize("cost")):
            assert read.best(metric) == memory.best(metric)


@settings(deadline=None)
@given(trials())
def test_reading_equals_plain_references(done):
    history = recorded(History(), done)
    measured = [trial for trial in done if isinstance(trial.outcome, Measured)]
    assert history.spent.trials == sum(trial.cost.trials for trial in done)
    assert history.spent.seconds == pytest.approx(sum(trial.cost.seconds for trial in done))
    assert history.failures() == [trial for trial in done if isinstance(trial.outcome, Failed)]
    front = history.front(OBJECTIVES)
    kept = [trial for trial in measured if violated(OBJECTIVES, trial.values) is None]
    best = {(trial.values["score"], trial.values["cost"]) for trial in kept}
    expected = {
        (score, cost)
        for score, cost in best
        if not any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in best)
    }
    assert {(trial.values["score"], trial.values["cost"]) for trial in front} == expected
    assert [t.values["score"] for t in front] == sorted((s for s, _ in expected), reverse=True)
    if not measured:
        with pytest.raises(NasError, match=f"no trial of {len(done)} was measured"):
            history.best("score")
        return
    top = max(trial.values["score"] for trial in measured)
    # The header's objectives say that a cost is to be small; the earliest of equals is best.
    assert history.best("score") == next(t for t in measured if t.values["score"] == top)
    least = min(trial.values["cost"] for trial in measured)
    assert history.best("cost") == next(t for t in measured if t.values["cost"] == least)
    assert history.best(maximize("cost")).values["cost"] == max(t.values["cost"] for t in measured)
    assert history.best("score", among=measured[-1:]) == measured[-1]
    with pytest.raises(NasError, match="did you mean 'score'"):
        history.best("scores")


def test_an_empty_history():
    history = History()
    assert history.trials == history.failures() == history.front(OBJECTIVES) == []
    assert history.spent == Cost()
    assert history.header is None
    with pytest.raises(NasError, match="no finished trial 3; 0 are finished"):
        history.trial(3)


def test_nothing_is_on_disk_before_the_search_begins(tmp_path):
    folder = tmp_path / "run"
    History(folder)
    assert not folder.exists()


def test_artifacts_lie_beside_the_journal(tmp_path):
    (proposal,) = toy_proposals(SPACE, 1)
    content = bytes(range(256))
    outcome = Measured({"score": 1.0}, artifacts={"model.bin": content})
    trial = Trial(proposal, outcome, Cost(trials=1))
    memory, disk = recorded(History(), [trial]), recorded(History(tmp_path), [trial])
    for history in (memory, disk, History(tmp_path)):
        kept = history.trial(0)
        assert history.artifact(kept, "model.bin") == content
        assert history.artifact(kept, "another") is None
    assert content not in (tmp_path / JOURNAL).read_bytes()
    assert not disk.trials[0].outcome.artifacts


def test_numbers_have_to_continue_the_history():
    history = History()
    history.begin({})
    proposals = toy_proposals(SPACE, 4)
    history.asked(2, proposals[:2])
    for wrong in (proposals[3:], proposals[:1]):
        with pytest.raises(UnsupportedRequest, match=f"{wrong[0].number} where 2 is next"):
            history.asked(1, wrong)
    history.asked(2, proposals[2:])


def run(strategy, history, trials=12, evaluator=None):
    evaluator = evaluator or ToyEvaluator(strategy.space)
    return list(search(strategy, evaluator, Serial(), Budget(trials=trials), history))


def test_a_search_is_the_same_in_memory_and_on_disk(tmp_path):
    memory, disk = History(), History(tmp_path)
    for history in (memory, disk):
        run(Uniform(SPACE, OBJECTIVES, 5), history)
    read = History(tmp_path)
    outcomes = [[(t.proposal, t.outcome) for t in h.trials] for h in (memory, disk, read)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0]) == 12
    numbers = [[t.number for t in h.front(OBJECTIVES)] for h in (memory, disk, read)]
    assert numbers[0] == numbers[1] == numbers[2] != []


def test_a_finished_run_continues_with_a_larger_budget(tmp_path):
    run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path), 5)
    more = run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path), 12)
    assert [trial.number for trial in more] == list(range(5, 12))
    whole = run(Uniform(SPACE, OBJECTIVES, 5), History(), 12)
    assert [t.proposal for t in History(tmp_path).trials] == [t.proposal for t in whole]
    assert run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path), 12) == []


@pytest.mark.parametrize(
    ("strategy", "evaluator", "says"),
    [
        (Uniform(SPACE, OBJECTIVES, 6), None, r"strategy\.seed is 5 in the journal and 6"),
        (Uniform(SPACE, OBJECTIVES[:1], 5), None, r"strategy\.objectives"),
        (Uniform(FlatSpace(), OBJECTIVES, 5), None, "space is 'nested/v1' in the journal"),
        (Uniform(NestedSpace(classes=4), OBJECTIVES, 5), None, r"strategy\.space\.classes is 3"),
        (Uniform(SPACE, OBJECTIVES, 5), ToyEvaluator(NestedSpace(classes=7)), r"evaluator\.space"),
    ],
)
def test_another_search_does_not_continue_the_run(tmp_path, strategy, evaluator, says):
    run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path), 4)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResumeError, match=says):
        run(strategy, History(tmp_path), 12, evaluator)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_strategy_that_proposes_something_else_is_found_out(tmp_path, monkeypatch):
    for trial in search(
        Uniform(SPACE, OBJECTIVES, 5),
        ToyEvaluator(SPACE),
        Serial(),
        Budget(trials=9),
        History(tmp_path),
    ):
        if trial.number == 4:
            break
    (tmp_path / SNAPSHOT).unlink(missing_ok=True)
    propose = Uniform._propose
    monkeypatch.setattr(Uniform, "_propose", lambda self, number: propose(self, number + 1))
    with pytest.raises(ResumeError, match="its code or its settings changed"):
        run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path))


@pytest.mark.parametrize("stop", range(1, 8))
def test_replay_equals_having_been_there(tmp_path, stop):
    # With and without a snapshot, and with one that is older than the journal's end.
    whole = Uniform(SPACE, OBJECTIVES, 5)
    run(whole, History(), 9)
    for every, drop in ((0.0, False), (0.0, True), (1e9, False)):
        folder = tmp_path / f"{every:g}{drop}"
        history = History(folder, snapshot_every_s=every)
        running = search(
            Uniform(SPACE, OBJECTIVES, 5), ToyEvaluator(SPACE), Serial(), Budget(trials=9), history
        )
        first = list(itertools.islice(running, stop))
        running.close()
        if drop:
            (folder / SNAPSHOT).unlink()
        strategy = Uniform(SPACE, OBJECTIVES, 5)
        rest = run(strategy, History(folder), 9)
        assert [trial.number for trial in first + rest] == list(range(9))
        assert strategy.state_dict() == whole.state_dict()


def test_the_journal_is_lines_of_json(tmp_path):
    run(Uniform(SPACE, OBJECTIVES, 5), History(tmp_path), 3)
    events = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [event["event"] for event in events] == ["run", *["ask", "trial"] * 3]
    assert events[0]["strategy"]["seed"] == 5
    arch = Architecture.from_document(events[1]["proposals"][0]["arch"])
    assert arch == Uniform(SPACE, OBJECTIVES, 5).ask(1)[0].arch

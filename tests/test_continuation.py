"""A trial taken up where it ended: what is measured, what it costs, and what can go wrong."""

from __future__ import annotations

import itertools
import re
import signal
from dataclasses import replace

import pytest
import torch
from continuing import FRACTION, TRIALS, DiesOnce, run, space, strategy
from torch import nn
from torch.utils.data import TensorDataset
from workloads import driver, wait_until

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, journal, maximize
from nas.budget import Cost
from nas.data import digits
from nas.delivery import WEIGHTS
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.evaluator import HasContinuation, planned_epochs
from nas.execution.guard import run_trial
from nas.execution.ray import RayExecutor
from nas.history import ARTIFACTS, JOURNAL
from nas.search import search
from nas.testing.toys import Continues, FlatSpace, ToyEvaluator, Uniform, toy_proposals
from nas.training import Recipe, train_until
from nas.training_state import TrainingState
from nas.trial import CHECKPOINT, Failed, Fidelity, Measured, Proposal, Trial

# ------------------------------------------------------------------------------- training


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(96, 3),
        )


def data():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(60, 1, 6, 6, generator=generator)
    return TensorDataset(images, torch.randint(3, (60,), generator=generator))


def trained(epochs, start=None, built=None, seed=5, **others):
    built = network() if built is None else built
    settings = {"schedule_epochs": 6, "crop_padding": 1, "flip": True} | others
    recipe = Recipe(batch_size=16)
    return train_until(built, data(), recipe, epochs, seed, start=start, **settings)


def assert_same(one, other):
    assert one.curve == other.curve
    for part in ("weights", "momentum", "random"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert mine.keys() == theirs.keys()
        assert mine
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), f"{part} {name}"


@pytest.mark.parametrize("stops", [(1, 6), (1, 2, 3, 4, 5, 6), (4, 6), (3, 4)])
def test_training_in_parts_equals_training_at_once_to_the_bit(stops):
    state = None
    for stop in stops:
        torch.manual_seed(stop)  # nothing but the state plays a part
        before = torch.get_rng_state()
        state = trained(stop, state)
        assert torch.equal(torch.get_rng_state(), before)
        state = TrainingState.from_bytes(state.to_bytes())
        assert state.epochs == stop
    assert_same(state, trained(stops[-1]))


@pytest.mark.parametrize("part", ["weights", "momentum", "random"])
def test_each_part_of_the_state_is_needed(part):
    state = trained(2)
    other = trained(2, seed=6)
    spoilt = replace(state, **{part: getattr(other, part)})
    whole = trained(4)
    found = trained(4, spoilt)
    assert found.curve[:2] == whole.curve[:2]
    assert found.curve[2:] != whole.curve[2:]


def test_a_schedule_of_its_own_is_no_beginning():
    short = trained(2, schedule_epochs=None)
    assert short.curve != trained(2).curve


def test_epochs_outside_the_schedule_are_refused():
    with pytest.raises(ConfigError, match="at most the 6 of the schedule, got 7"):
        trained(7)
    with pytest.raises(ConfigError, match="above the 3 trained"):
        trained(3, trained(3))


@pytest.mark.parametrize("where", [0, 20, 300, -1])
def test_a_damaged_checkpoint_is_recognised(where):
    file = bytearray(trained(1).to_bytes())
    file[where] ^= 1
    with pytest.raises(DataError, match="damaged: its checksum does not match"):
        TrainingState.from_bytes(bytes(file))


@pytest.mark.parametrize("length", [0, 5, 100])
def test_a_checkpoint_cut_short_is_recognised(length):
    with pytest.raises(DataError, match="damaged"):
        TrainingState.from_bytes(trained(1).to_bytes()[:length])


# --------------------------------------------------------------------------- the evaluator


@pytest.fixture(scope="module")
def evaluator():
    return DiesOnce()


def pair(evaluator, first=1, second=3, **others):
    """The trial of a short training, and a proposal that continues it."""
    (proposal,) = toy_proposals(space(), 1)
    short = replace(proposal, fidelity=Fidelity(epochs=first))
    earlier = run_trial(evaluator, short)
    long = replace(proposal, number=1, fidelity=Fidelity(epochs=second, **others), continues=0)
    return earlier, long


def at_once(evaluator, proposal):
    return evaluator.evaluate(replace(proposal, continues=None))


def test_a_continued_trial_equals_one_at_once_and_costs_what_is_added(evaluator):
    earlier, long = pair(evaluator)
    whole = at_once(evaluator, long)
    trial = run_trial(evaluator, long, earlier)
    assert trial.outcome == replace(whole, cost=trial.outcome.cost)  # weights and all
    assert (earlier.cost.epochs, trial.cost.epochs) == (FRACTION, 2 * FRACTION)
    assert whole.cost.epochs == 3 * FRACTION
    assert len(trial.notes["curve"]) == 3
    assert CHECKPOINT in trial.outcome.artifacts
    # At the end of the schedule nothing is left to continue.
    last = replace(long, number=2, fidelity=Fidelity(epochs=9), continues=1)
    assert set(run_trial(evaluator, last, trial).outcome.artifacts) == {WEIGHTS}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: None, "trial 0 has no checkpoint"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "trial 0: the checkpoint of .* is damaged"),
        (lambda c: c[: len(c) // 2], "damaged"),
        (lambda c: b"", "damaged"),
    ],
)
def test_without_its_checkpoint_it_starts_again_and_says_so(evaluator, change, says):
    earlier, long = pair(evaluator)
    artifacts = dict(earlier.outcome.artifacts)
    content = change(artifacts.pop(CHECKPOINT))
    if content is not None:
        artifacts[CHECKPOINT] = content
    spoilt = replace(earlier, outcome=replace(earlier.outcome, artifacts=artifacts))
    trial = run_trial(evaluator, long, spoilt)
    whole = at_once(evaluator, long)
    assert trial.values == whole.values
    assert trial.cost.epochs == 3 * FRACTION  # what was really trained
    assert re.search(says, trial.notes["restarted"])


def test_what_would_be_no_beginning_of_it_is_not_taken_up(evaluator):
    for other in ({"data_fraction": 0.5}, {"resolution": 6}):
        earlier, long = pair(evaluator, **other)
        trial = run_trial(evaluator, long, earlier)
        assert "another seed, data fraction or resolution" in trial.notes["restarted"]
        assert trial.values == at_once(evaluator, long).values
        fraction = other.get("data_fraction", FRACTION)
        assert trial.cost.epochs == 3 * fraction
        assert planned_epochs(evaluator, long.fidelity, earlier.proposal.fidelity) == 3 * fraction
    earlier, long = pair(evaluator)
    trial = run_trial(evaluator, replace(long, seed=1), earlier)
    assert "another seed" in trial.notes["restarted"]
    other = toy_proposals(space(), 2)[1]
    trial = run_trial(evaluator, replace(long, arch=other.arch), earlier)
    assert isinstance(trial.outcome, Failed)
    assert "cannot continue trial 0, which is of" in trial.outcome.message


def test_without_a_schedule_there_are_no_checkpoints_and_it_starts_again():
    evaluator = DiesOnce(schedule_epochs=None)
    earlier, long = pair(evaluator)
    assert set(earlier.outcome.artifacts) == {WEIGHTS}
    assert planned_epochs(evaluator, long.fidelity, earlier.proposal.fidelity) == 3 * FRACTION
    trial = run_trial(evaluator, long, earlier)
    assert "schedule_epochs is not set" in trial.notes["restarted"]
    assert trial.cost.epochs == 3 * FRACTION


def test_a_schedule_shorter_than_the_default_is_refused():
    with pytest.raises(ConfigError, match=r"at least epochs \(5\), got 4"):
        TrainingEvaluator(space(), digits(), epochs=5, schedule_epochs=4)


def test_stages_that_can_are_continued():
    objectives = (maximize("accuracy"),)
    training = DiesOnce().training
    staged = Staged([CostEvaluator(space()), training], objectives)
    assert isinstance(staged, HasContinuation)
    earlier, long = pair(staged)
    trial = run_trial(staged, long, earlier)
    assert trial.values == at_once(staged, long).values
    assert trial.cost.epochs == 2 * FRACTION
    assert planned_epochs(staged, long.fidelity, earlier.proposal.fidelity) == 2 * FRACTION


def test_a_failed_continuation_is_charged_what_it_was_to_add():
    class Breaks(Continues):
        def evaluate_from(self, proposal, earlier):
            raise RuntimeError("the cable is loose")

    arch = toy_proposals(FlatSpace(), 1)[0].arch
    earlier = run_trial(Continues(), Proposal(0, arch, fidelity=Fidelity(epochs=2)))
    long = Proposal(1, arch, fidelity=Fidelity(epochs=6), continues=0)
    assert run_trial(Breaks(), long, earlier).cost.epochs == 4.0
    assert run_trial(ToyEvaluator(FlatSpace()), long, earlier).cost.epochs == 6.0


# ------------------------------------------------------------------------------ the search


@pytest.fixture(scope="module")
def uninterrupted():
    return run(Serial(), History())


def essence(trials):
    return sorted((t.number, t.proposal, dict(t.values), dict(t.notes)) for t in trials)


def test_a_bracket_costs_exactly_the_epochs_trained(uninterrupted, evaluator):
    epochs = [trial.proposal.fidelity.epochs for trial in uninterrupted]
    assert epochs == [1] * 9 + [3] * 3 + [9]
    added = [1] * 9 + [2] * 3 + [6]
    assert [t.cost.epochs for t in uninterrupted] == [FRACTION * e for e in added]
    for trial in uninterrupted[9:]:
        assert trial.values == at_once(evaluator, trial.proposal).values
        assert "restarted" not in trial.notes


def test_a_run_folder_gives_the_same_and_keeps_only_what_may_go_on(uninterrupted, tmp_path):
    history = History(tmp_path)
    kept = []
    for _ in search(strategy(), DiesOnce(), Serial(), Budget(trials=TRIALS), history):
        there = {int(path.parent.name) for path in tmp_path.glob(f"{ARTIFACTS}/*/{CHECKPOINT}")}
        kept.append(there)
    assert essence(history.trials) == essence(uninterrupted)
    assert [len(there) for there in kept] == [1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 3, 1, 0]
    best = sorted(uninterrupted[:9], key=lambda t: -t.values["accuracy"])[:3]
    assert kept[8] == {trial.number for trial in best}
    assert len(list(tmp_path.glob(f"{ARTIFACTS}/*/{WEIGHTS}"))) == TRIALS


def test_strategies_that_continue_nothing_keep_no_checkpoints(tmp_path):
    space = FlatSpace()
    for folder in (None, tmp_path):
        history = History(folder)
        inner = Uniform(space, (maximize("score"),))
        for trial in search(inner, Continues(), Serial(), Budget(trials=3), history):
            assert history.artifact(trial, CHECKPOINT) is None
            assert not history.checkpoints
    assert list(tmp_path.glob(f"{ARTIFACTS}/*")) == []


@pytest.mark.slow
def test_a_bracket_on_ray_whose_worker_is_killed_is_the_same(uninterrupted, tmp_path):
    import ray
    from clusters import start

    start()
    try:
        history = History(tmp_path / "run")
        found = run(RayExecutor(workers=2), history, DiesOnce(str(tmp_path)))
        assert (tmp_path / "died").exists()
        assert essence(found) == essence(uninterrupted)  # nor does a note say "restarted"
        assert history.spent.epochs == FRACTION * (9 + 3 * 2 + 6)
    finally:
        ray.shutdown()


def test_a_driver_killed_between_the_two_goes_on_from_the_checkpoint(uninterrupted, tmp_path):
    path = tmp_path / JOURNAL
    with driver("import continuing; continuing.main()", str(tmp_path)) as process:
        begun = wait_until(lambda: path.exists() and b'"continues"' in path.read_bytes(), 120)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert begun, errors
    history = History(tmp_path)
    assert 9 <= len(history.trials) < TRIALS
    found = run(Serial(), history)
    assert essence(found) == essence(uninterrupted)
    assert [t.cost.epochs for t in found] == [t.cost.epochs for t in uninterrupted]


@pytest.mark.parametrize("harm", ["missing", "damaged", "unreadable"])
def test_a_checkpoint_lost_on_disk_costs_a_new_start_and_nothing_else(
    uninterrupted, tmp_path, harm
):
    history = History(tmp_path)
    trials = search(strategy(), DiesOnce(), Serial(), Budget(trials=TRIALS), history)
    done = list(itertools.islice(trials, 9))
    lost = max(done, key=lambda trial: trial.values["accuracy"]).number
    checkpoint = tmp_path / ARTIFACTS / str(lost) / CHECKPOINT
    if harm == "damaged":
        content = bytearray(checkpoint.read_bytes())
        content[len(content) // 2] ^= 4
        checkpoint.write_bytes(content)
    else:
        checkpoint.unlink()
        if harm == "unreadable":
            checkpoint.mkdir()
    done += trials
    assert [t.values for t in done] == [t.values for t in uninterrupted]
    restarted = [t for t in done if "restarted" in t.notes]
    assert [t.proposal.continues for t in restarted] == [lost]
    assert restarted[0].cost.epochs == FRACTION * 3
    assert ("damaged" if harm == "damaged" else "no checkpoint") in restarted[0].notes["restarted"]
    assert history.spent.epochs == FRACTION * (9 + 2 * 2 + 3 + 6)


# ---------------------------------------------------------------------- values and journals


def test_a_proposal_continues_one_before_it():
    proposal = toy_proposals(FlatSpace(), 4)[3]
    assert replace(proposal, continues=2).continues == 2
    for wrong in (3, 4, -1):
        with pytest.raises(ConfigError, match=f"proposal 3 continues trial {wrong}"):
            replace(proposal, continues=wrong)


def test_journals_hold_what_is_continued_and_older_ones_are_read():
    proposal = toy_proposals(FlatSpace(), 4)[3]
    document = journal.proposal_to_document(proposal)
    assert "continues" not in document  # as journals were before
    assert journal.proposal_from_document(document) == proposal
    continued = replace(proposal, continues=1)
    document = journal.proposal_to_document(continued)
    assert document["continues"] == 1
    assert journal.proposal_from_document(document) == continued


def test_a_history_finds_the_earlier_trial_and_refuses_what_is_none():
    history = History()
    one, other = (p.arch for p in toy_proposals(FlatSpace(), 2))
    history.append(Trial(Proposal(0, one), Measured({"score": 1.0}, artifacts={"a": b"1"}), Cost()))
    history.append(Trial(Proposal(1, one), Failed("timeout", "too long"), Cost()))
    assert history.earlier(Proposal(2, one)) is None
    earlier = history.earlier(Proposal(2, one, continues=0))
    assert earlier.outcome.artifacts == {"a": b"1"}
    for arch, number, says in (
        (one, 1, "was not measured"),
        (other, 0, "is of"),
        (one, 2, "is not finished"),
    ):
        with pytest.raises(UnsupportedRequest, match=f"continues trial {number}, which {says}"):
            history.earlier(Proposal(3, arch, continues=number))

"""The searcher and the trainable of Ray Tune by themselves: no cluster runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tuning import Steps, Told
from workloads import Line, Score, proposal, strategy

from evaluators.training import TrainingEvaluator
from nas.data import digits
from nas.errors import ConfigError, DataError, ResumeError, UnsupportedRequest
from nas.execution.tune import TuneSearcher, outcome_of, population, proposal_from
from nas.execution.tune_trainable import EvaluatorTrainable, read_checkpoint, tune_trainable
from nas.objective import maximize, minimize
from nas.testing.toys import Continues
from nas.trial import Failed, Fidelity, Infeasible, Measured
from search_spaces.nasbench201 import NasBench201
from strategies.asha import Asha
from strategies.la_mcts import LaMcts
from strategies.nsga2 import Nsga2
from strategies.reinforce import Reinforce

LIMITED = (maximize("score"), minimize("cost", limit=5.0))


@pytest.fixture(autouse=True)
def nothing_in_the_home_folder(tmp_path, monkeypatch):
    # Where a trainable that no sweep made has its logs.
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "logs"))


def driven(searcher, trials, first=0):
    """Trials one after the other: what was suggested."""
    configs = []
    for number in range(first, first + trials):
        config = searcher.suggest(f"t{number}")
        value = Score().evaluate(proposal_from(config)).values["score"]
        searcher.on_trial_complete(f"t{number}", {"score": value, "time_total_s": 1.0})
        configs.append(config)
    return configs


STRATEGIES = {
    "evolution": lambda: strategy("evolution"),
    "reinforce": lambda: Reinforce(Line(), (maximize("score"),)),  # its state has tensors
    "la_mcts": lambda: LaMcts(Line(), (maximize("score"),)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_restored_searcher_goes_on_as_the_saved_one(name, tmp_path):
    one = TuneSearcher(STRATEGIES[name]())
    driven(one, 20)
    flying = one.suggest("left")
    one.on_trial_result("left", {"score": np.float32(3.5), "training_iteration": 1})
    one.save(str(tmp_path / "searcher-state-2026.pkl"))
    swept(tmp_path, left="RUNNING")
    other = TuneSearcher(STRATEGIES[name]())
    other.restore_from_dir(str(tmp_path))
    for searcher in (one, other):
        searcher.on_trial_complete("left", None)  # a paused trial that a scheduler gave up
    assert driven(one, 20, 100) == driven(other, 20, 100)
    assert proposal_from(flying).number == 20


def swept(folder, **statuses):
    """What Tune notes of its trials, as far as it matters."""
    trials = [{"trial_id": name, "status": status} for name, status in statuses.items()]
    state = {"trial_data": [[json.dumps(trial), "{}"] for trial in trials]}
    (folder / "experiment_state-2026.json").write_text(json.dumps(state))


def test_what_tune_does_not_go_on_with_is_proposed_again(tmp_path):
    one = TuneSearcher(Told(strategy("random")))
    configs = {name: one.suggest(name) for name in ("runs", "ended", "errored", "unknown")}
    one.save(str(tmp_path / "searcher-state-2026.pkl"))
    swept(tmp_path, runs="RUNNING", ended="TERMINATED", errored="ERROR", strange="PENDING")
    told = Told(strategy("random"))
    other = TuneSearcher(told)
    other.restore_from_dir(str(tmp_path))
    other.set_max_concurrency(2)
    assert other.suggest("a") == configs["ended"]
    assert other.suggest("b") is None  # two run: "runs" and "a"
    other.save(str(tmp_path / "searcher-state-2027.pkl"))
    other.on_trial_complete("runs", {"score": 1.0})
    assert [other.suggest("b"), other.suggest("c")] == [configs["errored"], None]
    other.on_trial_complete("a", {"score": 1.0})
    other.on_trial_complete("b", {"score": 1.0})
    assert [trial.number for trial in told.trials] == [0, 1, 2]
    assert other.suggest("d") == configs["unknown"]
    assert proposal_from(other.suggest("e")).number == 4
    # In a sweep of its own, none of these runs.
    fresh = TuneSearcher(Told(strategy("random")))
    fresh.restore(str(tmp_path / "searcher-state-2027.pkl"))
    numbers = [proposal_from(fresh.suggest(name)).number for name in "abcde"]
    assert numbers == [0, 1, 2, 3, 4]


def test_what_a_paused_trial_last_reported_is_told():
    told = Told(strategy("random"))
    searcher = TuneSearcher(told)
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_result("a", {"score": 2.0, "epochs": 3.0})
    searcher.on_trial_complete("a", None)
    searcher.on_trial_complete("b", None)
    searcher.on_trial_complete("stranger", {"score": 9.0})
    first, second = told.trials
    assert first.values == {"score": 2.0}
    assert first.cost.epochs == 3.0
    assert isinstance(second.outcome, Failed)
    assert "without a result" in second.outcome.message


def test_the_strategys_silence_is_none_while_something_runs_and_else_the_end():
    searcher = TuneSearcher(Told(strategy("random"), most=1))
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", {"score": 1.0})
    assert isinstance(searcher.suggest("b"), dict)
    nothing = TuneSearcher(Told(strategy("random"), most=0))
    assert nothing.suggest("a") == TuneSearcher.FINISHED


def test_no_more_is_asked_for_than_may_run():
    told = Told(strategy("random"))
    searcher = TuneSearcher(told)
    assert searcher.set_max_concurrency(2)
    assert [searcher.suggest(name) is None for name in "abc"] == [False, False, True]
    assert told.asked == 2


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"score": 1, "cost": 5.0}, Measured({"score": 1.0, "cost": 5.0})),
        (
            {"score": 1, "cost": 5.5},
            Infeasible("cost is 5.5, must be at most 5", {"score": 1.0, "cost": 5.5}),
        ),
        (
            {"score": math.nan, "cost": 9.0},
            Infeasible("cost is 9, must be at most 5", {"cost": 9.0}),
        ),
        ({"score": math.nan, "cost": 1.0, "infeasible": "no"}, Infeasible("no", {"cost": 1.0})),
        ({"score": math.inf, "cost": 1.0}, Failed("not finite", "score is inf")),
        ({"score": "high", "cost": 1.0}, Failed("exception", "score is 'high', not a number")),
        ({"cost": 1.0}, Failed("exception", "the result has no 'score': valid: cost")),
    ],
)
def test_what_a_result_says(result, expected):
    assert outcome_of(LIMITED, result) == expected


def test_the_objectives_are_tunes_metric_and_mode():
    single = TuneSearcher(strategy("random"))
    assert (single.metric, single.mode) == ("score", "max")
    several = TuneSearcher(Nsga2(Line(), LIMITED))
    assert (several.metric, several.mode) == (["score", "cost"], ["max", "min"])
    assert not single.set_search_properties("score", "max", {"lr": 0.1})
    assert not single.set_search_properties("loss", "min", {"lr": 0.1})
    with pytest.raises(ConfigError, match="mode of 'score' is 'min', and the strategy is to max"):
        single.set_search_properties("score", "min", {"lr": 0.1})


def test_layers_that_have_trials_continued_are_refused():
    for make in (TuneSearcher, lambda layer: population(layer, 2)):
        with pytest.raises(UnsupportedRequest, match="Asha has trials continued itself"):
            make(Asha(strategy("random")))
    with pytest.raises(UnsupportedRequest, match="proposes 0 of 3"):
        population(Told(strategy("random"), most=0), 3)


def test_foreign_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "saved.pkl"
    TuneSearcher(strategy("evolution")).save(str(path))
    with pytest.raises(ResumeError, match="is of another strategy"):
        TuneSearcher(strategy("evolution", seed=1)).restore(str(path))
    whole = path.read_bytes()
    other = json.dumps({**json.loads(whole), "format": 2}).encode()
    for content in (whole[:-10], b"\x80\x04N.", b"[]", other):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is not what a TuneSearcher saved"):
            TuneSearcher(strategy("evolution")).restore(str(path))
    with pytest.raises(DataError, match="No such file"):
        TuneSearcher(strategy("evolution")).restore(str(tmp_path / "none"))
    TuneSearcher(strategy("evolution")).save(str(tmp_path / "searcher-state-1.pkl"))
    with pytest.raises(DataError, match="no state of a sweep of Tune's"):
        TuneSearcher(strategy("evolution")).restore_from_dir(str(tmp_path))
    with pytest.raises(ConfigError, match="holds no proposal under 'nas'"):
        proposal_from({"lr": 0.1})


# ---------------------------------------------------------------------------- the trainable

SPACE = NasBench201(channels=2, cells=1, classes=10, input=(1, 8, 8))


def config(space=SPACE):
    from strategies.random_search import RandomSearch

    (first, *_) = population(RandomSearch(space, (maximize("accuracy"),)), 2)["nas"]["grid_search"]
    return {"nas": first}


def training(**settings):
    return TrainingEvaluator(SPACE, digits(), data_fraction=0.2, device="cpu", **settings)


def test_steps_through_checkpoints_give_what_one_training_gives(tmp_path):
    trainable = tune_trainable(training(epochs=1, schedule_epochs=3), max_epochs=3)
    results, state = [], None
    for step in range(3):
        actor = trainable(config())
        if state is not None:
            actor.restore(str(state))
        results.append(actor.train())
        state = tmp_path / str(step)
        actor.save(str(state))
        actor.stop()
    whole = training(epochs=3, schedule_epochs=3).evaluate(proposal_from(config()))
    found = {name: results[-1][name] for name in whole.values}
    assert found == whole.values
    assert [result["epochs"] for result in results] == pytest.approx([0.2, 0.4, 0.6])
    assert [result["done"] for result in results] == [False, False, True]
    kept = read_checkpoint(state)
    assert kept.outcome.artifacts == whole.artifacts
    assert "restarted" not in kept.notes


def test_an_actor_is_reused_and_a_complete_trial_says_again_what_it_found(tmp_path):
    actor = tune_trainable(Steps(), max_epochs=2)({"nas": _line(0)})
    first = [actor.train()["score"] for _ in range(2)]
    actor.save(str(tmp_path / "kept"))
    assert actor.reset({"nas": _line(1)})
    second = [actor.train()["score"] for _ in range(2)]
    assert actor.reset({"nas": _line(0)})
    actor.restore(str(tmp_path / "kept"))
    again = actor.train()
    assert again["score"] == first[1] != second[1]
    assert again["before"] == 1
    assert again["done"]
    actor.stop()


def _line(number):
    return population(strategy("random"), 2)["nas"]["grid_search"][number]


def test_a_checkpoint_before_the_first_step_and_damaged_ones(tmp_path):
    actor = tune_trainable(Steps(), max_epochs=2)({"nas": _line(0)})
    actor.save(str(tmp_path / "early"))
    assert read_checkpoint(tmp_path / "early") is None
    actor.restore(str(tmp_path / "early"))
    assert actor.train()["epochs"] == 1
    actor.stop()
    file = tmp_path / "early" / "trial.json"
    for content in (b"{", b"{}", b'{"format": 1, "trial": {}}', b'{"format": 9, "trial": null}'):
        file.write_bytes(content)
        with pytest.raises(DataError, match="is not a checkpoint of a trial"):
            read_checkpoint(tmp_path / "early")


def test_steps_that_would_repeat_each_other_are_refused():
    for evaluator in (Score(), training(epochs=3)):
        with pytest.raises(ConfigError, match="trains every fidelity from the very start"):
            tune_trainable(evaluator, max_epochs=3)
    with pytest.raises(ConfigError, match="step_epochs must be at least 1, got 0"):
        tune_trainable(Continues(), max_epochs=3, step_epochs=0)
    with pytest.raises(ConfigError, match=r"what tune_trainable\(evaluator\) returns"):
        EvaluatorTrainable({"nas": _line(0)})


def test_a_strategys_own_fidelity_is_kept():
    from dataclasses import replace

    from nas.execution.tune import configuration

    asked = replace(proposal(), fidelity=Fidelity(epochs=2, resolution=4))
    actor = tune_trainable(Steps(), max_epochs=5)({"nas": configuration(strategy("random"), asked)})
    assert [actor.train()["done"] for _ in range(2)] == [False, True]
    actor.stop()


def test_the_state_of_a_large_tensor_is_kept_to_the_bit(tmp_path):
    class Holds(Told):
        def state_dict(self):
            return {"weights": [torch.arange(5.0)[1:3]], "same": torch.tensor(2), "nan": math.nan}

        def load_state_dict(self, state):
            self.loaded = state

    one, other = Holds(strategy("random")), Holds(strategy("random"))
    TuneSearcher(one).save(str(tmp_path / "saved"))
    TuneSearcher(other).restore(str(tmp_path / "saved"))
    assert torch.equal(other.loaded["weights"][0], torch.tensor([1.0, 2.0]))
    assert other.loaded["same"].dtype == torch.int64
    assert math.isnan(other.loaded["nan"])

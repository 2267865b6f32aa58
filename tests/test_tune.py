"""Our strategies and evaluators inside Ray Tune, on a real cluster."""

from __future__ import annotations

import math
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from clusters import start
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from safetensors.torch import load
from tuning import SAMPLES, Picky, Steps, Told, at_rate, own, tuner
from workloads import Line, Score, driver, run, strategy

from nas.execution.serial import Serial
from nas.execution.tune import TuneSearcher, architecture_from, population, proposal_from
from nas.execution.tune_trainable import read_checkpoint, tune_trainable
from nas.objective import maximize, minimize
from nas.space import network
from nas.trial import Failed, Infeasible, Measured
from strategies.nsga2 import Nsga2
from strategies.random_search import RandomSearch


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the workers
        start()
        yield
        ray.shutdown()


def by_number(results):
    return sorted(results, key=lambda result: proposal_from(result.config).number)


def test_tune_gets_the_architectures_that_a_search_in_one_process_proposes(tmp_path):
    searcher = TuneSearcher(strategy("evolution"))
    results = tuner(
        tune_trainable(Score()), tmp_path, searcher, SAMPLES, max_concurrent_trials=1
    ).fit()
    expected = run("evolution", Score(), Serial(), SAMPLES)
    found = by_number(results)
    assert [proposal_from(result.config) for result in found] == [t.proposal for t in expected]
    assert [result.metrics["score"] for result in found] == [t.values["score"] for t in expected]
    assert all(result.metrics["epochs"] == 1 for result in found)


def test_faults_and_limits_are_told_and_the_sweep_goes_on(tmp_path):
    told = Told(strategy("random"), most=2)
    results = tuner(tune_trainable(Picky()), tmp_path, TuneSearcher(told), 4).fit()
    assert len(results) == len(told.trials) == 4
    found = {trial.number: trial for trial in told.trials}
    assert isinstance(found[0].outcome, Measured)
    assert isinstance(found[1].outcome, Failed)
    assert "error.txt" in found[1].outcome.message
    assert isinstance(found[2].outcome, Infeasible)
    assert found[2].outcome.reason == "too large by far"
    assert found[2].cost.trials == 0
    assert isinstance(found[3].outcome, Measured)
    (error,) = [str(result.error) for result in results if result.error]
    assert "exception: LookupError: the cable is loose" in error


@pytest.mark.slow
def test_anybodys_trainable_with_two_objectives_and_a_limit(tmp_path):
    objectives = (maximize("score"), minimize("cost", limit=4))
    told = Told(Nsga2(Line(), objectives, population_size=4))
    results = tuner(own, tmp_path, TuneSearcher(told), 8, max_concurrent_trials=2).fit()
    assert not results.errors
    trials = {trial.number: trial for trial in told.trials}
    assert set(trials) == set(range(8))
    for result in results:
        trial = trials[proposal_from(result.config).number]
        if trial.number == 1:
            assert math.isnan(result.metrics["score"])
            assert trial.outcome.reason == "too large by far"
        elif trial.arch["c0"] == 5:
            assert trial.outcome.reason == "cost is 5, must be at most 4"
        else:
            assert trial.values == {name: result.metrics[name] for name in ("score", "cost")}
    assert any(trial.arch["c0"] == 5 for trial in told.trials)


def test_asha_stops_trials_and_the_others_go_on_from_their_checkpoints(tmp_path):
    told = Told(strategy("random"))
    results = tuner(
        tune_trainable(Steps(), max_epochs=9),
        tmp_path,
        TuneSearcher(told),
        8,
        scheduler=ASHAScheduler(
            metric="score", mode="max", grace_period=1, max_t=9, reduction_factor=3
        ),
        run={"checkpoint_config": tune.CheckpointConfig(checkpoint_frequency=1)},
    ).fit()
    assert not results.errors
    epochs = [result.metrics["epochs"] for result in results]
    assert min(epochs) < 9  # stopped
    assert max(epochs) == 9
    for result in results:
        trained = result.metrics["epochs"]
        assert result.metrics["before"] == trained - 1
        with result.checkpoint.as_directory() as folder:
            kept = read_checkpoint(folder)
        assert kept.arch == architecture_from(result.config)
        assert kept.proposal.fidelity.epochs == kept.cost.epochs == trained
        trial = next(t for t in told.trials if t.arch == kept.arch)
        assert trial.values["score"] == result.metrics["score"]
        assert trial.cost.epochs == trained


@pytest.mark.slow
def test_population_based_training_goes_on_from_others_and_perturbs_settings(tmp_path):
    results = tuner(
        tune_trainable(Steps(), max_epochs=6, configured=at_rate),
        tmp_path,
        None,
        1,
        param_space={"rate": 0.0, **population(strategy("random"), 4)},
        scheduler=PopulationBasedTraining(
            metric="score",
            mode="max",
            time_attr="training_iteration",
            perturbation_interval=2,
            hyperparam_mutations={"rate": tune.uniform(1.0, 2.0)},
            quantile_fraction=0.5,
            resample_probability=1.0,
            synch=True,
        ),
    ).fit()
    assert not results.errors
    assert [result.metrics["epochs"] for result in results] == [6] * 4
    first = [arch.as_dict() for arch in map(architecture_from, _initial(4))]
    last = [architecture_from(result.config).as_dict() for result in results]
    assert all(arch in first for arch in last)
    assert len({str(arch) for arch in last}) < 4  # the worse took over the better's
    rates = [result.config["rate"] for result in results]
    assert any(1.0 <= rate <= 2.0 for rate in rates)
    for result in results:
        speed = sum(architecture_from(result.config).as_dict().values()) + result.config["rate"]
        assert result.metrics["score"] == pytest.approx(6 * speed)
        assert result.metrics["before"] == 5


def _initial(n):
    return [{"nas": config} for config in population(strategy("random"), n)["nas"]["grid_search"]]


PAGE = (Path(__file__).parents[1] / "docs" / "tune.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
SMALLER = (
    ("channels=8", "channels=2"),
    ("schedule_epochs=9", "data_fraction=0.1, schedule_epochs=2"),
    ("max_epochs=9", "max_epochs=2"),
    ("max_t=9", "max_t=2"),
    ("num_samples=40", "num_samples=3"),
    ("perturbation_interval=3", "perturbation_interval=1"),
    ("population(strategy, 8)", "population(strategy, 2)"),
)


def smaller(text):
    for old, new in SMALLER:
        text = text.replace(old, new)
    return text


def test_the_pages_settings_are_those_that_are_made_smaller():
    assert len(BLOCKS) == 5
    for old, _ in SMALLER:
        assert old in PAGE


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep, own_trainable, weights, pbt, restored = map(smaller, BLOCKS)
    names = {
        "load": load,
        "my_training": lambda net, seed: 0.5,
        "network": network,
        "population": population,
        "proposal_from": proposal_from,
        "read_checkpoint": read_checkpoint,
        "replace": replace,
        "PopulationBasedTraining": PopulationBasedTraining,
    }
    exec(sweep, names)
    assert "after" in capsys.readouterr().out
    exec(weights, names)
    assert names["trial"].arch == architecture_from(names["best"].config)
    exec(restored, names)
    assert len(names["tuner"].get_results()) == 3
    exec(pbt, names)
    results = names["tuner"].fit()
    assert not results.errors
    assert [result.metrics["epochs"] for result in results] == pytest.approx([0.2, 0.2])
    exec(own_trainable, names)
    names["strategy"] = fresh = RandomSearch(names["space"], (maximize("accuracy"),))
    results = tuner(names["trainable"], tmp_path / "own", TuneSearcher(fresh), 2).fit()
    assert not results.errors
    assert {result.metrics["accuracy"] for result in results} == {0.5}


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_is_restored(tmp_path):
    code = "import tuning; tuning.main()"
    state = tmp_path / "sweep"
    environment = {"TUNE_GLOBAL_CHECKPOINT_S": "0.2"}
    with driver(code, "new", str(tmp_path), **environment) as process:
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 120
        while len(list(state.glob("EvaluatorTrainable_*/result.json"))) < 5:
            assert time.monotonic() < end, "the sweep does not begin"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with driver(code, "restored", str(tmp_path), **environment) as process:
        out, err = process.communicate(timeout=200)
    assert f"done {list(range(SAMPLES))}" in out, err[-3000:]
    found = [line.removeprefix("arch ") for line in out.splitlines() if line.startswith("arch ")]
    expected = run("evolution", Score(), Serial(), SAMPLES)
    assert found == [str(trial.arch) for trial in expected]

"""Surrogates as evaluators, fitted on runs and tables, and the commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_tables import Tiny, made_up_table
from surrogate_workloads import ACCURACY, toy_measurements
from typer.testing import CliRunner

from evaluators.staged import Staged
from evaluators.surrogate import Surrogate
from nas.budget import Budget, Cost
from nas.cli import app
from nas.config import build
from nas.errors import ConfigError, DataError, NasError
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.predictor import (
    fit_surrogate,
    from_history,
    from_pairs,
    from_table,
    load_surrogate,
    save_surrogate,
)
from nas.search import search
from nas.space import enumerate_architectures, format_architecture, sample
from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, NestedSpace, ToyEvaluator, toy_proposals
from nas.trial import Failed, Fidelity, Infeasible, Measured, Proposal, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    path = tmp_path_factory.mktemp("flat") / "flat.npz"
    save_surrogate(fit_surrogate(toy_measurements(FlatSpace(), 40), "ridge"), path)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def _for_contracts(flat, tmp_path_factory):
    path = tmp_path_factory.mktemp("nested") / "nested.npz"
    settings = {"trees": 8}
    measured = toy_measurements(NestedSpace(), 40)
    save_surrogate(fit_surrogate(measured, "forest", settings=settings), path)
    TestSurrogate.file, TestSurrogateOfForest.file = flat, str(path)


class TestSurrogate(EvaluatorContract):
    samples = 4
    file = ""

    def space(self):
        return FlatSpace()

    def evaluator(self):
        return Surrogate(self.space(), self.file)


class TestSurrogateOfForest(EvaluatorContract):
    samples = 4
    file = ""

    def space(self):
        return NestedSpace()

    def evaluator(self):
        return Surrogate(self.space(), self.file, prefix="")


# ----------------------------------------------------------------------------------- evaluator


def test_it_measures_what_the_surrogate_says(flat):
    evaluator = Surrogate(FlatSpace(), flat)
    names = [(metric.name, metric.unit, metric.direction) for metric in evaluator.metrics]
    assert names == [
        ("predicted_accuracy", "fraction", "maximize"),
        ("predicted_accuracy_std", "fraction", "minimize"),
    ]
    plain = Surrogate(FlatSpace(), flat, prefix="")
    assert [metric.name for metric in plain.metrics] == ["accuracy", "accuracy_std"]
    fitted = load_surrogate(flat)
    for proposal in toy_proposals(FlatSpace(), 5):
        outcome = evaluator.evaluate(proposal)
        (judged,) = fitted.judge([proposal.arch])
        assert outcome.values == {
            "predicted_accuracy": judged.mean,
            "predicted_accuracy_std": judged.std,
        }
        assert outcome.notes["predicted_accuracy"] == {
            "low": judged.low,
            "high": judged.high,
            "distance": judged.distance,
            "extrapolates": judged.extrapolates,
            "unseen": list(judged.unseen),
        }


def test_extrapolation_is_in_the_trial(tmp_path):
    space = FlatSpace()
    known = [a for a in enumerate_architectures(space) if a["operation"] != "tanh"]
    values = np.random.default_rng(0).normal(size=len(known))
    measured = from_pairs(space, zip(known, values, strict=True), ACCURACY)
    fitted = fit_surrogate(measured, "ridge")
    save_surrogate(fitted, tmp_path / "s.npz")
    evaluator = Surrogate(space, str(tmp_path / "s.npz"))
    for arch in enumerate_architectures(space):
        note = evaluator.evaluate(Proposal(0, arch)).notes["predicted_accuracy"]
        new = arch["operation"] == "tanh"
        assert note["extrapolates"] == new
        assert note["unseen"] == (["operation=tanh"] if new else [])


class Counts(ToyEvaluator):
    """Counts what it evaluates."""

    def __init__(self, space):
        super().__init__(space)
        self.evaluated = []

    def evaluate(self, proposal):
        self.evaluated.append(proposal.arch)
        return super().evaluate(proposal)


def test_a_limit_on_what_is_predicted_saves_the_training(flat):
    space = FlatSpace()
    fitted = load_surrogate(flat)
    archs = list(enumerate_architectures(space))
    limit = float(np.median(fitted.predict(archs).mean))
    training = Counts(space)
    objectives = (maximize("score"), maximize("predicted_accuracy", limit=limit, weight=0.0))
    staged = Staged((Surrogate(space, flat), training), objectives)
    outcomes = [staged.evaluate(Proposal(i, arch)) for i, arch in enumerate(archs)]
    passed = [arch for arch in archs if fitted.judge([arch])[0].mean >= limit]
    assert training.evaluated == passed
    assert 0 < len(passed) < len(archs)
    for outcome in outcomes:
        assert isinstance(outcome, Infeasible) == ("score" not in outcome.values)
        assert "predicted_accuracy_std" in outcome.values
    assert set(staged.preview(archs[0])) == {"predicted_accuracy", "predicted_accuracy_std"}


def test_a_search_on_it_finds_what_it_likes_best(flat):
    space = FlatSpace()
    strategy = RandomSearch(space, (maximize("accuracy"),))
    evaluator = Surrogate(space, flat, prefix="")
    trials = list(search(strategy, evaluator, Serial(), Budget(trials=48), History()))
    best = max(trial.values["accuracy"] for trial in trials)
    said = load_surrogate(flat).predict(list(enumerate_architectures(space))).mean
    assert best == pytest.approx(said.max())
    assert sum(trial.cost.epochs for trial in trials) == 0


def test_other_files_and_spaces_are_refused(flat, tmp_path):
    with pytest.raises(ConfigError, match="there is no surrogate"):
        Surrogate(FlatSpace(), "nowhere.npz")
    with pytest.raises(ConfigError, match="for 'flat/v1'"):
        Surrogate(NestedSpace(), flat)
    with pytest.raises(ConfigError, match=r"with classes 3 \(here 9\)"):
        Surrogate(FlatSpace(classes=9), flat)
    (tmp_path / "torn.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="no readable surrogate"):
        Surrogate(FlatSpace(), str(tmp_path / "torn.npz"))


# ------------------------------------------------------------------------------------- sources


def history_of(space, outcomes):
    history = History()
    for number, (arch, outcome, fidelity) in enumerate(outcomes):
        proposal = Proposal(number, arch, fidelity=fidelity)
        history.append(Trial(proposal, outcome, Cost(trials=1)))
    return history


def test_of_a_history_the_measured_trials_count_and_repeats_once():
    space = FlatSpace()
    a, b, c, *_ = enumerate_architectures(space)
    any_ = Fidelity()
    history = history_of(
        space,
        [
            (a, Measured({"score": 1.0, "cost": 5.0}), any_),
            (b, Failed("exception", "no"), any_),
            (a, Measured({"score": 2.0, "cost": 5.0}), any_),
            (c, Measured({"score": 4.0, "cost": 6.0}), any_),
            (b, Infeasible("too dear", {"cost": 9.0}), any_),
        ],
    )
    found = from_history(history, space, "score")
    assert dict(zip(found.archs, found.values, strict=True)) == {a: 1.5, c: 4.0}
    assert found.metric.direction == "maximize"
    with pytest.raises(NasError, match=r"no trial measured 'scor'.*'score'"):
        from_history(history, space, "scor")


def test_fidelities_are_not_mixed():
    space = FlatSpace()
    a, b, *_ = enumerate_architectures(space)
    history = history_of(
        space,
        [
            (a, Measured({"score": 1.0}), Fidelity(epochs=1)),
            (b, Measured({"score": 2.0}), Fidelity(epochs=1)),
            (a, Measured({"score": 3.0}), Fidelity(epochs=9)),
        ],
    )
    with pytest.raises(NasError, match=r"several fidelities \(2 of .*epochs=1.*say which"):
        from_history(history, space, "score")
    assert from_history(history, space, "score", 1).values.tolist() == [1.0, 2.0]
    assert from_history(history, space, "score", 9).values.tolist() == [3.0]
    with pytest.raises(NasError, match="no trial was asked for 5 epochs; there are: 1, 9"):
        from_history(history, space, "score", 5)


def test_of_a_table_the_mean_over_runs_of_what_did_not_fail():
    space = Tiny()
    table = made_up_table(space)
    values = table.quantities["validation_accuracy"].values
    values[1, 0, 0, :] = np.nan
    values[1, 1, :, :] = np.nan
    found = from_table(table, space, "accuracy", "two", epochs=3)
    rows = {table.row_picks(row): row for row in range(len(table))}
    assert len(found.archs) == 3
    for arch, value in zip(found.archs, found.values, strict=True):
        assert value == pytest.approx(np.nanmean(values[1, rows[arch.picks], :, 2]))
    assert found.metric.name == "accuracy"
    assert found.metric.unit == "fraction"
    loss = from_table(table, space, "validation_loss", "one")
    assert loss.metric.direction == "minimize"
    macs = from_table(table, space, "macs", "one")
    assert sorted(macs.values) == sorted(table.counts["macs"][0])
    latency = from_table(table, space, "latency_ms", "one", device="fast_one")
    assert sorted(latency.values) == sorted(table.latency_ms[1])
    for arguments, words in (
        (("accuracy",), "several data sets"),
        (("acuracy", "one"), "did you mean 'accuracy'"),
        (("accuracy", "one", 4), "nearest"),
        (("latency_ms", "one"), "which device"),
        (("latency_ms", "one", None, "fast"), "'fast_one'"),
    ):
        with pytest.raises(ConfigError, match=words):
            from_table(table, space, *arguments)


def test_values_that_are_none_and_architectures_of_elsewhere_are_refused():
    space = FlatSpace()
    arch = next(enumerate_architectures(space))
    with pytest.raises(ConfigError, match=r"accuracy of .* is nan"):
        from_pairs(space, [(arch, float("nan"))], ACCURACY)
    with pytest.raises(NasError, match="flat"):
        from_pairs(NestedSpace(), [(arch, 1.0)], ACCURACY)
    with pytest.raises(ConfigError, match="no architecture has a measured 'accuracy'"):
        from_pairs(space, [], ACCURACY)


# ------------------------------------------------------------------------------------ commands


def nas(*arguments):
    return CliRunner().invoke(app, ["surrogate", *map(str, arguments)])


def document(*arguments):
    done = nas(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_fit_check_and_predict_on_a_table(tmp_path):
    file = tmp_path / "s.npz"
    done = nas("fit", "digits", "--model", "ridge", "--rows", 80, "--out", file)
    assert done.exit_code == 0, done.output
    for words in ("fitted to 80 architectures", "Kendall τ", "coverage", "written:"):
        assert words in done.output
    found = document("check", file)
    validated = load_surrogate(file).validation.agreement
    assert found["agreement"]["kendall"] == validated.kendall
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    picture = tmp_path / "other.png"
    others = document("check", file, "--against", "digits", "--picture", picture)
    assert others["agreement"]["count"] == 729 - 80
    assert picture.exists()
    surrogate = load_surrogate(file)
    arch = sample(surrogate.space, np.random.default_rng(0))
    text = format_architecture(surrogate.space, arch)
    (said,) = document("predict", file, text)
    (judged,) = surrogate.judge([arch])
    assert said["architecture"] == text
    assert (said["mean"], said["std"]) == (judged.mean, judged.std)
    assert "95 %" in nas("predict", file, text).output
    assert NasBench201.__name__ in type(surrogate.space).__name__


def test_fit_on_a_run_and_where_it_extrapolates(tmp_path):
    space = FlatSpace()
    strategy = RegularizedEvolution(space, (maximize("score"),), population_size=5, sample_size=2)
    evaluator = ToyEvaluator(space)
    history = History(tmp_path / "run")
    list(search(strategy, evaluator, Serial(), Budget(trials=40), history))
    file = tmp_path / "s.npz"
    found = document(
        "fit", tmp_path / "run", "--metric", "score", "--out", file, "--set", "trees=20"
    )
    assert found["rows"] == len({trial.arch for trial in history.trials})
    surrogate = load_surrogate(file)
    assert surrogate.model.trees == 20
    text = str(history.trials[0].arch)
    (said,) = document("predict", file, text)
    assert said["distance"] == 0


def test_mistakes_of_the_commands_are_one_message(tmp_path):
    out = tmp_path / "s.npz"
    for arguments, words in (
        (("fit", "digits", "--model", "forrest", "--out", out), "'forest'"),
        (("fit", "digits", "--targets", "rank", "--out", out), "targets"),
        (("fit", "digits", "--rows", 5, "--out", out), "too few"),
        (("fit", "digits", "--set", "trees", "--out", out), "KEY=VALUE"),
        (("fit", "nowhere", "--out", out), "no table"),
        (("check", tmp_path / "none.npz"), "there is no surrogate"),
        (("fit", tmp_path, "--out", out), "not a run folder"),
    ):
        done = nas(*arguments)
        assert isinstance(done.exception, NasError), done.output
        assert words in str(done.exception)
        assert not out.exists()


# ---------------------------------------------------------------------------------------- docs

CONFIGURATIONS = re.findall(
    r"```yaml\n(.*?)```",
    (Path(__file__).parents[1] / "docs" / "surrogates.md").read_text(),
    flags=re.DOTALL,
)


def test_configurations_of_the_docs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = nas("fit", "digits", "--model", "ridge", "--rows", 60, "--out", "digits.npz")
    assert done.exit_code == 0, done.output
    found = []
    for text in CONFIGURATIONS:
        changed = text.replace("trials: 100", "trials: 4").replace("epochs: 16", "epochs: 1")
        changed = changed.replace("limit: 0.9", "limit: 0.1")
        run = build(yaml.safe_load(changed))
        trials = list(search(run.strategy, run.evaluator, run.executor, run.budget, History()))
        found.append([type(trial.outcome) for trial in trials])
    assert [len(kinds) for kinds in found] == [4, 4, 4]
    assert all(kind is Measured for kinds in found for kind in kinds)


@pytest.mark.slow
def test_the_experiment_runs_and_goes_on_where_it_was(tmp_path):
    root = Path(__file__).parents[1]
    command = [sys.executable, str(root / "experiments" / "surrogates.py"), "--models", "ridge"]
    command += ["--rows", "50", "--repeats", "2", "--seeds", "2", "--queries", "30", "--out", "run"]
    texts = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert "| ridge | 50 | 2 |" in texts[0]
    assert "| P10 S10, screened: ridge |" in texts[0]
    assert (tmp_path / "run" / "report_digits.png").exists()

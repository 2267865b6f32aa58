"""A run in an Optuna storage is the run: its trials, its front, and Optuna's own pictures of it."""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import dataclass

import matplotlib
import numpy as np
import optuna
import pytest
from typer.testing import CliRunner

from nas.budget import Budget, Cost
from nas.cli import app
from nas.errors import ConfigError, NasError
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import Metric, maximize, minimize
from nas.optuna_mirror import NUMBER, mirror, quiet
from nas.search import search
from nas.space import SearchSpace, parse
from nas.testing.toys import NestedSpace, Uniform, toy_values
from nas.trial import Failed, Infeasible, Measured, Proposal, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

TWO = (maximize("score", limit=2.0), minimize("cost"))
COMPLETE, FAIL, PRUNED = (
    optuna.trial.TrialState.COMPLETE,
    optuna.trial.TrialState.FAIL,
    optuna.trial.TrialState.PRUNED,
)


@dataclass(frozen=True)
class Tattered:
    """Measures a score and a cost; one in seven fails, one in seven breaks a limit beforehand."""

    space: SearchSpace

    metrics = (Metric("score", "1", "maximize"), Metric("cost", "1", "minimize"))

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        if proposal.number % 7 == 3:
            raise RuntimeError("the cable is loose")
        values = toy_values(self.space, proposal.arch)
        if proposal.number % 7 == 5:
            return Infeasible("it does not fit the memory", {"cost": values["cost"]})
        curve = [values["score"] / epoch for epoch in (1, 2, 4)]
        return Measured(values | {"size": 7.0}, Cost(epochs=3), {"curve": curve})

    def planned_epochs(self, fidelity):
        return 3.0


def run(folder, objectives=TWO, trials=30, seed=0):
    """A run of that many trials, or its continuation."""
    space = NasBench201(channels=2, cells=1)
    history = History(folder)
    strategy = RandomSearch(space, objectives, seed)
    for _ in search(strategy, Tattered(space), Serial(), Budget(trials=trials), history):
        pass
    return history


def study_of(storage, name="run"):
    with quiet():
        return optuna.load_study(study_name=name, storage=storage)


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


def test_every_trial_is_there_as_it_was(storage):
    history = run(None)
    # The evaluator is a class of the test: what is mirrored needs only the space to be rebuilt.
    assert mirror(history, storage, "run") == len(history.trials)
    trials = study_of(storage).trials
    space = NasBench201(channels=2, cells=1)
    assert [trial.user_attrs[NUMBER] for trial in trials] == [t.number for t in history.trials]
    for theirs, ours in zip(trials, history.trials, strict=True):
        assert parse(space, theirs.user_attrs["architecture"]) == ours.arch
        assert theirs.params == ours.arch.as_dict()
        assert {d.choices for d in theirs.distributions.values()} == {space.choices[0].options}
        assert theirs.user_attrs["epochs"] == ours.cost.epochs
        assert theirs.duration.total_seconds() == pytest.approx(ours.cost.seconds, abs=1e-4)
        if isinstance(ours.outcome, Failed):
            assert theirs.state == FAIL
            assert theirs.user_attrs["failed"].startswith("exception: ")
            assert "the cable is loose" in theirs.user_attrs["failed"]
        elif isinstance(ours.outcome, Infeasible):
            assert theirs.state == PRUNED
            assert theirs.constraints == {"infeasible": 1.0}
            assert theirs.user_attrs["infeasible"] == "it does not fit the memory"
            assert theirs.user_attrs["metric:cost"] == ours.outcome.values["cost"]
        else:
            assert theirs.state == COMPLETE
            assert theirs.values == [ours.values["score"], ours.values["cost"]]
            assert theirs.constraints == {"score": (2.0 - ours.values["score"]) / 2.0}
            assert theirs.user_attrs["metric:size"] == 7.0
            assert theirs.intermediate_values == dict(enumerate(ours.notes["curve"], start=1))
    assert {trial.state for trial in trials} == {COMPLETE, FAIL, PRUNED}


@pytest.mark.parametrize(
    "objectives",
    [
        TWO,
        (maximize("score", limit=12.0), minimize("cost", limit=14.0)),
        (minimize("cost"), minimize("score")),
        (maximize("score"),),
    ],
)
def test_optunas_front_is_the_historys(storage, objectives):
    history = run(None, objectives, trials=60)
    mirror(history, storage, "run")
    study = study_of(storage)
    assert [d.name.lower() for d in study.directions] == [one.direction for one in objectives]
    front = history.front(objectives)
    assert front
    # Optuna keeps all trials of equal values, the history the first of them.
    theirs = {tuple(trial.values) for trial in study.best_trials}
    assert theirs == {tuple(t.values[one.metric] for one in objectives) for t in front}
    numbers = {trial.user_attrs[NUMBER] for trial in study.best_trials}
    assert {trial.number for trial in front} <= numbers


def test_only_what_is_new_is_added(tmp_path, storage):
    history = run(tmp_path / "run", trials=5)
    first = len(history.trials)
    assert mirror(history, storage) == first
    assert mirror(history, storage) == 0
    history = run(tmp_path / "run", trials=9)
    assert mirror(history, storage) == len(history.trials) - first > 0
    numbers = [trial.user_attrs[NUMBER] for trial in study_of(storage).trials]
    assert numbers == [trial.number for trial in history.trials]


def test_trials_that_came_back_in_another_order_keep_their_numbers():
    space = NestedSpace()
    history = History()
    strategy = Uniform(space, TWO, 0)
    history.begin({"space": space.name, "strategy": None, "evaluator": None})
    proposals = strategy.ask(6)
    history.asked(6, proposals)
    storage = optuna.storages.InMemoryStorage()
    for count, number in enumerate((4, 0, 5, 2), start=1):
        values = toy_values(space, proposals[number].arch)
        history.append(Trial(proposals[number], Measured(values), Cost(trials=1)))
        assert mirror(history, storage, "one", space=space, objectives=TWO) == 1
        trials = study_of(storage, "one").trials
        assert [trial.user_attrs[NUMBER] for trial in trials] == [4, 0, 5, 2][:count]
    for trial in trials:
        picks = proposals[trial.user_attrs[NUMBER]].arch.as_dict()
        assert trial.params == picks
        assert ("width2" in trial.params) == (picks["depth"] == 3)


def test_another_runs_study_is_refused(tmp_path, storage):
    mirror(run(tmp_path / "one", trials=3), storage, "study")
    other = run(tmp_path / "two", trials=3, seed=1)
    with pytest.raises(ConfigError, match=r"'study'.*not of this run"):
        mirror(other, storage, "study")
    with quiet():
        optuna.create_study(study_name="mine", storage=storage).add_trial(
            optuna.trial.create_trial(value=1.0)
        )
    with pytest.raises(ConfigError, match=r"'mine'.*not of this run"):
        mirror(other, storage, "mine")
    assert mirror(other, storage) == 3
    assert len(study_of(storage, "study").trials) == 3


def test_nonsense_is_refused(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(NasError, match="not begun"):
        mirror(History(), storage, "x")
    history = run(None, trials=2)
    with pytest.raises(ConfigError, match="study_name is needed"):
        mirror(history, storage)
    with pytest.raises(ConfigError, match=r"'runs.db' cannot be opened.*sqlite:///runs.db"):
        mirror(history, "runs.db", "x")
    with pytest.raises(NasError, match="did not measure 'speed'"):
        mirror(history, storage, "x", objectives=(maximize("speed"),))


# ------------------------------------------------------------------------------- pictures


def pictures(study, several):
    yield "plot_optimization_history", {"target": first} if several else {}
    yield "plot_slice", {"target": first} if several else {}
    yield "plot_edf", {"target": first} if several else {}
    yield "plot_timeline", {}
    if several:
        yield "plot_pareto_front", {}
    else:
        yield "plot_intermediate_values", {}


def first(trial):
    return trial.values[0]


@pytest.mark.parametrize("objectives", [TWO, (maximize("score"),)], ids=["two", "one"])
@pytest.mark.parametrize("backend", ["matplotlib", "plotly"])
def test_optunas_pictures_show_it(backend, objectives):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    matplotlib.use("Agg")
    module = "optuna.visualization" + (".matplotlib" if backend == "matplotlib" else "")
    storage = optuna.storages.InMemoryStorage()
    mirror(run(None, objectives), storage, "run")
    study = study_of(storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs: experimental figures, libraries' deprecations
        visualization = importlib.import_module(module)
        for name, arguments in pictures(study, len(objectives) > 1):
            figure = getattr(visualization, name)(study, **arguments)
            if backend == "plotly":
                assert len(figure.data) > 0, name
            else:
                axes = np.ravel(figure)[0]
                assert axes.has_data(), name
                matplotlib.pyplot.close("all")


# ------------------------------------------------------------------------ the command line


CONFIG = {"space": "nasbench201", "strategy": "random", "evaluator": "cost"}


def test_the_command_mirrors_a_run(tmp_path, database):
    from nas import config

    run = config.build(
        CONFIG | {"objectives": ["minimize macs"], "budget": {"trials": 4}, "seed": 0}
    )
    history = History(tmp_path / "macs")
    trials = search(run.strategy, run.evaluator, run.executor, run.budget, history)
    assert len(list(trials)) == 4
    called = CliRunner().invoke(app, ["mirror", str(tmp_path / "macs"), database, "--json"])
    assert called.exit_code == 0, called.output
    assert json.loads(called.stdout) == {"study": "macs", "storage": database, "added": 4}
    assert len(study_of(database, "macs").trials) == 4
    again = CliRunner().invoke(
        app, ["mirror", str(tmp_path / "macs"), database, "--study", "other"]
    )
    assert "4 of 4 trials added to the study 'other'" in again.stdout
    assert f"optuna-dashboard {database}" in again.stdout

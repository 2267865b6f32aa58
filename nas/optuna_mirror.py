"""A run's history in an Optuna storage, where optuna-dashboard and optuna.visualization show it.

The storage is a copy to look at, whatever strategy made the run: the journal stays the record, and
a search never reads the copy. The names of parameters and what an outcome is to Optuna are here
too, for the strategy that runs Optuna's samplers (``strategies.optuna_bridge``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture, Choice, Scalar
from nas.components import objective_from
from nas.config import space_from_header
from nas.errors import ConfigError, NasError, nearest
from nas.history import History
from nas.objective import Objective, check_objectives
from nas.space import SearchSpace, format_architecture
from nas.trial import Failed, Infeasible, Measured, Trial

NUMBER = "number"
"""The user attribute that holds a trial's own number; Optuna counts in the order of arrival."""

_LONGEST_LIST = 80  # characters; a database keeps a name of 512


def mirror(
    history: History,
    storage: str | optuna.storages.BaseStorage,
    study_name: str | None = None,
    *,
    space: SearchSpace | None = None,
    objectives: Sequence[Objective] | None = None,
) -> int:
    """Adds to an Optuna study what it does not have yet of a run; returns how many trials.

    The study is made where it does not exist. Call it again, also while the run goes on: a trial
    is added once. Each choice is a categorical parameter (one for each set of options that is
    legal for it), each objective a value, each limit a constraint. A failed trial is in state
    FAIL. An infeasible one is COMPLETE with a broken constraint if it was measured in every
    objective, else PRUNED. The notes' ``curve`` becomes the intermediate values, by epoch from 1.
    User attributes hold the trial's number, the architecture's text, all metrics, the cost, and
    what went wrong. A trial's duration is its cost in seconds; when it ran is not recorded, so it
    ends when it is added.

    Args:
        storage: a URL as ``optuna.create_study`` takes it (``sqlite:///runs.db``), or a storage.
        study_name: the name of the run's folder unless given.
        space: the run's; needed where its journal cannot rebuild it.
        objectives: the run's unless given.

    Raises:
        NasError: the run has not begun, or a trial did not measure one of the objectives.
        ConfigError: the storage cannot be opened, no name is known, the study is of another run.
    """
    if history.header is None:
        raise NasError("the run has not begun: there is nothing to mirror")
    if study_name is None:
        if history.folder is None:
            raise ConfigError("study_name is needed: the history has no folder to name it after")
        study_name = history.folder.resolve().name
    if space is None:
        space = space_from_header(history.header)
    if objectives is None:
        documents = history.header["strategy"]["objectives"]
        objectives = [objective_from(d, f"objectives[{i}]") for i, d in enumerate(documents)]
    objectives = check_objectives(objectives)
    run = {key: history.header.get(key) for key in ("space", "strategy", "evaluator")}
    study = _study(storage, study_name, objectives, run)
    known = {trial.user_attrs.get(NUMBER) for trial in study.get_trials(deepcopy=False)}
    new = [trial for trial in history.trials if trial.number not in known]
    for trial in new:
        study.add_trial(_frozen(space, objectives, trial))
    return len(new)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna logs nothing below errors and calls nothing experimental, as long as this lasts."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


# -------------------------------------------------------------------- what is what to Optuna


def parameter_name(choice: Choice, options: Sequence[Scalar]) -> str:
    """The name of the parameter that picks one of a choice's legal options.

    A parameter of Optuna has one list of options for ever. So where what is legal depends on the
    picks before, each list has a parameter of its own, named after the options in it.
    """
    if tuple(options) == choice.options:
        return choice.label
    text = json.dumps(list(options), ensure_ascii=False)
    if len(text) > _LONGEST_LIST:
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        text = f"[{len(options)} options, {digest}]"
    return f"{choice.label} {text}"


def constraints(objectives: Sequence[Objective], values: Mapping[str, float]) -> dict[str, float]:
    """By how much the known values break each limit, as a share of it; zero or less is kept."""
    return {
        objective.metric: (
            (values[objective.metric] - objective.limit)
            * (1.0 if objective.direction == "minimize" else -1.0)
            / (abs(objective.limit) or 1.0)
        )
        for objective in objectives
        if objective.limit is not None and math.isfinite(values.get(objective.metric, math.nan))
    }


def outcome(
    objectives: Sequence[Objective], trial: Trial
) -> tuple[TrialState, list[float] | None, dict[str, float]]:
    """A trial's state, its values and its constraints, as Optuna has them.

    Raises ``NasError`` for a trial that was measured, but not in one of the objectives.
    """
    if isinstance(trial.outcome, Failed):
        return TrialState.FAIL, None, {}
    values = trial.outcome.values
    missing = [one.metric for one in objectives if one.metric not in values]
    if isinstance(trial.outcome, Measured):
        if missing:
            raise NasError(
                f"trial {trial.number} did not measure {missing[0]!r}: "
                f"{nearest(missing[0], values)}"
            )
        return (
            TrialState.COMPLETE,
            [values[one.metric] for one in objectives],
            constraints(objectives, values),
        )
    broken = constraints(objectives, values)
    if not any(excess > 0 for excess in broken.values()):
        return TrialState.PRUNED, None, broken | {"infeasible": 1.0}
    if missing or not all(math.isfinite(values[one.metric]) for one in objectives):
        return TrialState.PRUNED, None, broken
    return TrialState.COMPLETE, [values[one.metric] for one in objectives], broken


def _parameters(
    space: SearchSpace, arch: Architecture
) -> tuple[dict[str, Scalar], dict[str, BaseDistribution]]:
    params: dict[str, Scalar] = {}
    distributions: dict[str, BaseDistribution] = {}
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        made[choice.label] = arch[choice.label]
        name = parameter_name(choice, options)
        params[name] = arch[choice.label]
        distributions[name] = CategoricalDistribution(options)
    return params, distributions


# -------------------------------------------------------------------------------- the study


def _study(
    storage: str | optuna.storages.BaseStorage,
    name: str,
    objectives: Sequence[Objective],
    run: Mapping[str, Any],
) -> optuna.Study:
    directions = [objective.direction for objective in objectives]
    with quiet():
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=directions, load_if_exists=True
            )
        except Exception as error:  # whatever the database's driver raises
            raise ConfigError(
                f"storage {storage!r} cannot be opened ({type(error).__name__}: {error}); expected "
                "a URL as in sqlite:///runs.db"
            ) from error
        found = study.user_attrs.get("run")
        same = found == dict(run) if found else not study.get_trials(deepcopy=False)
        if not same or [d.name.lower() for d in study.directions] != directions:
            raise ConfigError(
                f"the study {name!r} in {storage} is not of this run: choose another study_name"
            )
        if found is None:
            study.set_user_attr("run", dict(run))
            study.set_metric_names([objective.metric for objective in objectives])
    return study


def _frozen(space: SearchSpace, objectives: Sequence[Objective], trial: Trial) -> FrozenTrial:
    state, values, broken = outcome(objectives, trial)
    params, distributions = _parameters(space, trial.arch)
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params=params,
        distributions=distributions,
        user_attrs=_attributes(space, trial),
        intermediate_values=_curve(trial),
        constraints=broken,
    )
    if frozen.datetime_complete is not None:
        frozen.datetime_start = frozen.datetime_complete - timedelta(seconds=trial.cost.seconds)
    return frozen


def _attributes(space: SearchSpace, trial: Trial) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        NUMBER: trial.number,
        "architecture": format_architecture(space, trial.arch),
        "seconds": trial.cost.seconds,
        "epochs": trial.cost.epochs,
    }
    if trial.proposal.parent is not None:
        attributes["parent"] = trial.proposal.parent
    if isinstance(trial.outcome, Failed):
        attributes["failed"] = f"{trial.outcome.cause}: {trial.outcome.message}"
        return attributes
    if isinstance(trial.outcome, Infeasible):
        attributes["infeasible"] = trial.outcome.reason
    metrics = trial.outcome.values.items()
    return attributes | {f"metric:{name}": v for name, v in metrics if math.isfinite(v)}


def _curve(trial: Trial) -> dict[int, float]:
    curve = trial.notes.get("curve")
    if not isinstance(curve, list):
        return {}
    return {
        epoch: float(value)
        for epoch, value in enumerate(curve, start=1)
        if isinstance(value, int | float) and math.isfinite(value)
    }

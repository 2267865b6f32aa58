"""Any of Optuna's samplers as a strategy.

Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019; the
samplers' own papers are named in Optuna's documentation. A proposal is one trial of an Optuna
study in memory, defined by run: the next choice and what is legal for it become the next
parameter (``nas.optuna_mirror.parameter_name``), so choices that depend on others need nothing
more. For TPE on a space of many such choices, ``{"multivariate": True, "group": True}``.

What differs from a plain Optuna study: each proposal has a sampler of its own, seeded from the
strategy's seed and the proposal's number, where Optuna draws from one stream. So a proposal
depends on nothing but the trials before it, which is what makes a stored state continue exactly.
(All that Optuna's samplers remember beside the study are caches; GP fits its kernel from the start
for each proposal.) As in Optuna, an architecture may be proposed again.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import ConfigError, nearest
from nas.objective import Direction, Objective, check_objectives, scalarize
from nas.optuna_mirror import outcome, parameter_name, quiet
from nas.space import SearchSpace
from nas.strategy import proposal_seed
from nas.trial import Measured, Proposal, Trial

SAMPLERS: dict[str, type[optuna.samplers.BaseSampler]] = {
    "cma_es": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}

_ONE_STREAM = ("qmc",)  # numbered points of one sequence, whose seed is the same for all of them
_ONE_OBJECTIVE = ("cma_es",)
_CONSTRAINED = ("gp", "nsga2", "nsga3", "tpe")
_BY_POSITION = ("cma_es", "qmc")
_OURS = ("seed", "constraints_func", "independent_sampler")


def sampler_seed(seed: int, number: int) -> int:
    """The seed of the sampler that makes proposal ``number``; below 2³²."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class OptunaSampler:
    """Proposes what one of Optuna's samplers suggests.

    A choice is a categorical parameter. For the samplers that know numbers best it is its
    option's position: for ``cma_es`` and ``qmc`` always, for ``gp`` where all options are numbers
    in rising order. Several objectives are Optuna's directions, except for ``cma_es``, which gets
    their weighted product (``nas.objective.scalarize``). Limits are Optuna's constraints where the
    sampler takes them (``gp``, ``nsga2``, ``nsga3``, ``tpe``), also on what was measured. A failed
    trial is told as failed, which Optuna's samplers ignore; an infeasible one as pruned, unless it
    was measured in every objective.

    Args:
        sampler: ``cma_es`` (needs the package ``cmaes``), ``gp``, ``nsga2``, ``nsga3``, ``qmc``,
            ``random`` or ``tpe``.
        arguments: the sampler's own, as plain values; Optuna's defaults otherwise.

    Raises:
        ConfigError: there is no such sampler or argument, or the sampler refuses its value.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        sampler: str = "tpe",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if sampler not in SAMPLERS:
            raise ConfigError(f"Optuna has no sampler {sampler!r}: {nearest(sampler, SAMPLERS)}")
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.sampler = sampler
        self.arguments = dict(arguments or {})
        self._check_arguments()
        self._names: dict[tuple[str, tuple[Scalar, ...]], str] = {}
        self._archs: list[str] = []  # as JSON
        self._begin()

    def _check_arguments(self) -> None:
        parameters = inspect.signature(SAMPLERS[self.sampler]).parameters
        known = [name for name in parameters if name not in _OURS]
        for name in self.arguments:
            if name not in known:
                reason = "is set by the strategy" if name in _OURS else "is unknown"
                raise ConfigError(
                    f"sampler {self.sampler!r}: the argument {name!r} {reason}: "
                    f"{nearest(name, known)}"
                )
        if self.sampler == "cma_es" and importlib.util.find_spec("cmaes") is None:
            raise ConfigError("sampler 'cma_es' needs the package cmaes: pip install cmaes")
        try:
            json.dumps(self.arguments, allow_nan=False)
            with quiet():
                SAMPLERS[self.sampler](**self.arguments)
        except (ImportError, TypeError, ValueError) as error:
            raise ConfigError(f"sampler {self.sampler!r} with {self.arguments}: {error}") from error

    def _begin(self) -> None:
        scalar = self.sampler in _ONE_OBJECTIVE
        directions: list[Direction] = [objective.direction for objective in self.objectives]
        # What it keeps of the trials' common parameters would take each new sampler a whole pass.
        self._shared = None if self.arguments.get("group") else self._new_sampler(0)
        self._storage = optuna.storages.InMemoryStorage()
        with quiet():
            self._study = optuna.create_study(
                storage=self._storage,
                study_name="search",
                directions=["maximize"] if scalar else directions,
            )
        self._id = self._storage.get_study_id_from_name("search")

    def _new_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        kind, seed = SAMPLERS[self.sampler], sampler_seed(self.seed, number)
        parameters = inspect.signature(kind).parameters
        arguments = {"seed": seed} | self.arguments
        if "warn_independent_sampling" in parameters:
            arguments.setdefault("warn_independent_sampling", False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was made, and warned of, in __init__
            if self.sampler in _ONE_STREAM:
                arguments |= {
                    "seed": sampler_seed(self.seed, 0),
                    "independent_sampler": optuna.samplers.RandomSampler(seed),
                }
            return kind(**arguments)

    # ------------------------------------------------------------------------------ asking

    def ask(self, n: int) -> Sequence[Proposal]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Proposal:
        number = len(self._archs)
        self._study.sampler = _Seeded(self._new_sampler(number), self._shared)
        trial = self._study.ask()
        made: dict[str, Scalar] = {}
        while (step := self.space.legal(made)) is not None:
            choice, options = step
            made[choice.label] = self._suggest(trial, choice, options)
        arch = Architecture(self.space.name, tuple(made.items()))
        self._archs.append(arch.to_json())
        return Proposal(number, arch, seed=proposal_seed(self.seed, number))

    def _suggest(self, trial: optuna.Trial, choice: Choice, options: tuple[Scalar, ...]) -> Scalar:
        if len(options) == 1:
            return options[0]
        name = self._name(choice, options)
        if self._by_position(options):
            return options[trial.suggest_int(name, 0, len(options) - 1)]
        return options[options.index(trial.suggest_categorical(name, options))]

    def _by_position(self, options: tuple[Scalar, ...]) -> bool:
        if self.sampler in _BY_POSITION:
            return True
        numbers = [option for option in options if not isinstance(option, str)]
        return self.sampler == "gp" and numbers == sorted(numbers) and len(numbers) == len(options)

    def _name(self, choice: Choice, options: tuple[Scalar, ...]) -> str:
        key = (choice.label, options)
        if key not in self._names:
            self._names[key] = parameter_name(choice, options)
        return self._names[key]

    # ----------------------------------------------------------------------------- telling

    def tell(self, trial: Trial) -> None:
        state, values, broken = outcome(self.objectives, trial)
        if values is not None and self.sampler in _ONE_OBJECTIVE:
            if isinstance(trial.outcome, Measured):
                values = [scalarize(self.objectives, trial.values)]
            else:
                state, values = TrialState.PRUNED, None
        if broken and self.sampler in _CONSTRAINED:
            told = optuna.Trial(self._study, self._trial_id(trial.number))
            for name, excess in broken.items():
                told.set_constraint(name, excess)
        self._study.tell(trial.number, values, state)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    # ------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        trials = self._study.get_trials(deepcopy=False)
        return {
            "study": _copied(self._storage.get_study_system_attrs(self._id)),
            "trials": [
                [text, trial.state.name, trial.values, _copied(trial.system_attrs)]
                for text, trial in zip(self._archs, trials, strict=True)
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._begin()
        self._archs = [text for text, *_ in state["trials"]]
        for name, value in _copied(state["study"]).items():
            self._storage.set_study_system_attr(self._id, name, value)
        for text, name, values, attributes in state["trials"]:
            params, distributions = self._parameters(Architecture.from_json(text))
            trial = optuna.trial.create_trial(
                state=TrialState[name],
                values=values,
                params=params,
                distributions=distributions,
                system_attrs=_copied(attributes),
            )
            self._study.add_trial(trial)

    def _parameters(
        self, arch: Architecture
    ) -> tuple[dict[str, Scalar], dict[str, BaseDistribution]]:
        """What an architecture is in the study: as ``_suggest`` made it."""
        params: dict[str, Scalar] = {}
        distributions: dict[str, BaseDistribution] = {}
        made: dict[str, Scalar] = {}
        while (step := self.space.legal(made)) is not None:
            choice, options = step
            made[choice.label] = pick = arch[choice.label]
            if len(options) == 1:
                continue
            name, position = self._name(choice, options), self._by_position(options)
            params[name] = options.index(pick) if position else pick
            distributions[name] = (
                IntDistribution(0, len(options) - 1)
                if position
                else CategoricalDistribution(options)
            )
        return params, distributions


class _Seeded(optuna.samplers.BaseSampler):
    """The sampler of one proposal; another one says which parameters are sampled together.

    That takes no randomness, and the other one is cheaper to ask: it has seen the trials before.
    """

    def __init__(
        self, one: optuna.samplers.BaseSampler, shared: optuna.samplers.BaseSampler | None
    ) -> None:
        self.one = one
        self.shared = shared or one

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.shared.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.one.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.one.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.one.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self.one.after_trial(study, trial, state, values)


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna's samplers note in a study: JSON values, as storages take no others."""
    return {
        name: value if isinstance(value, str | int | float) else json.loads(json.dumps(value))
        for name, value in attributes.items()
    }

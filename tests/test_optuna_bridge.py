"""The bridge to Optuna is a strategy, and it is Optuna that proposes."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter

import numpy as np
import optuna
import pytest
from small_spaces import SMALL

from nas.architecture import Architecture, Choice
from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.optuna_mirror import constraints, parameter_name
from nas.space import validate
from nas.testing import StrategyContract
from nas.testing.driving import drive, judge
from nas.testing.toys import FlatSpace, NestedSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.optuna_bridge import OptunaSampler, sampler_seed

SCORE = (maximize("score"),)
TWO = (maximize("score"), minimize("cost", limit=5.0))


class TestTpe(StrategyContract):
    trials = 10

    def strategy(self, space, objectives, seed):
        arguments = {"n_startup_trials": 4, "n_ei_candidates": 6}
        return OptunaSampler(space, objectives, seed, "tpe", arguments)


class TestNsga2(StrategyContract):
    trials = 10

    def spaces(self):
        return (NestedSpace(),)

    def strategy(self, space, objectives, seed):
        return OptunaSampler(space, objectives, seed, "nsga2", {"population_size": 4})


class TestRandom(StrategyContract):
    trials = 10

    def spaces(self):
        return (NestedSpace(),)

    def strategy(self, space, objectives, seed):
        return OptunaSampler(space, objectives, seed, "random")


# ------------------------------------------------------------------------- Optuna proposes


def by_hand(space, kind, arguments, judged, trials, seed):
    """A plain Optuna study on a flat space, with a sampler for each trial."""
    study = optuna.create_study(direction="maximize")
    made = []
    for number in range(trials):
        study.sampler = kind(seed=sampler_seed(seed, number), **arguments)
        trial = study.ask()
        picks = tuple(
            (c.label, trial.suggest_categorical(c.label, c.options)) for c in space.choices
        )
        made.append(Architecture(space.name, picks))
        outcome = judged(number, made[-1])
        if isinstance(outcome, Measured):
            study.tell(trial, outcome.values["score"])
        else:
            state = optuna.trial.TrialState
            study.tell(trial, state=state.FAIL if isinstance(outcome, Failed) else state.PRUNED)
    return made


def judged(number, arch):
    """Three of ten fail, in every way there is."""
    if number % 10 == 3:
        return Failed("not finite", "score is nan")
    if number % 10 == 5:
        return Failed("memory", "none left")
    if number % 10 == 8:
        return Infeasible("cost is 9, must be at most 5", {"cost": 9.0})
    return Measured(toy_values(FlatSpace(), arch))


def driven(strategy, judged, trials):
    made = []
    for _ in range(trials):
        (proposal,) = strategy.ask(1)
        made.append(proposal.arch)
        outcome = judged(proposal.number, proposal.arch)
        strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
    return made


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("random", optuna.samplers.RandomSampler, {}),
        ("tpe", optuna.samplers.TPESampler, {"multivariate": True}),
        ("tpe", optuna.samplers.TPESampler, {"multivariate": False, "n_startup_trials": 5}),
        ("nsga2", optuna.samplers.NSGAIISampler, {"population_size": 6}),
    ],
)
def test_it_proposes_what_a_study_driven_by_hand_does(name, kind, arguments, seed):
    space = FlatSpace()
    ours = driven(OptunaSampler(space, SCORE, seed, name, arguments), judged, 40)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        theirs = by_hand(space, kind, arguments, judged, 40, seed)
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert ours == theirs
    assert len(set(ours)) > 12


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nsga3", {"population_size": 4}),
        ("qmc", {"scramble": True}),
        ("tpe", {"multivariate": True, "group": True, "n_startup_trials": 4}),
    ],
)
@pytest.mark.parametrize("space", [NestedSpace(), SMALL["metaqnn"]()], ids=lambda space: space.name)
def test_choices_that_depend_on_others(name, arguments, space):
    # Legal all the way, and a state stored in the middle goes on as if it had not been.
    whole = OptunaSampler(space, SCORE, 3, name, arguments)
    made = drive(whole, 14, judge(whole))
    for document in made:
        validate(space, Architecture.from_document(document["arch"]))
    assert len({str(document["arch"]) for document in made}) > 5
    loaded = OptunaSampler(space, SCORE, 3, name, arguments)
    loaded.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    rest = drive(whole, 4, judge(whole))
    assert drive(loaded, 4, judge(loaded)) == rest
    assert loaded.state_dict() == whole.state_dict()


def test_a_gaussian_process_goes_on_from_a_stored_state():
    space, arguments = NestedSpace(), {"n_startup_trials": 4}
    whole = OptunaSampler(space, TWO, 3, "gp", arguments)
    drive(whole, 8, judge(whole))
    loaded = OptunaSampler(space, TWO, 3, "gp", arguments)
    loaded.load_state_dict(json.loads(json.dumps(whole.state_dict())))

    def measured(_, arch):
        return Measured(toy_values(space, arch))

    assert driven(loaded, measured, 2) == driven(whole, measured, 2)


def test_each_set_of_legal_options_is_a_parameter_of_its_own():
    space = SMALL["metaqnn"]()
    rng = np.random.default_rng(0)
    seen = {}
    for _ in range(300):
        made = {}
        while (step := space.legal(made)) is not None:
            choice, options = step
            name = parameter_name(choice, options)
            assert seen.setdefault(name, (choice.label, options)) == (choice.label, options)
            assert len(name) < 150
            made[choice.label] = options[int(rng.integers(len(options)))]
    labels = [label for label, _ in seen.values()]
    assert max(labels.count(label) for label in labels) > 3
    whole = Choice("kernel", (1, 3, 5))
    assert parameter_name(whole, (1, 3, 5)) == "kernel"
    assert parameter_name(whole, (1, 5)) == "kernel [1, 5]"
    words = Choice("layer", tuple(f"convolution{number}" for number in range(40)))
    one, other = (parameter_name(words, words.options[start:30]) for start in (0, 1))
    assert one.startswith("layer [30 options, ")
    assert one[-9:] != other[-9:]


def test_qmc_fills_the_space_evenly():
    # 65 points, the first one random: a Sobol sequence in base 2 meets each option of four, two,
    # four and two equally often, where independent draws would be off by several.
    space = FlatSpace()
    made = driven(OptunaSampler(space, SCORE, 0, "qmc"), lambda *_: Measured({"score": 1.0}), 65)
    for choice in space.choices:
        counts = Counter(arch[choice.label] for arch in made[1:])
        assert max(counts.values()) - min(counts.values()) <= 4, counts


def test_cma_es_climbs_numbers_and_needs_its_package():
    if importlib.util.find_spec("cmaes") is None:
        with pytest.raises(ConfigError, match=r"cma_es.*cmaes"):
            OptunaSampler(FlatSpace(), SCORE, 0, "cma_es")
        return
    space = NasBench201()
    strategy = OptunaSampler(space, (maximize("score"), minimize("cost")), 0, "cma_es")
    made = driven(strategy, lambda _, arch: Measured(positions(space, arch)), 200)
    score = [positions(space, arch)["score"] for arch in made]
    assert np.mean(score[150:]) > np.mean(score[:50]) + 3


def positions(space, arch):
    score = sum(choice.index(arch[choice.label]) for choice in space.choices)
    return {"score": float(score), "cost": 25.0 - score}


# ------------------------------------------------------------------ objectives and limits


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_several_objectives_are_directions(name):
    # Both objectives want the same end, one of them as its minimum; half of the space's mean is 12.
    space = NasBench201()
    arguments = {"population_size": 20} if name == "nsga2" else {}
    strategy = OptunaSampler(space, (minimize("cost"), maximize("score")), 0, name, arguments)
    made = driven(strategy, lambda _, arch: Measured(positions(space, arch)), 120)
    late = np.mean([positions(space, arch)["score"] for arch in made[80:]])
    assert late > 16, late


@pytest.mark.parametrize("told", ["measured", "infeasible"])
@pytest.mark.parametrize("limited", [True, False])
def test_limits_are_constraints(told, limited):
    # What scores breaks the limit: without it TPE goes there, with it TPE stays away.
    space = NasBench201()
    objectives = (maximize("score", limit=None), minimize("cost", limit=12.0 if limited else None))

    def judged(_, arch):
        score = positions(space, arch)["score"]
        values = {"score": score, "cost": score}
        if limited and told == "infeasible" and score > 12:
            return Infeasible("too dear", {"cost": score})
        return Measured(values)

    made = driven(OptunaSampler(space, objectives, 1, "tpe", {"multivariate": True}), judged, 90)
    broken = np.mean([positions(space, arch)["score"] > 12 for arch in made[45:]])
    assert broken < 0.3 if limited else broken > 0.32, broken


def test_constraints_are_shares_of_the_limit():
    objectives = (maximize("accuracy", limit=0.8), minimize("macs", limit=200.0), minimize("ms"))
    values = {"accuracy": 0.6, "macs": 100.0, "ms": 1.0}
    assert constraints(objectives, values) == pytest.approx({"accuracy": 0.25, "macs": -0.5})
    assert constraints(objectives, {"macs": math.nan, "ms": 1.0}) == {}


# ----------------------------------------------------------------------------- on the side


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"arguments": {"multivariat": True}}, "'multivariat' is unknown.*'multivariate'"),
        ({"arguments": {"seed": 3}}, "'seed' is set by the strategy"),
        ({"arguments": {"constraints_func": None}}, "'constraints_func' is set by the strategy"),
        ({"sampler": "nsga2", "arguments": {"population_size": 1}}, "population_size"),
        ({"sampler": "nsga2", "arguments": {"crossover": object()}}, "not JSON serializable"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        OptunaSampler(FlatSpace(), SCORE, **arguments)


def test_it_says_nothing_and_leaves_optunas_logging_alone(capfd):
    before = optuna.logging.get_verbosity()
    for name in ("tpe", "qmc", "nsga3"):
        strategy = OptunaSampler(FlatSpace(), SCORE, 0, name)
        driven(strategy, judged, 15)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert optuna.logging.get_verbosity() == before


# ------------------------------------------------------------------------- on a real table


def test_tpe_beats_random_on_nasbench201(benchmark_data):
    # CIFAR-10, validation accuracy after 12 epochs: the mean of what is proposed late, 4 seeds.
    space = NasBench201()
    with np.load(benchmark_data("nb201.npz")) as table:
        rows = {tuple(row): index for index, row in enumerate(table["ops"].tolist())}
        accuracy = table["val_acc_12"][:, 0]

    def value(arch):
        picks = tuple(choice.index(arch[choice.label]) for choice in space.choices)
        return float(accuracy[rows[picks]])

    late, best = [], []
    for seed in range(4):
        runs = [
            [value(arch) for arch in driven(strategy, failing(value), 110)]
            for strategy in (
                OptunaSampler(space, SCORE, seed, "tpe", {"multivariate": True}),
                OptunaSampler(space, SCORE, seed, "random"),
            )
        ]
        late.append(np.subtract(*(np.median(run[60:]) for run in runs)))
        best.append(np.subtract(*map(max, runs)))
    # Three of ten trials fail.
    assert np.mean(late) > 5
    assert np.mean(best) > 0.2


def failing(value):
    def outcome(number, arch):
        if number % 10 in (2, 5, 7):
            return Failed("not finite", "score is nan")
        return Measured({"score": value(arch)})

    return outcome

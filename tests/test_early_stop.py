"""Curves carried on, and trainings given up: nothing is made up, and a resumed search agrees."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas.budget import Budget
from nas.components import create, describe
from nas.data import digits
from nas.errors import ConfigError
from nas.evaluator import informed
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.search import search
from nas.space import parse
from nas.training.extrapolation import EarlyStop, Forecast, extrapolated
from nas.trial import Fidelity, Measured, Proposal
from search_spaces.chain import Chain
from strategies.random_search import RandomSearch

SPACE = Chain(input=(1, 8, 8), widths=(4, 16), dense_widths=(8,))
ARCH = parse(
    SPACE, "depth=1 conv0/kernel=1 conv0/width=4 conv0/stride=1 pool=none dense=0"
)  # fmt: skip


def curve(final, rise, rate, epochs, noise=0.0, seed=0):
    x = np.arange(1, epochs + 1)
    return final - rise * x**-rate + noise * np.random.default_rng(seed).normal(size=epochs)


# ------------------------------------------------------------------------------- the forecast


@settings(max_examples=40, deadline=None)
@given(
    final=st.floats(0.4, 0.98),
    rise=st.floats(0.05, 0.4),
    rate=st.sampled_from([0.5, 1.0, 2.0]),
    seen=st.integers(6, 12),
)
def test_it_expects_what_a_power_law_comes_to(final, rise, rate, seen):
    whole = curve(final, rise, rate, 30)
    forecast = extrapolated(whole[:seen].tolist(), 30)
    assert sum(forecast.weights) == pytest.approx(1.0)
    assert abs(forecast.mean - whole[-1]) < max(0.02, 3 * forecast.deviation)
    assert forecast.above(0.0) > 0.99
    values = [forecast.above(v) for v in np.linspace(0, 1.2, 30)]
    assert values == sorted(values, reverse=True)
    assert forecast == extrapolated(whole[:seen].tolist(), 30)


def test_its_probabilities_are_calibrated_well_enough_to_act_on():
    outcomes, claimed, errors = [], [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        final, rise, rate = rng.uniform((0.5, 0.1, 0.3), (0.95, 0.5, 1.5))
        whole = curve(final, rise, rate, 25, 0.01, seed)
        best = whole[-1] + rng.normal(0, 0.05)
        forecast = extrapolated(whole[:6].tolist(), 25)
        claimed.append(forecast.above(best))
        outcomes.append(whole[-1] > best)
        errors.append((whole[-1] - forecast.mean) / forecast.deviation)
    claimed, outcomes = np.array(claimed), np.array(outcomes)
    assert (claimed < 0.2).sum() >= 20
    assert outcomes[claimed < 0.2].mean() <= 0.2
    assert outcomes[claimed > 0.8].mean() >= 0.8
    assert 0.6 < np.std(errors) < 1.2


def test_more_of_a_curve_says_more():
    whole = curve(0.8, 0.4, 0.7, 40, noise=0.005)
    deviations = [extrapolated(whole[:n].tolist(), 40).deviation for n in (3, 6, 12, 30)]
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[0] > 2 * deviations[-1]


def test_a_mixture_has_the_moments_of_arithmetic():
    forecast = Forecast((0.25, 0.75), (0.2, 0.6), (0.1, 0.2))
    assert forecast.mean == pytest.approx(0.5)
    variance = 0.25 * (0.1**2 + 0.3**2) + 0.75 * (0.2**2 + 0.1**2)
    assert forecast.deviation == pytest.approx(variance**0.5)
    assert forecast.above(-9.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("seen", "epoch"), [([0.5], 9), ([0.5, 0.6], 2)])
def test_what_cannot_be_carried_on(seen, epoch):
    with pytest.raises(ConfigError, match="not carried on to epoch"):
        extrapolated(seen, epoch)


@pytest.mark.parametrize(("field", "value"), [("probability", 0.0), ("least_epochs", 2)])
def test_settings_check_their_ranges(field, value):
    with pytest.raises(ConfigError, match=rf"early_stop: {field} must be .*{value}"):
        EarlyStop(**{field: value})


# ------------------------------------------------------------------------------ the evaluator


@pytest.fixture(scope="module")
def data():
    return digits()


def evaluator(data, **others):
    common = {"epochs": 8, "data_fraction": 0.1, "keep_weights": False, "device": "cpu"}
    return TrainingEvaluator(SPACE, data, **{**common, **others})


def against(best, number=0):
    return Proposal(number, ARCH, 3, notes={"best_known": best})


def test_a_hopeless_training_ends_and_reports_what_was_measured(data):
    stopping = evaluator(data, early_stop=EarlyStop(least_epochs=3))
    found = stopping.evaluate(against(0.999))
    whole = evaluator(data, validate_each_epoch=True).evaluate(Proposal(0, ARCH, 3))
    told = found.notes["stopped"]
    epochs = told["epoch"]
    assert 3 <= epochs < told["of"] == 8
    assert found.notes["curve"] == whole.notes["curve"][:epochs]
    assert found.notes["validation_curve"] == whole.notes["validation_curve"][:epochs]
    assert found.values["accuracy"] == whole.notes["validation_curve"][epochs - 1]
    assert found.cost.epochs == pytest.approx(0.1 * epochs)
    assert told["probability"] < 0.05
    assert "above 0.9990 with a probability of" in told["why"]
    json.dumps(dict(found.notes), allow_nan=False)
    assert stopping.evaluate(against(0.999)) == found


def test_a_hopeful_one_is_what_it_is_without(data):
    stopping = evaluator(data, early_stop=EarlyStop())
    plain = evaluator(data).evaluate(Proposal(0, ARCH, 3))
    for proposal in (against(0.0), Proposal(0, ARCH, 3)):  # the second knows of no other trial
        found = stopping.evaluate(proposal)
        assert "stopped" not in found.notes
        assert found.values == plain.values
        assert found.notes["curve"] == plain.notes["curve"]
        assert found.notes["validation_curve"][-1] == plain.values["accuracy"]
    assert "validation_curve" not in plain.notes


def test_the_whole_validation_curve_is_kept_over_a_continuation(data):
    continued = evaluator(data, validate_each_epoch=True, schedule_epochs=8)
    short = replace(Proposal(0, ARCH, 3), fidelity=Fidelity(epochs=3))
    first = continued.evaluate(short)
    long = replace(Proposal(1, ARCH, 3), continues=0)
    from nas.budget import Cost
    from nas.trial import Trial

    second = continued.evaluate_from(long, Trial(short, first, Cost()))
    assert len(first.notes["validation_curve"]) == 3
    whole = continued.evaluate(Proposal(1, ARCH, 3))
    assert second.notes["validation_curve"] == whole.notes["validation_curve"]
    stopped = evaluator(data, schedule_epochs=9, early_stop=EarlyStop(least_epochs=3))
    assert stopped.evaluate(against(0.999)).artifacts == {}  # no beginning of a longer training


def test_only_whole_trials_of_the_same_fidelity_are_what_is_to_be_surpassed(data):
    from nas.budget import Cost
    from nas.trial import Trial

    def trial(number, accuracy, fidelity=Fidelity(), **notes):
        values = {"accuracy": accuracy, "loss": 1.0}
        return Trial(
            Proposal(number, ARCH, fidelity=fidelity), Measured(values, notes=notes), Cost()
        )

    trials = [
        trial(0, 0.5),
        trial(1, 0.6, Fidelity(epochs=8, data_fraction=0.1)),
        trial(2, 0.9, Fidelity(epochs=9)),
        trial(3, 0.8, stopped={"epoch": 4}),
    ]
    proposal = Proposal(4, ARCH)
    stopping = evaluator(data, early_stop=EarlyStop())
    assert informed(stopping, proposal, trials).notes == {"best_known": 0.6}
    assert informed(stopping, proposal, trials[2:]) == proposal
    assert informed(evaluator(data), proposal, trials) == proposal
    staged = Staged((stopping,), (maximize("accuracy"),))
    assert informed(staged, proposal, trials).notes == {"best_known": 0.6}


def searched(data, folder, stop_after=None):
    strategy = RandomSearch(SPACE, (maximize("accuracy"),), 1)
    stopping = evaluator(data, early_stop=EarlyStop(0.3, 3))
    history = History(folder)
    running = search(strategy, stopping, Serial(), Budget(trials=6), history)
    for done, _ in enumerate(running, start=1):
        if done == stop_after:
            running.close()
            break
    return history


def test_a_resumed_search_gives_up_the_same_trials(data, tmp_path):
    whole = searched(data, tmp_path / "whole")
    searched(data, tmp_path / "cut", stop_after=3)
    cut = searched(data, tmp_path / "cut")
    assert [t.values for t in cut.trials] == [t.values for t in whole.trials]
    assert [dict(t.notes) for t in cut.trials] == [dict(t.notes) for t in whole.trials]
    told = [t.notes["stopped"] for t in whole.trials if "stopped" in t.notes]
    assert told
    for trial in whole.trials:  # recorded as the strategy proposed it
        assert trial.proposal.notes == {}
    read = History(tmp_path / "whole")
    assert [t.proposal for t in read.trials] == [t.proposal for t in whole.trials]


def test_it_is_written_down(data):
    written = {"name": "training", "early_stop": {"probability": 0.1}}
    made = create("evaluators", written, "evaluator", {"space": SPACE, "data": data})
    assert made.early_stop == EarlyStop(probability=0.1)
    again = create("evaluators", json.loads(json.dumps(describe(made))), "evaluator")
    assert again.early_stop == made.early_stop
    with pytest.raises(ConfigError, match="early_stop has no 'probabilty'"):
        create(
            "evaluators", {"name": "training", "early_stop": {"probabilty": 0.1}}, "evaluator",
            {"space": SPACE, "data": data},
        )  # fmt: skip

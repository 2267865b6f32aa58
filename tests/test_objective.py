"""Objectives: the Pareto order and the scalar, as laws and against plain references."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import ConfigError, NasError
from nas.history import ParetoFront
from nas.objective import (
    Metric,
    Objective,
    check_objectives,
    dominates,
    maximize,
    minimize,
    scalarize,
    violated,
)
from nas.trial import Failed, Infeasible, Measured, NotFinite, Proposal, Trial

NAMES = ("accuracy", "macs", "latency")
# Few different values, so that ties and domination are frequent.
few = st.integers(0, 3).map(float)
points = st.fixed_dictionaries(dict.fromkeys(NAMES, few))


@st.composite
def objective_lists(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    return tuple(Objective(name, draw(st.sampled_from(["maximize", "minimize"]))) for name in names)


def trial(number, values):
    arch = Architecture("toy/v1", (("x", number),))
    return Trial(Proposal(number, arch), Measured(values), Cost(trials=1))


def reference_dominates(objectives, one, other):
    """Every objective turned into something to maximise, then compared."""
    signs = [1 if objective.direction == "maximize" else -1 for objective in objectives]
    gains = [
        sign * (one[o.metric] - other[o.metric]) for sign, o in zip(signs, objectives, strict=True)
    ]
    return min(gains) >= 0 and max(gains) > 0


# ------------------------------------------------------------------------------ the order


@given(objective_lists(), points, points, points)
def test_domination_is_a_strict_partial_order(objectives, a, b, c):
    assert dominates(objectives, a, b) == reference_dominates(objectives, a, b)
    assert not dominates(objectives, a, a)
    assert not (dominates(objectives, a, b) and dominates(objectives, b, a))
    if dominates(objectives, a, b) and dominates(objectives, b, c):
        assert dominates(objectives, a, c)


@given(objective_lists(), st.lists(points, max_size=8), st.randoms(use_true_random=False))
def test_front_equals_brute_force_in_any_order(objectives, values, random):
    trials = [trial(number, value) for number, value in enumerate(values)]
    expected = {
        tuple(v[o.metric] for o in objectives)
        for v in values
        if not any(reference_dominates(objectives, other, v) for other in values)
    }
    for _ in range(3):
        random.shuffle(trials)
        front = ParetoFront(objectives)
        for one in trials:
            before = {t.number for t in front.trials()}
            assert front.add(one) == (one.number in {t.number for t in front.trials()})
            assert one.number not in before
        found = [tuple(t.values[o.metric] for o in objectives) for t in front.trials()]
        assert set(found) == expected
        # Of equal trials the first to come is kept.
        assert len(found) == len(front) == len(expected)
        for member in front.trials():
            equals = [
                t.number
                for t in trials
                if all(t.values[o.metric] == member.values[o.metric] for o in objectives)
            ]
            assert member.number == equals[0]
        firsts = [key[0] for key in found]
        assert firsts == sorted(firsts, reverse=objectives[0].direction == "maximize")


def test_limits_keep_trials_off_the_front():
    objectives = (maximize("accuracy", limit=0.5), minimize("macs", limit=10.0))
    front = ParetoFront(objectives)
    assert not front.add(trial(0, {"accuracy": 0.49, "macs": 1}))
    assert not front.add(trial(1, {"accuracy": 0.9, "macs": 10.01}))
    assert front.add(trial(2, {"accuracy": 0.5, "macs": 10.0}))
    assert [t.number for t in front.trials()] == [2]


def test_failed_and_infeasible_trials_are_never_on_the_front():
    front = ParetoFront((maximize("accuracy"),))
    arch = Architecture("toy/v1", (("x", 1),))
    for outcome in (Failed("timeout", "took long"), Infeasible("too big", {"accuracy": 1.0})):
        assert not front.add(Trial(Proposal(0, arch), outcome, Cost(trials=1)))
    assert len(front) == 0


def test_a_front_of_what_was_not_measured_is_refused():
    with pytest.raises(NasError, match="did not measure 'acuracy': did you mean 'accuracy'"):
        ParetoFront((maximize("acuracy"),)).add(trial(0, {"accuracy": 0.5}))


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_limits_hold_at_the_value_itself(value, limit):
    assert maximize("x", limit=limit).within_limit(value) == (value >= limit)
    assert minimize("x", limit=limit).within_limit(value) == (value <= limit)
    assert maximize("x").within_limit(value)


def test_violated_says_which_limit():
    objectives = (maximize("accuracy", limit=0.5), minimize("macs", limit=10.0))
    assert violated(objectives, {"accuracy": 0.5, "macs": 10.0}) is None
    assert violated(objectives, {"macs": 11.0}) == "macs is 11, must be at most 10"
    assert violated(objectives, {"accuracy": 0.25, "macs": 11.0}) == (
        "accuracy is 0.25, must be at least 0.5"
    )
    assert violated(objectives, {}) is None
    assert violated((maximize("accuracy"),), {"accuracy": -1.0}) is None


# ----------------------------------------------------------------------------- the scalar


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_scalar_of_one_objective_is_its_order(one, other):
    for objective in (maximize("x"), minimize("x")):
        first, second = (scalarize((objective,), {"x": v}) for v in (one, other))
        assert (first > second) == objective.better(one, other)
    assert scalarize((maximize("x"),), {"x": one}) == one


@given(
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(1, 1000),
    st.floats(1, 1000),
    st.floats(1, 1000),
)
def test_the_scalar_has_mnasnets_order(acc, other_acc, lat, other_lat, target):
    # Tan et al. 2019, eq. 2 with the soft constraint's w = -0.07: ACC · (LAT / T)^w.
    objectives = (maximize("accuracy"), minimize("latency"))
    first = acc * (lat / target) ** -0.07
    second = other_acc * (other_lat / target) ** -0.07
    ours = [
        scalarize(objectives, {"accuracy": a, "latency": t})
        for a, t in ((acc, lat), (other_acc, other_lat))
    ]
    if not math.isclose(first, second, rel_tol=1e-9):
        assert (ours[0] > ours[1]) == (first > second)
    assert math.isclose(ours[0] / ours[1], first / second, rel_tol=1e-9)


@given(objective_lists(), points, points)
def test_the_scalar_never_contradicts_domination(objectives, one, other):
    if dominates(objectives, one, other):
        assert scalarize(objectives, one) >= scalarize(objectives, other)


def test_weights_are_exponents():
    values = {"accuracy": 0.5, "macs": 8.0, "latency": 3.0}
    objectives = (
        maximize("accuracy", weight=2.0),
        minimize("macs", weight=1 / 3),
        minimize("latency", weight=0.0),
    )
    assert scalarize(objectives, values) == pytest.approx(0.25 / 2)
    assert scalarize(objectives[:2], values | {"macs": 0.0}) > scalarize(objectives[:2], values)


def test_the_product_refuses_what_it_cannot_order():
    with pytest.raises(ConfigError, match="loss is -1"):
        scalarize((maximize("accuracy"), minimize("loss")), {"accuracy": 0.5, "loss": -1.0})
    assert scalarize((minimize("loss"),), {"loss": -1.0}) == 1.0


# ----------------------------------------------------------------------------- the checks


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("accuracy", "up"), "maximize or minimize, got 'up'"),
        (("accuracy", "maximize", math.nan), "limit must be finite"),
        (("accuracy", "maximize", math.inf), "limit must be finite"),
        (("accuracy", "maximize", None, -0.1), "weight must be zero or more, got -0.1"),
        (("accuracy", "maximize", None, math.nan), "weight"),
    ],
)
def test_objectives_check_themselves(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Objective(*arguments)


def test_check_objectives():
    metrics = (Metric("accuracy", "fraction", "maximize"), Metric("macs", "1", "minimize"))
    objectives = [maximize("accuracy"), minimize("macs")]
    assert check_objectives(objectives, metrics) == tuple(objectives)
    assert check_objectives(iter(objectives)) == tuple(objectives)
    with pytest.raises(ConfigError, match="no objectives"):
        check_objectives(())
    with pytest.raises(ConfigError, match="'macs' is given twice"):
        check_objectives([minimize("macs"), maximize("accuracy"), maximize("macs")])
    with pytest.raises(ConfigError, match="'acuracy': did you mean 'accuracy'"):
        check_objectives([maximize("acuracy")], metrics)


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (maximize("accuracy"), "maximize accuracy"),
        (minimize("macs", limit=5e6), "minimize macs ≤ 5e+06"),
        (maximize("accuracy", limit=0.5), "maximize accuracy ≥ 0.5"),
    ],
)
def test_objectives_are_shown(objective, text):
    assert str(objective) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_measurements_are_finite(value):
    with pytest.raises(NotFinite, match="accuracy is"):
        Measured({"macs": 1.0, "accuracy": value})


def test_front_of_a_grid():
    # The whole grid has one best corner; its diagonal is a front.
    grid = [
        trial(n, {"accuracy": float(i), "macs": float(j)})
        for n, (i, j) in enumerate(itertools.product(range(6), repeat=2))
    ]
    front = ParetoFront((maximize("accuracy"), minimize("macs")))
    for one in grid:
        front.add(one)
    assert [dict(t.values) for t in front.trials()] == [{"accuracy": 5.0, "macs": 0.0}]
    diagonal = [one for one in grid if one.values["accuracy"] == one.values["macs"]]
    front = ParetoFront((maximize("accuracy"), minimize("macs")))
    assert all(front.add(one) for one in diagonal)
    assert [t.values["accuracy"] for t in front.trials()] == [5, 4, 3, 2, 1, 0]

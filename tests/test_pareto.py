"""Fronts, crowding and hypervolume equal what their definitions give by force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.errors import ConfigError
from nas.objective import dominates, maximize, minimize
from nas.pareto import (
    costs,
    crowding_distance,
    hypervolume,
    hypervolume_improvement,
    non_dominated,
    non_dominated_sort,
    reference_directions,
    violation,
)


def points(least=0, most=14, objectives=(1, 2, 3, 4)):
    """Points on a small grid, so that there are equal and dominated ones."""
    return st.sampled_from(objectives).flatmap(
        lambda m: st.integers(least, most).flatmap(
            lambda n: arrays(np.float64, (n, m), elements=st.integers(0, 5).map(float))
        )
    )


def better(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(
        a < b for a, b in zip(one, other, strict=True)
    )


def fronts_by_force(matrix, broken):
    """Definition: what nothing left dominates is the next front."""

    def beats(i, j):
        if broken[i] == 0 and broken[j] == 0:
            return better(matrix[i], matrix[j])
        return broken[i] < broken[j]

    left, fronts = set(range(len(matrix))), []
    while left:
        fronts.append({j for j in left if not any(beats(i, j) for i in left)})
        left -= fronts[-1]
    return fronts


@settings(max_examples=150, deadline=None)
@given(points(), st.data())
def test_fronts_are_those_of_constraint_domination(matrix, data):
    broken = data.draw(
        st.lists(
            st.sampled_from([0.0, 0.0, 0.5, 2.0, math.inf]),
            min_size=len(matrix),
            max_size=len(matrix),
        )
    )
    found = non_dominated_sort(matrix, broken)
    assert [set(front.tolist()) for front in found] == fronts_by_force(matrix, broken)
    found = non_dominated_sort(matrix)
    expected = fronts_by_force(matrix, [0.0] * len(matrix))
    assert [set(front.tolist()) for front in found] == expected
    if len(matrix):
        assert set(np.flatnonzero(non_dominated(matrix)).tolist()) == expected[0]


def test_costs_of_what_breaks_limits_are_not_looked_at():
    nan = math.nan
    fronts = non_dominated_sort([[nan, nan], [9.0, 9.0], [nan, nan], [8.0, 8.0]], [2.0, 0, 1.0, 0])
    assert [front.tolist() for front in fronts] == [[3], [1], [2], [0]]


def crowding_by_force(matrix):
    total = [0.0] * len(matrix)
    for column in range(matrix.shape[1]):
        order = sorted(range(len(matrix)), key=lambda row: matrix[row][column])
        low, high = matrix[order[0]][column], matrix[order[-1]][column]
        if low == high:
            continue
        total[order[0]] = total[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            total[here] += (matrix[after][column] - matrix[before][column]) / (high - low)
    return total


@settings(max_examples=100, deadline=None)
@given(points(2, 12))
def test_crowding_is_the_room_between_neighbours(matrix):
    expected = crowding_by_force(matrix)
    if any(expected):
        assert crowding_distance(matrix) == pytest.approx(expected)
    else:  # all equal: the ends are as good as any
        assert crowding_distance(matrix).tolist() == [
            math.inf,
            *[0.0] * (len(matrix) - 2),
            math.inf,
        ]


def test_crowding_of_a_front_by_hand():
    front = [[0.0, 10.0], [1.0, 6.0], [3.0, 5.0], [10.0, 0.0]]
    assert crowding_distance(front).tolist() == [math.inf, 0.3 + 0.5, 0.9 + 0.6, math.inf]
    assert crowding_distance(np.zeros((0, 2))).tolist() == []


@settings(max_examples=100, deadline=None)
@given(points(0, 7))
def test_hypervolume_is_that_of_inclusion_and_exclusion(matrix):
    corner = np.full(matrix.shape[1], 5.0)
    inside = [row for row in matrix if (row < corner).all()]
    expected = 0.0
    for size in range(1, len(inside) + 1):
        for some in itertools.combinations(inside, size):
            expected -= (-1) ** size * float(np.prod(corner - np.max(some, axis=0)))
    assert hypervolume(matrix, corner) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(points(0, 10), st.data())
def test_improvement_is_the_difference_of_two_hypervolumes(matrix, data):
    objectives = matrix.shape[1]
    corner = np.full(objectives, 5.0)
    new = data.draw(arrays(np.float64, (3, objectives), elements=st.integers(0, 5).map(float)))
    before = hypervolume(matrix, corner)
    expected = [hypervolume(np.vstack([matrix, row]), corner) - before for row in new]
    assert hypervolume_improvement(new, matrix, corner) == pytest.approx(expected)


def test_hypervolume_agrees_with_monte_carlo():
    rng = np.random.default_rng(0)
    for objectives in (2, 3, 4):
        matrix = rng.random((25, objectives)) ** 0.5
        thrown = rng.random((40_000, objectives)) * 1.1
        hit = np.zeros(len(thrown), dtype=bool)
        for row in matrix:
            hit |= (thrown >= row).all(axis=1)
        share = hit.mean()
        error = math.sqrt(share * (1 - share) / len(thrown))
        found = hypervolume(matrix, np.full(objectives, 1.1)) / 1.1**objectives
        assert abs(found - share) < 4.5 * error


def test_nothing_has_no_volume():
    assert hypervolume([], [1.0, 1.0]) == 0.0
    assert hypervolume([[1.0, 0.0], [2.0, -9.0]], [1.0, 1.0]) == 0.0
    assert hypervolume_improvement([[0.5, 0.5], [1.0, 0.0]], [], [1.0, 1.0]).tolist() == [0.25, 0.0]
    assert hypervolume_improvement(np.zeros((0, 2)), [[0.0, 0.0]], [1.0, 1.0]).shape == (0,)


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
@pytest.mark.parametrize("divisions", [1, 4, 6])
def test_reference_directions_are_all_shares(objectives, divisions):
    rows = reference_directions(objectives, divisions)
    assert rows.shape == (math.comb(objectives + divisions - 1, divisions), objectives)
    shares = np.round(rows * divisions).astype(int)
    assert np.abs(rows * divisions - shares).max() < 1e-12
    assert (shares >= 0).all()
    assert (shares.sum(axis=1) == divisions).all()
    assert len({tuple(row) for row in shares.tolist()}) == len(rows)


def test_reference_directions_of_the_paper():
    assert len(reference_directions(3, 12)) == 91
    assert len(reference_directions(5, 6)) == 210


def test_costs_and_violations_follow_the_objectives():
    objectives = (maximize("accuracy", limit=80.0), minimize("ms", limit=4.0), minimize("mb"))
    values = {"accuracy": 76.0, "ms": 5.0, "mb": 2.0, "zeal": 9.0}
    assert costs(objectives, values) == (-76.0, 5.0, 2.0)
    assert violation(objectives, values) == pytest.approx(0.05 + 0.25)
    assert violation(objectives, {"ms": 3.0}) == 0.0
    assert violation((minimize("drop", limit=0.0),), {"drop": 0.5}) == 0.5
    others = values | {"ms": 6.0}
    assert dominates(objectives, values, others)
    assert better(costs(objectives, values), costs(objectives, others))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: hypervolume([[1.0, 2.0]], [1.0]), "2 finite costs"),
        (lambda: hypervolume([[1.0, 2.0]], [1.0, math.inf]), "finite"),
        (lambda: non_dominated([1.0, 2.0]), r"shape \(2,\)"),
        (lambda: non_dominated_sort([[1.0]], [0.0, 0.0]), "1 points need as many violations"),
        (lambda: hypervolume_improvement([[0.0]], [[1.0, 2.0]], [1.0]), "2 objectives"),
        (lambda: reference_directions(2, 0), "at least one"),
    ],
)
def test_nonsense_is_refused(call, says):
    with pytest.raises(ConfigError, match=says):
        call()

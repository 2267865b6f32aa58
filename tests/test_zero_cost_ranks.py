"""Joining proxies by ranks: laws, and the papers' formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from nas.errors import ConfigError
from nas.zero_cost import combined, merge, relative_rank

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=10))
def test_combined_is_the_papers_sum_of_logarithms_and_the_mean_rank(rows):
    columns = dict(zip("abc", np.array(rows, dtype=float).T, strict=True))
    count = len(rows)
    ranks = np.array([rankdata(column) / count for column in columns.values()])
    summed = np.log(ranks).sum(axis=0)  # AZ-NAS, eq. 12
    np.testing.assert_allclose(combined(columns), np.exp(summed / 3), rtol=1e-12)
    np.testing.assert_allclose(combined(columns, "mean"), ranks.mean(axis=0), rtol=1e-12)


@given(VALUES, st.integers(-6, 6).map(float))
def test_a_relative_rank_is_the_rank_among_the_population_and_itself(population, value):
    whole = rankdata([*population, value]) / (len(population) + 1)
    assert relative_rank(value, population) == pytest.approx(whole[-1], abs=1e-12)


@given(VALUES, st.floats(-9, 9), st.floats(-9, 9))
def test_relative_ranks_rise_with_the_value(population, one, other):
    low, high = sorted((one, other))
    assert 0 < relative_rank(low, population) <= relative_rank(high, population) <= 1


def test_only_the_order_counts():
    values = np.array([3.0, 1.0, 2.0, 10.0])
    other = [5.0, 6.0, 2.0, 1.0]
    one = combined({"a": values, "b": other})
    np.testing.assert_array_equal(one, combined({"a": np.exp(values), "b": other}))


def test_a_network_that_is_best_everywhere_scores_one():
    assert combined({"a": [1.0, 2.0], "b": [0.0, 9.0]}).tolist() == [0.5, 1.0]
    assert relative_rank(9.0, [1.0, 2.0, 3.0]) == 1.0
    assert relative_rank(0.0, [1.0, 2.0, 3.0]) == 0.25


def test_disconnected_networks_score_nothing():
    found = combined({"macs": [3.0, 2.0, 1.0]}, "mean", connected=[False, True, True])
    assert found[0] == 0
    assert found[1] > found[2] > 0


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ConfigError, match="as many scores of every proxy"):
        combined({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ConfigError, match="as many scores"):
        combined({})
    with pytest.raises(ConfigError, match="a of network 1 is not finite"):
        combined({"a": [1.0, math.nan]})
    with pytest.raises(ConfigError, match="did you mean 'geometric'"):
        merge(np.ones((2, 2)), "geometrical")

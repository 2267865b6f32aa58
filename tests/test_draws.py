"""Draws are uniform, depend on their name alone, and are the same everywhere."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from nas.draws import Draws
from nas.strategy import proposal_draws, proposal_rng, proposal_seed

FIXED = [int(digit) for digit in "449105704126569036247403230796"]


def chi_square(counts, expected):
    return sum((counts[key] - wanted) ** 2 / wanted for key, wanted in expected.items())


def test_the_stream_is_fixed():
    # Whatever the machine and the version: a journal is replayed from these.
    draws = Draws(7, 3)
    assert [draws.integers(10) for _ in range(30)] == FIXED
    assert proposal_seed(7, 3) == 1254299719
    assert proposal_rng(7, 3).integers(1000, size=3).tolist() == [39, 489, 893]


def test_streams_differ_by_name():
    names = [*itertools.product(range(12), range(12)), *((a, b, 2) for a, b in [(0, 1), (1, 0)])]
    names += [(1,), (12, 0, 0), (1, 20), (120,)]
    firsts = {name: Draws(*name).integers(1 << 62) for name in names}
    assert len(set(firsts.values())) == len(names)
    assert proposal_draws(3, 4).integers(1 << 62) == firsts[3, 4]


@pytest.mark.parametrize("high", [1, 2, 5, 97])
def test_integers_are_uniform(high):
    draws = Draws(1)
    counts = Counter(draws.integers(high) for _ in range(20_000))
    assert set(counts) == set(range(high))
    if high > 1:
        freedom = high - 1
        statistic = chi_square(counts, dict.fromkeys(range(high), 20_000 / high))
        assert abs(statistic - freedom) < 4.5 * math.sqrt(2 * freedom) + 8


def test_random_is_uniform():
    draws = Draws(2)
    values = np.array([draws.random() for _ in range(20_000)])
    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(np.sort(values) - np.linspace(0, 1, 20_000)).max() < 1.95 / math.sqrt(20_000)


def test_distinct_sets_are_uniform():
    draws = Draws(3)
    counts = Counter(frozenset(draws.distinct(6, 3)) for _ in range(10_000))
    expected = dict.fromkeys(map(frozenset, itertools.combinations(range(6), 3)), 500)
    assert set(counts) == set(expected)
    assert chi_square(counts, expected) < 50.8  # 19 degrees of freedom: probability 1e-4
    assert sorted(draws.distinct(40, 40)) == list(range(40))


def test_orders_are_uniform():
    draws = Draws(4)
    counts = Counter(tuple(draws.shuffled(4)) for _ in range(12_000))
    expected = dict.fromkeys(itertools.permutations(range(4)), 500)
    assert set(counts) == set(expected)
    assert chi_square(counts, expected) < 56.6  # 23 degrees of freedom: probability 1e-4


@pytest.mark.parametrize(("high", "n"), [(6, 3), (6, 6), (9, 1), (20, 2), (12, 5)])
def test_least_is_the_best_rank_of_a_tournament(high, n):
    draws = Draws(5, high, n)
    counts = Counter(draws.least(high, n) for _ in range(20_000))
    expected = {
        rank: 20_000 * math.comb(high - 1 - rank, n - 1) / math.comb(high, n)
        for rank in range(high - n + 1)
    }
    assert set(counts) <= set(expected)
    common = {rank: wanted for rank, wanted in expected.items() if wanted > 10}
    freedom = max(1, len(common) - 1)
    assert chi_square(counts, common) < freedom + 4.5 * math.sqrt(2 * freedom) + 10

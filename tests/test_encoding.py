"""One-hot, ordinal and token encodings: exact examples and refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.encoding import (
    features,
    from_one_hot,
    from_ordinal,
    from_tokens,
    one_hot,
    ordinal,
    tokens,
    vocabulary_size,
)
from nas.errors import InvalidArchitecture
from nas.space import enumerate_architectures, from_picks
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain

NESTED = NestedSpace()
SHALLOW = from_picks(NESTED, {"depth": 1, "width0": 4, "activation": "tanh"})


def test_examples_of_a_conditional_space():
    assert vocabulary_size(NESTED) == 12
    assert one_hot(NESTED, SHALLOW).tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert ordinal(NESTED, SHALLOW).tolist() == [0, 1, -1, -1, 1]
    assert tokens(NESTED, SHALLOW) == [0, 4, 11]


@pytest.mark.parametrize("space", [NESTED, FlatSpace(), Chain(depths=(1, 2))], ids=lambda s: s.name)
def test_encodings_agree_with_each_other(space):
    for arch in itertools.islice(enumerate_architectures(space), 300):
        assert np.flatnonzero(one_hot(space, arch)).tolist() == sorted(tokens(space, arch))
        active = [choice.label in arch for choice in space.choices]
        assert (ordinal(space, arch) >= 0).tolist() == active


ONE_HOT = one_hot(NESTED, SHALLOW)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (ONE_HOT[:-1], "one vector of 12 numbers"),
        (ONE_HOT[None], "shape"),
        (["a"] * 12, "numbers"),
        ([[1], [1, 2]], "one vector of 12 numbers"),
        (ONE_HOT * np.nan, "finite"),
        (ONE_HOT * 0.5, "0.5 at 'depth', expected 0 or 1"),
        (np.ones(12), "'depth' has 3 options at once: 1, 2, 3"),
        (np.zeros(12), "no pick for 'depth'"),
        (ONE_HOT + np.eye(12)[5], "'width1' is not active"),
    ],
)
def test_nonsense_is_not_one_hot(vector, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_one_hot(NESTED, vector)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ([0, 1, -1, -1], "one vector of 5 numbers"),
        ([0, 1, -1, -1, 2], "2 at 'activation', expected a whole number from 0 to 1"),
        ([0, 1, -1, -1, -2], "-2 at 'activation'"),
        ([0, 0.5, -1, -1, 0], "0.5 at 'width0'"),
        ([0, -1, -1, -1, 0], "no pick for 'width0'"),
        ([0, 1, 0, -1, 0], "'width1' is not active"),
        ([0, 1, None, -1, 0], "numbers"),
        ([0, 1, np.inf, -1, 0], "finite"),
    ],
)
def test_nonsense_is_not_ordinal(vector, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_ordinal(NESTED, vector)


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ([], "0 are too few, 'depth' is still open"),
        ([0, 4], "2 are too few, 'activation' is still open"),
        ([0, 4, 11, 11], "complete after 3, but 4 are given"),
        ([4, 0, 11], r"4 at position 0, expected one of \[0, 1, 2\] for 'depth'"),
        ([0, 4, 12], "12 at position 2"),
        ([0, 4, -1], "-1 at position 2"),
        ([0, 4, "tanh"], "'tanh' at position 2"),
        ([0, 4, [11]], "position 2"),
    ],
)
def test_nonsense_is_not_a_token_sequence(sequence, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_tokens(NESTED, sequence)


@given(st.lists(st.integers(-1, 12), max_size=6))
def test_any_token_sequence_is_an_architecture_or_refused(sequence):
    try:
        arch = from_tokens(NESTED, sequence)
    except InvalidArchitecture:
        return
    assert tokens(NESTED, arch) == sequence


def test_an_architecture_of_another_space_is_not_encoded():
    for encode in (one_hot, ordinal, tokens, features):
        with pytest.raises(InvalidArchitecture, match="nested/v1"):
            encode(FlatSpace(), SHALLOW)

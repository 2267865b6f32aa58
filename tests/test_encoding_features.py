"""The feature vector for surrogate models."""

from __future__ import annotations

import numpy as np
import pytest

from nas.encoding import feature_names, features, from_one_hot, one_hot, vocabulary_size
from nas.space import enumerate_architectures, from_picks, sample
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain

NESTED = NestedSpace()


def by_name(space, picks):
    vector = features(space, from_picks(space, picks))
    return dict(zip(feature_names(space), vector.tolist(), strict=True))


def test_features_of_a_conditional_space():
    named = by_name(NESTED, {"depth": 1, "width0": 4, "activation": "tanh"})
    labels = [choice.label for choice in NESTED.choices]
    assert [name for name in named if name.endswith(":active")] == [f"{x}:active" for x in labels]
    assert [name for name, value in named.items() if value == 1 and "=" in name] == [
        "depth=1",
        "width0=4",
        "activation=tanh",
    ]
    assert [named[f"{label}:active"] for label in labels] == [1, 1, 0, 0, 1]
    assert "activation:value" not in named


def test_values_are_scaled_and_not_ranked():
    space = Chain(widths=(8, 16, 32, 72), depths=(1, 2))
    picks = {"depth": 1, "conv0/kernel": 5, "conv0/width": 16, "conv0/stride": 1}
    named = by_name(space, picks | {"pool": "none", "dense": 0})
    assert named["conv0/width:value"] == np.float32((16 - 8) / (72 - 8))
    assert named["conv0/kernel:value"] == 1
    assert named["conv0/stride:value"] == 0
    assert named["conv0/stride:active"] == 1
    # What is not active looks like the smallest option, but for its flag.
    assert named["conv1/stride:value"] == 0
    assert named["conv1/stride:active"] == 0
    assert "pool:value" not in named


def test_a_single_number_has_no_scale():
    names = feature_names(Chain(strides=(2,), depths=(1,)))
    assert "conv0/stride=2" in names
    assert "conv0/stride:value" not in names
    assert "depth:value" not in names


@pytest.mark.parametrize("space", [NESTED, FlatSpace()], ids=lambda space: space.name)
def test_features_tell_all_architectures_apart_and_give_them_back(space):
    seen = set()
    for arch in enumerate_architectures(space):
        vector = features(space, arch)
        size = vocabulary_size(space)
        assert (vector[:size] == one_hot(space, arch)).all()
        assert from_one_hot(space, vector[:size]) == arch
        seen.add(vector.tobytes())
    assert len(seen) == sum(1 for _ in enumerate_architectures(space))


def test_a_linear_model_reads_a_sum_of_numbers_it_has_not_seen():
    # The widths' values alone extrapolate; their one-hot part could not.
    space = Chain(depths=(2,), dense=(0,))
    rng = np.random.default_rng(0)
    archs = [sample(space, rng) for _ in range(80)]
    columns = [i for i, name in enumerate(feature_names(space)) if name.endswith("width:value")]
    x = np.array([features(space, arch)[columns] for arch in archs], dtype=float)
    y = np.array([arch["conv0/width"] + arch["conv1/width"] for arch in archs], dtype=float)
    small = (x < 1).all(axis=1)
    assert 10 < small.sum() < 60
    design = np.column_stack([x, np.ones(len(x))])
    weights, *_ = np.linalg.lstsq(design[small], y[small], rcond=None)
    np.testing.assert_allclose(design @ weights, y, rtol=1e-5)

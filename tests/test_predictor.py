"""Surrogate models against independent ones, and their uncertainty against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, rankdata, spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from nas.encoding import path_encoding
from nas.errors import ConfigError, NasError
from nas.pareto import hypervolume_improvement
from nas.predictor import (
    Bagged,
    BayesianRidge,
    GaussianProcess,
    Inputs,
    MlpEnsemble,
    NormalScores,
    SequenceEnsemble,
    normal_scores,
    rank_correlation,
)
from nas.space import enumerate_architectures, sample
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.nasbench201 import NasBench201
from strategies.acquisition import (
    expected_hypervolume_improvement,
    expected_improvement,
    normal_cdf,
    probability_below,
)


def data(n=30, d=6, seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, x @ rng.normal(size=d) + noise * rng.normal(size=n)


# ---------------------------------------------------------------------------------- ridge


@pytest.mark.parametrize("n", [4, 30])
def test_ridge_is_the_gaussian_process_of_its_kernel(n):
    x, y = data(n)
    ridge = BayesianRidge(noises=(0.3,), bias=0.7)
    ridge.fit(x, y)
    kernel = ConstantKernel(ridge.scale, "fixed") * DotProduct(math.sqrt(0.7), "fixed")
    reference = GaussianProcessRegressor(kernel, alpha=0.3 * ridge.scale, optimizer=None).fit(x, y)
    new = np.random.default_rng(1).normal(size=(20, 6))
    mean, std = reference.predict(new, return_std=True)
    found = ridge.predict(new)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.std, std, atol=1e-6)


def test_the_largest_marginal_likelihood_is_taken():
    x, y = data(25, 6)
    x[:, 3:] = np.random.default_rng(5).normal(size=(25, 3))  # a block that says nothing
    y = x[:, :3] @ np.ones(3)
    y = (y - y.mean()) / y.std()
    ridge = BayesianRidge((3, 3), ((1, 0), (1, 1), (0, 1)), (0.01, 0.1, 1.0))
    ridge.fit(x, y)
    assert ridge.profile == (1.0, 0.0)
    assert ridge.noise == 0.01
    # The same choice by an independent evidence: a t distribution with one degree of freedom.
    from scipy.stats import multivariate_t

    evidence = {}
    for profile in ((1, 0), (0.5, 0.5), (0, 1)):
        for noise in (0.01, 0.1, 1.0):
            shares = np.repeat(profile, 3)
            shape = (x * shares) @ x.T + 1.0 + noise * np.eye(25)
            evidence[profile, noise] = multivariate_t.logpdf(y, np.zeros(25), shape, df=1)
    assert max(evidence, key=evidence.get) == ((1, 0), 0.01)


@pytest.mark.parametrize(("n", "d"), [(5, 12), (40, 6)])
def test_one_row_more_is_a_fit_with_it(n, d):
    x, y = data(n + 3, d)
    new = np.random.default_rng(1).normal(size=(20, d))
    whole = BayesianRidge(noises=(0.3,))
    whole.fit(x, y)
    grown = BayesianRidge(noises=(0.3,))
    grown.fit(x[:n], y[:n])
    for row, target in zip(x[n:], y[n:], strict=True):
        before = grown.predict(new)
        covariance, variance = grown.covariance(new, row)
        surprise = target - grown.predict(row[None]).mean[0]
        after = grown.std_after(new, before.std, row[None])
        grown.update(row, target)
        now = grown.predict(new)
        np.testing.assert_allclose(now.mean, before.mean + covariance * surprise / variance)
        np.testing.assert_allclose(now.std, after, rtol=1e-6)
    np.testing.assert_allclose(grown.predict(new).mean, whole.predict(new).mean, atol=1e-8)
    ratio = math.sqrt(grown.scale / whole.scale)
    np.testing.assert_allclose(grown.predict(new).std, ratio * whole.predict(new).std, rtol=1e-6)


def test_ridge_is_calibrated():
    rng = np.random.default_rng(3)
    z = []
    for _ in range(60):
        w = rng.normal(size=8)
        x, new = rng.normal(size=(12, 8)) / 3, rng.normal(size=(20, 8)) / 3
        ridge = BayesianRidge(noises=(0.01, 0.1, 1.0))
        ridge.fit(x, x @ w + 0.1 * rng.normal(size=12))
        mean, std = ridge.predict(new)
        z.append((new @ w - mean) / std)
    inside = [np.mean(np.abs(np.concatenate(z)) < norm.ppf(0.5 + p / 2)) for p in (0.5, 0.9)]
    assert inside[0] == pytest.approx(0.5, abs=0.1)
    assert inside[1] == pytest.approx(0.9, abs=0.07)


def test_single_precision_rows_give_nearly_the_same():
    x, y = data(20)
    ridge = BayesianRidge()
    ridge.fit(x, y)
    one, other = ridge.predict(x), ridge.predict(x.astype(np.float32))
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-5)
    np.testing.assert_allclose(one.std, other.std, atol=1e-4)


# -------------------------------------------------------------------- the other models


def test_gaussian_process_equals_scikit_learns():
    x, y = data(25, 3)
    model = GaussianProcess()
    model.fit(x, y)
    kernel = ConstantKernel(model.scale, "fixed") * RBF(model.length, "fixed")
    noise = WhiteKernel(model.noise * model.scale, "fixed")
    reference = GaussianProcessRegressor(kernel + noise, alpha=0.0, optimizer=None)
    reference.fit(x, y - y.mean())
    new = np.random.default_rng(1).normal(size=(20, 3))
    mean, std = reference.predict(new, return_std=True)
    found = model.predict(new)
    np.testing.assert_allclose(found.mean, mean + y.mean(), atol=1e-6)
    # Scikit-learn's deviation is that of a measurement, ours that of the function.
    noisy = np.sqrt(found.std**2 + model.noise * model.scale)
    np.testing.assert_allclose(noisy, std, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [BayesianRidge(), GaussianProcess(), Bagged(), MlpEnsemble(members=3, layers=2, epochs=60)],
    ids=lambda model: type(model).__name__,
)
def test_models_learn_and_know_where_they_know(model):
    with pytest.raises(NasError, match="before fit"):
        model.predict(np.zeros((1, 6)))
    x, y = data(60)
    model.fit(x[:40], y[:40])
    said = model.predict(x)
    assert spearmanr(said.mean[40:], y[40:]).statistic > 0.85
    assert (said.std >= 0).all()
    far = model.predict(10 * x[40:])
    assert far.std.mean() > 2 * said.std[40:].mean() or isinstance(model, GaussianProcess)
    settings = ("members", "layers", "epochs")
    again = type(model)(**{key: value for key, value in vars(model).items() if key in settings})
    again.fit(x[:40], y[:40])
    np.testing.assert_array_equal(again.predict(x).mean, said.mean)
    for wrong in ([np.nan] * 40, [1.0] * 39):
        with pytest.raises(ConfigError):
            model.fit(x[:40], wrong)


@pytest.mark.parametrize("reader", ["lstm", "mlp"])
def test_sequences_of_other_lengths_are_ranked(reader):
    rng = np.random.default_rng(0)
    rows = np.full((120, 6), -1)
    for row in rows:
        length = 2 * int(rng.integers(1, 4))
        row[:length] = rng.integers(5, size=length)
    worth = np.array([row[row >= 0].mean() for row in rows])
    short = (rows >= 0).sum(axis=1) < 6
    model = SequenceEnsemble(5, reader, period=2, members=2, units=16, epochs=40)
    model.fit(rows[short], worth[short])
    said = model.predict(rows[~short])
    assert spearmanr(said.mean, worth[~short]).statistic > 0.6
    with pytest.raises(ConfigError, match="from 0 to 4"):
        model.predict(np.array([[5]]))


# --------------------------------------------------------------------------------- targets


def test_normal_scores():
    values = np.random.default_rng(0).normal(size=40).round(1)
    blom = norm.ppf((rankdata(np.unique(values)) - 0.375) / (len(np.unique(values)) + 0.25))
    np.testing.assert_allclose(normal_scores(np.unique(values)), blom)
    scores = normal_scores(values)
    for value in values:
        assert len(set(scores[values == value])) == 1
    assert normal_scores(np.unique(values)).sum() == pytest.approx(0.0, abs=1e-9)
    # Outliers do not rule.
    wild = np.where(values == values.min(), -1e9, values)
    np.testing.assert_array_equal(normal_scores(wild), scores)


def test_the_score_of_another_value_is_its_score_among_them():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    scores = NormalScores(values)
    for new in (0.0, 2.0, 10.0):
        assert scores.of(new) == pytest.approx(normal_scores([*values, new])[-1])


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(2)
    one, other = rng.integers(5, size=30), rng.integers(5, size=30)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation([1, 1], [1, 2]) is None


# ---------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace()], ids=lambda space: space.name)
def test_rows_are_centred_blocks_of_equal_size(space):
    whole = list(enumerate_architectures(space))
    inputs = Inputs(space, ("options", "counts", "numbers", "paths", "interactions"), whole)
    assert "paths" not in inputs.names
    rows = inputs(whole)
    np.testing.assert_allclose(rows, inputs.rows, atol=1e-6)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-5)
    start = 0
    for width in inputs.widths:
        block = rows[:, start : start + width]
        assert (block**2).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-4)
        start += width
    assert start == rows.shape[1]
    assert len(np.unique(rows, axis=0)) == len(whole)


def test_paths_are_those_of_the_path_encoding():
    space = NasBench201()
    rng = np.random.default_rng(0)
    archs = [sample(space, rng) for _ in range(200)]
    inputs = Inputs(space, ("paths",), archs)
    reference = np.stack([path_encoding(space, arch) for arch in archs])
    reference = reference[:, reference.std(axis=0) > 0]
    reference = reference - reference.mean(axis=0)
    scale = math.sqrt((reference**2).sum(axis=1).mean())
    np.testing.assert_allclose(inputs(archs), reference / scale, atol=1e-5)


def test_counts_do_not_know_places():
    space = NasBench201()
    inputs = Inputs(space, ("counts", "pairs"))
    rng = np.random.default_rng(0)
    arch = sample(space, rng)
    options = [option for _, option in arch.picks]
    moved = type(arch)(arch.space, tuple(zip(arch, reversed(options), strict=True)))
    rows = inputs([arch, moved])
    np.testing.assert_array_equal(rows[0], rows[1])
    assert inputs.widths == (5, 15)


def test_unknown_blocks_are_refused():
    with pytest.raises(ConfigError, match=r"'optons'.*'options'"):
        Inputs(FlatSpace(), ("optons",))


# ---------------------------------------------------------------------------- acquisitions


def test_normal_distribution_function_also_far_out():
    u = np.linspace(-30, 8, 400)
    np.testing.assert_allclose(normal_cdf(u), norm.cdf(u), rtol=3e-7)


def test_expected_improvement_is_the_integral():
    mean, std = np.array([0.0, 1.0, -3.0, 2.0]), np.array([1.0, 0.5, 0.7, 0.0])
    draws = mean + std * np.random.default_rng(0).normal(size=(400_000, 4))
    expected = np.maximum(draws - 0.8, 0).mean(axis=0)
    np.testing.assert_allclose(expected_improvement(mean, std, 0.8), expected, atol=4e-3)
    np.testing.assert_allclose(
        probability_below(mean, std, 0.8), (draws <= 0.8).mean(axis=0), atol=4e-3
    )


def test_expected_hypervolume_improvement_against_monte_carlo():
    rng = np.random.default_rng(0)
    front = np.array([[0.1, 0.9], [0.4, 0.5], [0.8, 0.2], [0.9, 0.9], [2.0, 0.1]])
    mean, std = rng.uniform(0, 1.2, size=(6, 2)), rng.uniform(0.05, 0.5, size=(6, 2))
    std[0, 1] = 0.0
    found = expected_hypervolume_improvement(mean, std, front, (1.0, 1.1))
    for row in range(6):
        draws = mean[row] + std[row] * rng.normal(size=(100_000, 2))
        gains = hypervolume_improvement(draws, front, (1.0, 1.1))
        error = 5 * gains.std() / math.sqrt(len(gains)) + 1e-9
        assert found[row] == pytest.approx(gains.mean(), abs=error)
    known = expected_hypervolume_improvement(mean, 0 * std, front, (1.0, 1.1))
    np.testing.assert_allclose(known, hypervolume_improvement(mean, front, (1.0, 1.1)), atol=1e-12)
    empty = expected_hypervolume_improvement([[0.5, 0.5]], [[0.0, 0.0]], [], (1.0, 1.0))
    assert empty[0] == pytest.approx(0.25)

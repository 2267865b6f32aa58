"""Fitted surrogates: validated, calibrated, honest about what they have not seen, and stored."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, norm
from surrogate_workloads import ACCURACY, toy_measurements

from nas.architecture import Architecture
from nas.components import create
from nas.errors import ConfigError, InvalidArchitecture, NasError, UnsupportedRequest
from nas.predictor import (
    Prediction,
    fit_surrogate,
    from_pairs,
    from_table,
)
from nas.predictor.surrogate import nearest_distances, positions_of
from nas.predictor.validation import (
    LEVELS,
    Scaling,
    agreement,
    cross_validated,
    folds_of,
    scaling,
)
from nas.space import enumerate_architectures, sample
from nas.tables import load
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.nasbench201 import NasBench201

MODELS = ("ridge", "gp_hamming", "forest")


def digits_table():
    table = load("digits")
    space = create("spaces", dict(table.space), "space")
    return space, from_table(table, space, "test_accuracy"), from_table(table, space, "macs")


# ------------------------------------------------------------------------------------- fitting


@pytest.mark.parametrize("name", MODELS)
def test_it_ranks_a_real_table_better_than_the_macs_do(name):
    _, accuracy, macs = digits_table()
    settings = {"trees": 50} if name == "forest" else {}
    surrogate = fit_surrogate(accuracy.some(200), name, folds=2, settings=settings)
    others = surrogate.unseen(accuracy)
    assert len(others.archs) == len(accuracy.archs) - 200
    found = surrogate.agreement(others)
    assert found.kendall == pytest.approx(
        kendalltau(surrogate.predict(others.archs).mean, others.values).statistic
    )
    counted = kendalltau(macs.values, accuracy.values).statistic
    assert found.kendall > counted + 0.2
    assert found.kendall_low < found.kendall < found.kendall_high
    assert found.coverage["0.8"] == pytest.approx(0.8, abs=0.12)
    assert found.coverage["0.95"] == pytest.approx(0.95, abs=0.06)
    assert found.nll < found.nll_of_guess


def test_it_ranks_nasbench201_better_than_the_macs_do(benchmark_data):
    space = NasBench201()
    table = load(benchmark_data("nb201.npz"))
    column = table.dataset("cifar10")
    worth = table.quantities["test_accuracy"].values[column, :, 0, -1]
    counted = kendalltau(table.counts["macs"][column], worth).statistic
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(table))[:1000]
    known, others = (
        from_pairs(
            space,
            [(Architecture(space.name, table.row_picks(row)), worth[row]) for row in part],
            ACCURACY,
        )
        for part in (rows[:200], rows[200:])
    )
    surrogate = fit_surrogate(known, "ridge")
    found = surrogate.agreement(others)
    assert found.kendall > counted + 0.05
    assert surrogate.validation.agreement.kendall == pytest.approx(found.kendall, abs=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_measurements_plays_no_part(name):
    space = NestedSpace()
    measured = toy_measurements(space, 40)
    pairs = list(zip(measured.archs, measured.values, strict=True))
    again = from_pairs(space, reversed(pairs), ACCURACY)
    assert again.archs == measured.archs
    archs = list(enumerate_architectures(space))
    settings = {"trees": 10} if name == "forest" else {}
    one, other = (
        fit_surrogate(m, name, seed=3, settings=settings).predict(archs) for m in (measured, again)
    )
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)


def test_cross_validation_shows_no_model_its_own_rows():
    class Remembers:
        """Right about rows it was fitted to, and says 0 of others."""

        def fit(self, inputs, targets):
            self.known = {float(row[0]): t for row, t in zip(inputs, targets, strict=True)}

        def predict(self, inputs):
            said = np.array([self.known.get(float(row[0]), 0.0) for row in inputs])
            return Prediction(said, np.full(len(said), 1.0))

    rows = np.arange(60.0)[:, None]
    values = np.random.default_rng(0).normal(size=60)
    found = cross_validated(Remembers, rows, values, "values")
    assert found.agreement.kendall != 1.0
    assert abs(found.agreement.kendall) < 0.35
    fold = folds_of(60, 5, 0)
    assert sorted(np.bincount(fold)) == [12] * 5
    # Of a row left out the model says the mean of the rest.
    for out in range(5):
        rest = values[fold != out].mean()
        np.testing.assert_allclose(found.said.mean[fold == out], rest)


def test_scaling_finds_what_a_deviation_lacks():
    rng = np.random.default_rng(0)
    std = rng.uniform(0.2, 2.0, size=4000)
    truth = np.sqrt((3.0 * std) ** 2 + 0.5**2)
    values = truth * rng.normal(size=4000)
    said = Prediction(np.zeros(4000), std)
    found = scaling(said, values)
    assert found.factor == pytest.approx(3.0, rel=0.15)
    scaled = found(said)
    for level in LEVELS:
        inside = np.abs(values) <= norm.ppf(0.5 + level / 2) * scaled.std
        assert inside.mean() == pytest.approx(level, abs=0.03)
    flat = scaling(Prediction(np.zeros(4000), rng.uniform(size=4000)), rng.normal(size=4000))
    assert flat.noise == pytest.approx(1.0, abs=0.1)


def test_agreement_is_what_it_says():
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    said = Prediction(values + 0.5 * rng.normal(size=300), np.full(300, 0.5))
    found = agreement(said, values, said, values)
    assert found.nll == pytest.approx(-norm.logpdf(values, said.mean, 0.5).mean())
    assert found.nll_of_guess == pytest.approx(
        -norm.logpdf(values, values.mean(), values.std()).mean()
    )
    assert found.rmse == pytest.approx(math.sqrt(((values - said.mean) ** 2).mean()))
    for level in LEVELS:
        low, high = norm.interval(level, said.mean, 0.5)
        assert found.coverage[f"{level:g}"] == ((low <= values) & (values <= high)).mean()
    same = Prediction(np.zeros(300), np.ones(300))
    assert agreement(same, values, same, values).kendall == 0.0


def test_what_cannot_be_fitted_is_refused():
    space = FlatSpace()
    measured = toy_measurements(space, 40)
    with pytest.raises(ConfigError, match=r"9 measured architectures are too few.*at least 10"):
        fit_surrogate(measured.some(9))
    with pytest.raises(ConfigError, match=r"at least 40 are needed for 20 folds"):
        fit_surrogate(measured.some(24), folds=20)
    flat = replace(measured, values=np.full(len(measured.archs), 0.5))
    with pytest.raises(NasError, match=r"accuracy is 0.5 for all .* nothing to learn"):
        fit_surrogate(flat)
    with pytest.raises(ConfigError, match=r"'trees'"):
        fit_surrogate(measured, settings={"tree": 3})
    with pytest.raises(UnsupportedRequest, match="cells"):
        fit_surrogate(measured, "gp_path")
    many = replace(measured, archs=measured.archs * 90, values=np.tile(measured.values, 90))
    with pytest.raises(UnsupportedRequest, match=r"more than the 2000 that 'gp_hamming'"):
        fit_surrogate(many, "gp_hamming")


# ------------------------------------------------------------------------------- extrapolation


def test_an_option_never_seen_is_named_and_makes_it_unsure():
    space = NasBench201()
    rng = np.random.default_rng(0)
    archs = [sample(space, rng) for _ in range(400)]
    known = [a for a in archs if a["0->1"] != "none" and a["2->3"] != "avg_pool_3x3"][:120]
    values = [sum("conv" in o for _, o in a.picks) + 0.1 * rng.normal() for a in known]
    surrogate = fit_surrogate(from_pairs(space, zip(known, values, strict=True), ACCURACY), "ridge")
    inside = known[0]
    picks = inside.as_dict()
    outside = Architecture(
        space.name, tuple((picks | {"0->1": "none", "2->3": "avg_pool_3x3"}).items())
    )
    one, other = surrogate.judge([inside, outside])
    assert (one.distance, one.unseen, one.extrapolates) == (0, (), False)
    assert other.unseen == ("0->1=none", "2->3=avg_pool_3x3")
    assert other.extrapolates
    assert other.distance in (1, 2)
    assert other.std > 2 * one.std
    assert other.high - other.low > 0.9 * 2 * 1.96 * np.std(values)
    assert one.low < one.mean < one.high
    assert surrogate.judge([inside])[0].mean == pytest.approx(one.mean)


def test_beyond_the_reach_of_what_was_fitted_is_extrapolation():
    space = NasBench201()
    # Cells of one operation only: each option is seen at each edge, but no two together.
    labels = [choice.label for choice in space.choices]
    archs = []
    for operation in set(space.choices[0].options) - {"none"}:
        for place in range(6):
            options = [operation] * 6
            options[place] = "none"
            archs.append(Architecture(space.name, tuple(zip(labels, options, strict=True))))
    archs.sort(key=Architecture.to_json)
    values = [float(sum(o != "none" for _, o in a.picks)) + 0.01 * i for i, a in enumerate(archs)]
    surrogate = fit_surrogate(from_pairs(space, zip(archs, values, strict=True), ACCURACY), "ridge")
    options = ("skip_connect", "nor_conv_1x1", "avg_pool_3x3") * 2
    mixed = Architecture(space.name, tuple(zip(labels, options, strict=True)))
    (judged,) = surrogate.judge([mixed])

    def distance(one, other):
        return sum(a != b for a, b in zip(one.picks, other.picks, strict=True))

    assert judged.distance == min(distance(mixed, arch) for arch in archs) == 4
    apart = [min(distance(a, b) for b in archs if b is not a) for a in archs]
    assert surrogate.reach == max(apart) < 4
    assert not judged.unseen
    assert judged.extrapolates
    (near,) = surrogate.judge([archs[0]])
    assert not near.extrapolates


def test_distances_are_those_of_pairs():
    space = NestedSpace()
    archs = list(enumerate_architectures(space))[:40]
    rows = positions_of(space, archs)

    def distance(one, other):
        one, other = one.as_dict(), other.as_dict()
        return sum(one.get(c.label) != other.get(c.label) for c in space.choices)

    found = nearest_distances(rows[:10], rows[10:])
    assert found.tolist() == [min(distance(a, b) for b in archs[10:]) for a in archs[:10]]
    apart = nearest_distances(rows, rows, apart=True)
    by_hand = [min(distance(a, b) for b in archs if b is not a) for a in archs]
    assert apart.tolist() == by_hand


def test_an_architecture_of_another_space_is_refused():
    surrogate = fit_surrogate(toy_measurements(FlatSpace(), 40), "ridge")
    alien = next(enumerate_architectures(NestedSpace()))
    with pytest.raises(InvalidArchitecture):
        surrogate.predict([alien])


def test_scaling_is_a_value():
    said = Scaling(2.0, 1.0)(Prediction(np.array([1.0]), np.array([0.0])))
    assert (said.mean.item(), said.std.item()) == (1.0, 1.0)

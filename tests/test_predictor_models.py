"""The named models: equal to independent computations, storable, and laws of their rows."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import cho_factor, cho_solve
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from nas.encoding import graph_tensors, path_encoding
from nas.errors import ConfigError, NasError, UnsupportedRequest
from nas.predictor import (
    BayesianRidge,
    GradientBoosting,
    GraphEnsemble,
    GraphInputs,
    RandomForest,
    normal_scores,
)
from nas.predictor.graph_inputs import unpacked
from nas.predictor.models import MODELS, make_inputs, make_model, restored, settings_of
from nas.predictor.targets import Scored, Standardised, in_unit, scale_of
from nas.predictor.trees import Trees
from nas.space import sample
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain
from search_spaces.darts import Darts
from search_spaces.nasbench101 import NasBench101
from search_spaces.nasbench201 import NasBench201

SMALL = {
    "mlp": {"members": 2, "layers": 2, "epochs": 3},
    "graph": {"members": 2, "units": 8, "hidden": 8, "epochs": 3},
    "boosting": {"trees": 10},
    "forest": {"trees": 10},
}


def archs_of(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(space, rng) for _ in range(n)]


def worth(arch):
    """Convolutions are good, and the direct link is."""
    return sum("conv" in str(option) for _, option in arch.picks) + 0.5 * (
        arch["0->3"] == "skip_connect"
    )


def fitted(name, space, archs, values):
    inputs = make_inputs(name, space)
    model = make_model(name, inputs, 0, SMALL.get(name))
    model.fit(inputs(archs), np.asarray(values))
    return inputs, model


# -------------------------------------------------------------------------------------- trees


def tree_data(n=80, d=7, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, size=(n, d)) + rng.random((n, d)).round(2) * 0.3
    return x, x[:, 0] * x[:, 1] + 0.1 * rng.normal(size=n)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_forest_says_what_scikit_learns_says(seed):
    x, y = tree_data()
    model = RandomForest(30, seed)
    model.fit(x, y)
    reference = RandomForestRegressor(30, random_state=seed).fit(x.astype(np.float32), y)
    new, _ = tree_data(5000, seed=1)
    said = model.predict(new)
    np.testing.assert_allclose(said.mean, reference.predict(new.astype(np.float32)), rtol=1e-12)
    each = [tree.predict(new.astype(np.float32)) for tree in reference.estimators_]
    np.testing.assert_allclose(said.std, np.std(each, axis=0, ddof=1), rtol=1e-9)


def test_boosting_is_the_mean_of_scikit_learns_on_rows_drawn_with_replacement():
    x, y = tree_data()
    model = GradientBoosting(members=3, trees=20, seed=5)
    model.fit(x, y)
    rng = np.random.default_rng([5, len(x)])
    each = []
    new, _ = tree_data(200, seed=1)
    for member in range(3):
        drawn = rng.integers(len(x), size=len(x))
        reference = GradientBoostingRegressor(n_estimators=20, random_state=5 + member)
        each.append(reference.fit(x[drawn].astype(np.float32), y[drawn]).predict(new))
    said = model.predict(new)
    np.testing.assert_allclose(said.mean, np.mean(each, axis=0), rtol=1e-6)
    np.testing.assert_allclose(said.std, np.std(each, axis=0, ddof=1), rtol=1e-4, atol=1e-7)


def test_trees_that_run_in_circles_are_refused():
    x, y = tree_data()
    model = RandomForest(3)
    model.fit(x, y)
    state = model.state_dict()
    again = Trees.from_arrays(state)
    np.testing.assert_array_equal(
        again.each(x.astype(np.float32)).mean(axis=1), model.predict(x)[0]
    )
    for key, value in (("left", 0), ("right", 10**6), ("feature", 99)):
        wrong = {name: array.copy() for name, array in state.items()}
        wrong[key][0] = value
        with pytest.raises(ConfigError, match="trees"):
            Trees.from_arrays(wrong)


# -------------------------------------------------------------------------- Gaussian processes


def gp_by_hand(distances, cross, values, model, unit_length):
    """The posterior mean and deviation of a process on squared distances, by other means."""
    kernel = np.exp(-0.5 * distances / unit_length**2)
    factor = cho_factor(kernel + model.noise * np.eye(len(values)))
    residual = values - values.mean()
    against = np.exp(-0.5 * cross / unit_length**2)
    mean = values.mean() + against @ cho_solve(factor, residual)
    variance = 1.0 - np.einsum("ij,ji->i", against, cho_solve(factor, against.T))
    scale = residual @ cho_solve(factor, residual) / len(values)
    return mean, np.sqrt(scale * variance)


@pytest.mark.parametrize("name", ["gp_hamming", "gp_path"])
def test_kernels_are_of_the_hamming_and_of_the_path_distance(name):
    space = NasBench201()
    archs, new = archs_of(space, 40), archs_of(space, 15, 1)
    values = np.array([worth(arch) for arch in archs])
    inputs, model = fitted(name, space, archs, values)

    def distance(one, other):
        if name == "gp_hamming":
            return float(sum(a != b for a, b in zip(one.picks, other.picks, strict=True)))
        # What no reference architecture differs in is no feature: the constant paths.
        return float(np.abs(path_encoding(space, one) - path_encoding(space, other)).sum())

    among = np.array([[distance(a, b) for b in archs] for a in archs])
    cross = np.array([[distance(a, b) for b in archs] for a in new])
    # Rows are scaled; which multiple of the distance they are follows from any two of them.
    rows = inputs(archs)
    far = np.unravel_index(among.argmax(), among.shape)
    scale = float(((rows[far[0]] - rows[far[1]]) ** 2).sum()) / among[far]
    mean, std = gp_by_hand(among, cross, values, model, model.length / np.sqrt(scale))
    said = model.predict(inputs(new))
    np.testing.assert_allclose(said.mean, mean, atol=1e-4)
    np.testing.assert_allclose(said.std, std, atol=1e-4)


# ------------------------------------------------------------------------------ graph networks


@pytest.mark.parametrize("space", [NasBench201(), NasBench101(), Darts()], ids=lambda s: s.name)
def test_graph_rows_hold_the_graphs(space):
    inputs = GraphInputs(space)
    archs = archs_of(space, 6)
    graphs = unpacked(inputs(archs), inputs.cells, inputs.operations)
    for row, arch in enumerate(archs):
        for cell, encoded in enumerate(graph_tensors(space, arch).values()):
            size = len(encoded.operations)
            np.testing.assert_array_equal(graphs.operations[row, cell, :size], encoded.operations)
            assert not graphs.operations[row, cell, size:].any()
            links = {tuple(pair) for pair in np.argwhere(graphs.links[row, cell]).tolist()}
            assert links == {tuple(pair) for pair in encoded.edge_index.T.tolist()}


def test_graph_networks_learn_and_padding_says_nothing():
    space = NasBench201()
    archs, new = archs_of(space, 60), archs_of(space, 100, 1)
    inputs = GraphInputs(space)
    before = torch.get_rng_state()
    model = GraphEnsemble(
        inputs.cells, inputs.operations, members=2, units=24, hidden=24, epochs=60, lr=0.003
    )
    model.fit(inputs(archs), normal_scores([worth(arch) for arch in archs]))
    assert torch.equal(before, torch.get_rng_state())
    said = model.predict(inputs(new))
    assert np.corrcoef(said.mean, [worth(arch) for arch in new])[0, 1] > 0.8
    assert (said.std > 0).all()
    # The same graphs with three vertices that are not there.
    links, operations = unpacked(inputs(new), inputs.cells, inputs.operations)
    links = np.pad(links, ((0, 0), (0, 0), (0, 3), (0, 3)))
    operations = np.pad(operations, ((0, 0), (0, 0), (0, 3), (0, 0)))
    padded = np.concatenate([p.reshape(len(new), 1, -1) for p in (links, operations)], axis=2)
    again = model.predict(padded.reshape(len(new), -1))
    np.testing.assert_allclose(again.mean, said.mean, atol=1e-5)
    np.testing.assert_allclose(again.std, said.std, atol=1e-5)


def test_the_order_of_vertices_says_nothing():
    space = NasBench201()
    inputs = GraphInputs(space)
    archs = archs_of(space, 20)
    model = GraphEnsemble(inputs.cells, inputs.operations, members=2, units=8, hidden=8, epochs=3)
    model.fit(inputs(archs), np.arange(20.0))
    links, operations = unpacked(inputs(archs), inputs.cells, inputs.operations)
    order = np.random.default_rng(0).permutation(links.shape[-1])
    shuffled = np.concatenate(
        [
            links[:, :, order][:, :, :, order].reshape(20, -1),
            operations[:, :, order].reshape(20, -1),
        ],
        axis=1,
    )
    np.testing.assert_allclose(
        model.predict(shuffled).mean, model.predict(inputs(archs)).mean, atol=1e-5
    )
    with pytest.raises(ConfigError, match="graphs"):
        model.predict(shuffled[:, :-1])


# ----------------------------------------------------------------------------------- by name


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_predicts_equal_to_the_bit(name):
    space = NasBench201()
    archs, new = archs_of(space, 30), archs_of(space, 25, 1)
    inputs, model = fitted(name, space, archs, [worth(arch) for arch in archs])
    said = model.predict(inputs(new))
    assert said.mean.shape == said.std.shape == (25,)
    settings = settings_of(name, inputs, model)
    again_inputs, again = restored(name, space, settings, inputs.state_dict(), model.state_dict())
    found = again.predict(again_inputs(new))
    np.testing.assert_array_equal(found.mean, said.mean)
    np.testing.assert_array_equal(found.std, said.std)
    assert settings_of(name, again_inputs, again) == settings
    order = np.random.default_rng(0).permutation(25)
    moved = model.predict(inputs([new[i] for i in order]))
    np.testing.assert_allclose(moved.mean, said.mean[order], atol=1e-6)
    np.testing.assert_allclose(moved.std, said.std[order], atol=1e-5)
    with pytest.raises(NasError, match="before fit"):
        make_model(name, inputs).state_dict()


@pytest.mark.parametrize("n", [5, 40])
def test_a_ridge_that_took_rows_one_by_one_is_stored_as_it_is(n):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(n, 8)), rng.normal(size=n), rng.normal(size=(10, 8))
    ridge, again = BayesianRidge(), BayesianRidge()
    ridge.fit(x, y)
    ridge.update(new[0], 1.0)
    state = ridge.state_dict()
    said = ridge.predict(new)
    ridge.update(new[1], -1.0)  # what was given out before does not change with it
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.predict(new).mean, said.mean)
    np.testing.assert_array_equal(again.predict(new).std, said.std)
    again.update(new[1], -1.0)
    np.testing.assert_array_equal(again.predict(new).mean, ridge.predict(new).mean)


def test_what_is_heavy_is_imported_by_the_model_that_needs_it():
    code = (
        "import sys, nas.cli, nas.predictor.models; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace(), Chain()], ids=lambda s: s.name)
def test_models_of_picks_are_for_any_space(space):
    archs = archs_of(space, 24)
    for name in ("ridge", "gp_hamming", "forest", "boosting", "mlp"):
        inputs, model = fitted(name, space, archs, range(24))
        assert np.isfinite(model.predict(inputs(archs))).all()
    for name in ("gp_path", "graph"):
        with pytest.raises(UnsupportedRequest, match="cells"):
            make_inputs(name, space)


def test_unknown_names_and_settings_are_refused():
    inputs = make_inputs("forest", FlatSpace())
    with pytest.raises(ConfigError, match=r"'forrest'.*'forest'"):
        make_inputs("forrest", FlatSpace())
    with pytest.raises(ConfigError, match=r"'tree'.*'trees'"):
        make_model("forest", inputs, 0, {"tree": 5})
    with pytest.raises(ConfigError, match="trees must be at least 2, got 1"):
        make_model("forest", inputs, 0, {"trees": 1})
    with pytest.raises(ConfigError, match="do not fit"):
        make_model("forest", inputs, 0, {"trees": "many"})


# ----------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("name", ["scores", "values"])
def test_scales_lead_back(name):
    values = np.random.default_rng(0).normal(size=50).round(1) ** 3
    scale = scale_of(name, values)
    np.testing.assert_allclose(scale.of(values), scale.learnt, atol=1e-12)
    inside = np.linspace(values.min(), values.max(), 99)
    np.testing.assert_allclose(scale.values(scale.of(inside)), inside, atol=1e-9)
    assert (np.diff(scale.of(inside)) > 0).all()
    assert scale.values(scale.learnt.max() + 1.0) > values.max()
    assert scale.values(scale.learnt.min() - 1.0) < values.min()
    with pytest.raises(ConfigError, match="'score'"):
        scale_of("score", values)


def test_one_failure_far_away_does_not_rule_what_is_learnt_of_scores():
    values = np.random.default_rng(0).normal(0.9, 0.01, size=40)
    scores = scale_of("scores", values).of([0.1, 0.5, values.min(), values.max(), 5.0])
    assert scores[0] == scores[1] == pytest.approx(scores[2] - 1.0)
    assert scores[4] == pytest.approx(scores[3] + 1.0)


def test_means_and_deviations_are_taken_back_to_the_unit():
    from nas.predictor import Prediction

    values = np.random.default_rng(0).exponential(size=200)
    said = Prediction(np.array([0.3, -1.0]), np.array([0.5, 0.1]))
    straight = in_unit(said, Standardised(values))
    np.testing.assert_allclose(straight.mean, values.mean() + values.std() * said.mean)
    np.testing.assert_allclose(straight.std, values.std() * said.std)
    scored = Scored(values)
    draws = scored.values(said.mean + said.std * np.random.default_rng(1).normal(size=(200_000, 2)))
    bent = in_unit(said, scored)
    np.testing.assert_allclose(bent.mean, draws.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(bent.std, draws.std(axis=0), rtol=0.06)

"""Latency from whole networks: a made-up device is learnt, and files say what is wrong."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluators.latency import LatencyEvaluator
from nas.cli import app
from nas.encoding import ordinal
from nas.errors import ConfigError, DataError, InvalidArchitecture, UnsupportedRequest
from nas.latency.files import read
from nas.latency.rows import LatencyRows
from nas.latency.whole import Recipe, WholeNetworkFit, errors, fitted, read_fit
from nas.latency.whole_files import read_measurements
from nas.space import format_architecture, sample
from nas.testing import EvaluatorContract
from search_spaces.mbconv import MBConv, Stage, fbnet
from search_spaces.nasbench201 import NasBench201

SPACE = NasBench201(channels=4, cells=1)
TAKES = {"none": 0.0, "skip_connect": 0.1, "nor_conv_1x1": 1.0, "nor_conv_3x3": 2.5,
         "avg_pool_3x3": 0.8}  # fmt: skip


@functools.cache
def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(sample(SPACE, rng) for _ in range(count))


def device(archs, noise=0.0, seed=0):
    """A device that adds up what operations take, some edges being faster than others."""
    rng = np.random.default_rng(seed)
    sums = [
        3.0 + sum(TAKES[op] * (1 + 0.05 * edge) for edge, (_, op) in enumerate(arch.picks))
        for arch in archs
    ]
    return np.array(sums) * np.exp(noise * rng.standard_normal(len(archs)))


@functools.cache
def rows():
    return LatencyRows(SPACE)


@functools.cache
def fit(noise=0.0):
    return fitted(SPACE, drawn(60), device(drawn(60), noise), "made up", rows=rows())


def test_a_sum_over_operations_is_learnt():
    others = drawn(100, seed=1)
    mean, deviation = fit().predict_many(SPACE, others)
    found = errors(mean, deviation, device(others))
    assert found.mape < 1.0
    assert found.spearman is not None
    assert found.spearman > 0.995
    assert found.within_10 == 1.0
    assert fit().predict(SPACE, others[0]) == pytest.approx(mean[0], rel=1e-9)
    assert fit().deviation(SPACE, others[0]) == pytest.approx(deviation[0], rel=1e-9)


def test_deviations_are_about_as_large_as_the_errors():
    others = drawn(300, seed=1)
    mean, deviation = fit(0.05).predict_many(SPACE, others)
    found = errors(mean, deviation, device(others, 0.05, seed=1))
    assert 0.5 < found.within_deviation < 0.85
    assert 3.0 < found.mape < 6.0  # noise of 5 % has a mean absolute value of 4 %


def test_outliers_do_not_move_the_fit():
    archs = drawn(60)
    stalled = device(archs)
    stalled[::10] *= 4.0
    found = fitted(SPACE, archs, stalled, rows=rows())
    assert found.recipe.robust
    unguarded = replace(found.recipe, robust=False)
    other = WholeNetworkFit(
        SPACE, archs, stalled, unguarded, found.validation, found.spread, rows=rows()
    )
    others = drawn(100, seed=1)
    mape = [errors(*one.predict_many(SPACE, others), device(others)).mape for one in (found, other)]
    assert mape[0] < mape[1] / 1.5


def test_errors_are_what_they_say():
    found = errors([1.0, 2.0, 3.3], [0.05, 0.6, 0.1], [1.0, 2.5, 2.9])
    assert found.count == 3
    assert found.mape == pytest.approx(100 * (0.2 + 0.4 / 2.9) / 3)
    assert found.rmse == pytest.approx(((0.25 + 0.16) / 3) ** 0.5)
    assert found.spearman == pytest.approx(1.0)
    assert found.within_10 == pytest.approx(1 / 3)
    assert found.within_deviation == pytest.approx(2 / 3)


def test_blocks_of_features_are_scaled_alike():
    blocks = rows()(drawn(400, seed=2))
    assert set(blocks) == {"options", "counts", "pairs", "interactions", "work"}
    for block in blocks.values():
        assert 0.5 < (block**2).sum(axis=1).mean() < 2.0


def test_a_space_of_numbers_is_fitted_too():
    stage = Stage(("ir",), (8,), (1, 2), kernels=(3, 5), expansions=(3, 6))
    space = MBConv((stage, stage), stem=8, head=16, widths=(50, 100), input=(1, 8, 8))
    rng = np.random.default_rng(0)
    archs = [sample(space, rng) for _ in range(80)]
    takes = np.array([1.0 + sum(float(v) for _, v in arch.picks) / 50 for arch in archs])
    found = fitted(space, archs[:50], takes[:50])
    mean, deviation = found.predict_many(space, archs[50:])
    assert errors(mean, deviation, takes[50:]).mape < 3.0


# ------------------------------------------------------------------------------------ files


def test_a_file_gives_the_same_fit(tmp_path):
    fit(0.05).save(tmp_path / "fit.json")
    again = read_fit(tmp_path / "fit.json", SPACE)
    for one, other in zip(
        fit(0.05).predict_many(SPACE, drawn(20, seed=1)),
        again.predict_many(SPACE, drawn(20, seed=1)),
        strict=True,
    ):
        assert other == pytest.approx(one, rel=1e-9)
    assert (again.recipe, again.validation, again.device) == (
        fit(0.05).recipe,
        fit(0.05).validation,
        "made up",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "nasforge latency tabel"}, "is no fit of latency"),
        ({"version": 2}, "version 2.*fit again"),
        ({"latency_ms": [1.0]}, "damaged|1"),
        ({"latency_ms": None}, "damaged|given"),
        ({"spread_ms": "much"}, "damaged"),
        ({"recipe": {"blocks": ["options"], "model": "magic", "scale": "ms"}}, "damaged"),
        ({"recipe": {"blocks": ["poetry"], "model": "ridge", "scale": "ms"}}, "damaged"),
        ({"architectures": [[9] * 6] * 60}, "damaged"),
    ],
)
def test_a_damaged_file_is_one_error(tmp_path, change, message):
    file = tmp_path / "fit.json"
    fit().save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        read_fit(file, SPACE)


def test_a_torn_file_and_a_missing_one_are_one_error(tmp_path):
    file = tmp_path / "fit.json"
    fit().save(file)
    file.write_bytes(file.read_bytes()[:200])
    for read_it in (read_fit, read):
        with pytest.raises(DataError, match="damaged"):
            read_it(file, SPACE)
        with pytest.raises(DataError, match="cannot be read"):
            read_it(tmp_path / "none.json", SPACE)


def test_a_fit_of_another_space_is_refused(tmp_path):
    fit().save(tmp_path / "fit.json")
    with pytest.raises(UnsupportedRequest, match="with channels 4, not with 8"):
        read_fit(tmp_path / "fit.json", NasBench201(channels=8, cells=1))
    with pytest.raises(UnsupportedRequest, match=r"of 'nasbench201', not of 'mbconv'"):
        LatencyEvaluator(MBConv(), str(tmp_path / "fit.json"))
    with pytest.raises(ConfigError, match="of no backend"):
        read(tmp_path / "fit.json", SPACE, "onnxruntime")
    with pytest.raises(InvalidArchitecture):
        fit().predict(SPACE, sample(MBConv(), np.random.default_rng(0)))


def test_measurements_that_cannot_be_fitted_are_refused():
    archs = drawn(30)
    with pytest.raises(DataError, match=r"too few.*20"):
        fitted(SPACE, archs[:19], np.ones(19))
    with pytest.raises(DataError, match=r"network 3 is 0\.0 ms"):
        fitted(SPACE, archs, np.where(np.arange(30) == 3, 0.0, 1.0))
    with pytest.raises(ConfigError, match="folds"):
        fitted(SPACE, archs, device(archs), folds=1)


def test_a_recipe_says_what_it_is():
    text = str(Recipe(("options", "work"), "ridge", "log", robust=True))
    assert text == "ridge on options+work, log, robust"


class TestLatencyEvaluatorOfAFit(EvaluatorContract):
    samples = 4

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.file = tmp_path / "fit.json"
        fit(0.05).save(self.file)

    def space(self):
        return SPACE

    def evaluator(self):
        return LatencyEvaluator(SPACE, str(self.file))

    def test_the_deviation_is_noted(self):
        proposal = self.proposals()[0]
        notes = self.evaluator().evaluate(proposal).notes
        expected = fit(0.05).deviation(SPACE, proposal.arch)
        assert notes == {"latency_ms_std": pytest.approx(expected)}


# ------------------------------------------------------------------------------ measurements


def written(tmp_path, kind):
    archs, ms = drawn(5), [1.5, 2.0, float("nan"), 3.0, 4.0]
    file = tmp_path / f"measured.{kind}"
    texts = [format_architecture(SPACE, arch) for arch in archs]
    if kind == "csv":
        cells = ["" if np.isnan(value) else str(value) for value in ms]
        lines = [f"{text},{cell}" for text, cell in zip(texts, cells, strict=True)]
        file.write_text("\n".join(["architecture,phone", *lines]))
    elif kind == "json":
        pairs = zip(archs, ms, strict=True)
        entries = [
            {"architecture": json.loads(arch.to_json()), "phone": None if np.isnan(v) else v}
            for arch, v in pairs
        ]
        file.write_text(json.dumps(entries))
    else:
        codes = [ordinal(SPACE, arch) for arch in archs]
        np.savez(file, arch=np.array(codes), latency_ms=np.array(ms)[:, None], devices=["phone"])
    return file, archs, ms


@pytest.mark.parametrize("kind", ["csv", "json", "npz"])
def test_measurements_are_read(tmp_path, kind):
    file, archs, ms = written(tmp_path, kind)
    found = read_measurements(file, SPACE)
    assert list(found) == ["phone"]
    assert tuple(found["phone"][0]) == archs
    assert np.array_equal(found["phone"][1], ms, equal_nan=True)


def test_an_object_of_architectures_is_read(tmp_path):
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({format_architecture(SPACE, a): 2.5 for a in drawn(3)}))
    (archs, ms) = read_measurements(file, SPACE)["latency_ms"]
    assert tuple(archs) == drawn(3)
    assert ms.tolist() == [2.5] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a .csv, .json, .npz file"),
        ("a.csv", b"architecture,ms\nnonsense,1\n", "line 2.*got 'nonsense'"),
        ("a.csv", b"arch,ms\nx,1\n", "expected 'architecture'"),
        ("a.csv", b"architecture,ms\n", "no measured network"),
        ("a.csv", b"\xff\xfe", "is not CSV"),
        ("a.json", b"[1]", "list of objects"),
        ("a.json", b"[", "is not JSON"),
        ("a.npz", b"PK", "damaged, or no npz"),
    ],
)
def test_bad_measurements_are_one_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_measurements(tmp_path / name, SPACE)


def test_bad_arrays_are_one_error(tmp_path):
    file = tmp_path / "a.npz"
    for arrays, message in (
        ({"arch": np.zeros((2, 6), int)}, "no array 'latency_ms'"),
        ({"arch": np.zeros((2, 6), int), "latency_ms": np.ones(3)}, "shape"),
        ({"arch": np.full((2, 6), 7), "latency_ms": np.ones(2)}, "network 0"),
        ({"arch": np.array([{}]), "latency_ms": np.ones(1)}, "damaged"),  # a pickle
    ):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=message):
            read_measurements(file, SPACE)


# --------------------------------------------------------------------------------- commands


def test_the_command_fits_and_the_evaluator_reads_it(tmp_path):
    archs = drawn(40)
    codes = np.array([ordinal(SPACE, arch) for arch in archs])
    two = np.stack([device(archs), 2 * device(archs)], axis=1)
    np.savez(tmp_path / "m.npz", arch=codes, latency_ms=two, devices=["one", "two"])
    common = ["latency", "fit", "nasbench201", str(tmp_path / "m.npz"), "--out",
              str(tmp_path / "fit.json"), "--set", "channels=4", "--set", "cells=1"]  # fmt: skip
    found = CliRunner().invoke(app, [*common, "--device", "two", "--n", "30", "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["device"] == "two"
    assert document["cross_validation"]["count"] == 30
    assert document["held_out"]["count"] == 10
    preview = LatencyEvaluator(SPACE, str(tmp_path / "fit.json")).preview(archs[0])
    assert preview["latency_ms"] == pytest.approx(two[0, 1], rel=0.1)
    ambiguous = CliRunner().invoke(app, common)
    assert "one, two" in str(ambiguous.exception)
    misspelt = CliRunner().invoke(app, [*common, "--device", "tow"])
    assert "did you mean 'two'" in str(misspelt.exception)


def test_a_real_device_is_learnt_far_better_than_its_mean(benchmark_data):
    space = fbnet()
    archs, ms = read_measurements(benchmark_data("fbnet_latency.npz"), space)["titanxp_1"]
    found = fitted(space, archs[:60], ms[:60], folds=2)
    mean, deviation = found.predict_many(space, archs[60:560])
    of_the_mean = 100 * np.mean(np.abs(ms[:60].mean() - ms[60:560]) / ms[60:560])
    assert errors(mean, deviation, ms[60:560]).mape < of_the_mean / 2

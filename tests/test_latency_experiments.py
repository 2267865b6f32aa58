"""The latency experiments run at small sizes, and their parts do what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import Subset

from nas.cost import architecture_cost
from nas.data import digits
from nas.latency.measure import Timing
from nas.points import published
from nas.space import sample
from search_spaces.mbconv import MBConv, Stage

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

import hardware_aware  # noqa: E402  # a script beside the tests
import whole_network_latency  # noqa: E402  # likewise


def test_whole_networks_of_real_devices_are_fitted_once(benchmark_data, tmp_path, capsys):
    arguments = [
        "--fbnet", str(benchmark_data("fbnet_latency.npz")), "--devices", "titan_rtx_1", "pixel2",
        "--nasbench201", str(benchmark_data("nb201.npz")), "--sizes", "24", "--seeds", "1",
        "--out", str(tmp_path / "run"), "--page", str(tmp_path / "page.md"),
    ]  # fmt: skip
    whole_network_latency.main(arguments)
    page = (tmp_path / "page.md").read_text()
    assert page.count("| `titan_rtx_1` |") == page.count("| `pixel2` (whole ms) |") == 2
    assert (tmp_path / "page.png").exists()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.json")}
    assert len(kept) == 4
    for file in kept:
        assert json.loads(file.read_text())["held_out"]["count"] == 2000
    whole_network_latency.main(arguments)
    assert (tmp_path / "page.md").read_text() == page
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_rounding_alone_makes_an_error():
    rng = np.random.default_rng(0)
    true = rng.uniform(20, 40, 20_000)
    rounded = np.round(true)
    off = float(100 * (np.abs(true - rounded) / rounded).mean())
    assert whole_network_latency.rounding(rounded) == pytest.approx(off, rel=0.05)
    assert whole_network_latency.rounding(true) == 0.0


def test_mobilenet_v2_in_full_is_the_published_network():
    data = digits()
    space = hardware_aware.mobilenet_v2(data, 100, 100)
    theirs, arch = published("mbconv:mobilenet_v2", {"classes": 10, "input": (1, 8, 8)})
    mine = architecture_cost(space, hardware_aware.ONLY)
    assert mine.parameters == architecture_cost(theirs, arch).parameters
    halved = architecture_cost(hardware_aware.mobilenet_v2(data, 50, 50), hardware_aware.ONLY)
    assert halved.parameters < mine.parameters / 4
    least = hardware_aware.mobilenet_v2(data, 25, 25)
    assert [stage.depths for stage in least.layout] == [(1,)] * 7


def timing(ms):
    return Timing(ms, ms * 0.9, ms * 1.1, 20, 0, 0.01, True)


def test_each_budget_has_the_largest_mobilenet_that_fits():
    data = digits()
    spaces = {size: hardware_aware.mobilenet_v2(data, *size) for size in hardware_aware.SIZES}
    latency = {(w, d): timing(w * d / 1000) for w, d in spaces}
    found = hardware_aware.baselines([0.1, 3.0, 100.0], spaces, latency)
    assert [(one.budget, one.name) for one in found] == [
        (3.0, "MobileNetV2, 25 % wide, 100 % deep"),
        (3.0, "MobileNetV2, 100 % wide, 25 % deep"),
        (100.0, "MobileNetV2, 100 % wide, 100 % deep"),
    ]
    assert all(one.timing.ms <= one.budget for one in found)


def small(classes=10, input=(1, 8, 8)):
    layout = (
        Stage(("ir",), (8,), (1, 2), kernels=(3,), expansions=(2,)),
        Stage(("ir",), (8,), stride=2, kernels=(3, 5), expansions=(2,), squeezes=(0, 25)),
    )
    return MBConv(layout, stem=8, head=8, widths=(100,), dropout=0.0, classes=classes, input=input)


def test_found_blocks_are_shown_stage_by_stage():
    space = small()
    rng = np.random.default_rng(0)
    arch = next(a for a in iter(lambda: sample(space, rng), None) if a["stage2/block1/se"])
    shown = hardware_aware.blocks(SimpleNamespace(arch=arch))
    assert shown == f"k{arch['stage2/block1/kernel']}s"


@pytest.mark.slow
def test_the_search_against_measured_latency_runs_and_goes_on(monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    data = replace(digits(), source=None)
    data = replace(data, train=Subset(data.train, range(200)))
    monkeypatch.setattr(hardware_aware, "fashion_mnist", lambda root: data)
    monkeypatch.setattr(hardware_aware, "mobile", small)
    monkeypatch.setattr(hardware_aware, "SIZES", [(25, 25)])
    arguments = [
        "--budgets", "0.5", "1000", "--trials", "3", "--population", "2", "--sample", "1",
        "--images", "60", "--epochs", "1", "--final-images", "60", "--final-epochs", "1",
        "--seeds", "2", "--test-images", "50", "--seconds", "0.05",
        "--out", str(tmp_path / "run"), "--page", str(tmp_path / "page.md"),
    ]  # fmt: skip
    hardware_aware.main(arguments)
    page = (tmp_path / "page.md").read_text()
    assert page.count("| found |") == 2
    assert "| 1000.000 | MobileNetV2, 25 % wide, 25 % deep |" in page
    assert (tmp_path / "page.png").exists()
    kept = [f for f in (tmp_path / "run").rglob("*.json") if f.name != "seconds.json"]
    before = {file: file.stat().st_mtime_ns for file in kept}
    hardware_aware.main(arguments)
    assert {file: file.stat().st_mtime_ns for file in kept} == before

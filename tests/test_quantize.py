"""Eight-bit files: what they hold, what they keep of the accuracy, and the commands that write."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from nas import cli
from nas.builder import Builder
from nas.data import Data, digits
from nas.delivery import deliver, lines, retrain_and_export
from nas.described import described
from nas.errors import ConfigError, DataError, ExportError, UnsupportedRequest
from nas.export import export_graph, quantize
from nas.export.quantize import Int8, quantized
from nas.space import network, parse
from nas.training import Recipe, evaluate, fetch, initialised, train, weights
from search_spaces.nasbench201 import NasBench201

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SPACE = NasBench201(channels=8, cells=1, input=(1, 8, 8))
ARCH = parse(
    SPACE,
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits()


@pytest.fixture(scope="module")
def trained(data: Data) -> dict[str, torch.Tensor]:
    """Four epochs: seconds, and enough for every class to be told from the others."""
    model = initialised(SPACE, ARCH, 0)
    train(model, data.train, Recipe(), 4, 0, crop_padding=1)
    return weights(model)


@pytest.fixture(scope="module")
def written(
    data: Data, trained: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("int8") / "out"
    told = deliver(
        SPACE,
        ARCH,
        folder,
        trained,
        formats=("onnx",),
        int8=Int8(data),
        preprocessing=data.preprocessing,
    )
    return folder, told


def accuracy(file: Path, data: Data) -> float:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images, labels = fetch(data.test, torch.arange(len(data.test)))
    logits = session.run(["logits"], {"input": images.numpy()})[0]
    return float((logits.argmax(axis=1) == labels.numpy()).mean())


# ------------------------------------------------------------------------------- the numbers


def test_eight_bits_keep_the_accuracy(
    written: tuple[Path, dict[str, Any]], data: Data, trained: dict[str, torch.Tensor]
) -> None:
    folder, told = written
    report = told["model.int8.onnx"]
    print(*lines(told), sep="\n")
    model = network(SPACE, ARCH)
    model.load_state_dict(trained)
    before, after = report["test_accuracy"]["float32"], report["test_accuracy"]["int8"]
    assert before == pytest.approx(evaluate(model, data.test)[0], abs=1 / 359)
    assert before == pytest.approx(accuracy(folder / "model.onnx", data))
    assert after == pytest.approx(accuracy(folder / "model.int8.onnx", data))
    assert before > 0.85, "the network is trained, so that there is something to lose"
    assert after >= before - 0.03
    assert report["test_accuracy_lost"] == before - after
    assert report["test_images"] == len(data.test)


def test_the_report_is_of_the_files(written: tuple[Path, dict[str, Any]]) -> None:
    folder, told = written
    report = told["model.int8.onnx"]
    assert json.loads((folder / "deploy.json").read_text())["files"] == told
    sizes = {kind: (folder / name).stat().st_size for kind, name in FILES_OF.items()}
    assert report["bytes"] == sizes
    assert sizes["int8"] < sizes["float32"] / 2
    latency = report["latency_ms_on_this_cpu_1_thread"]
    assert set(latency) == {"float32", "int8"}
    assert report["speed_up_on_this_cpu"] == latency["float32"] / latency["int8"] > 0
    assert report["calibration"] == {"data": "digits", "part": "train", "images": 256}


FILES_OF = {"float32": "model.onnx", "int8": "model.int8.onnx"}


def test_weights_are_bytes_with_a_scale_a_channel(written: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = written
    model = onnx.load(folder / "model.int8.onnx")
    onnx.checker.check_model(model)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    channels = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            values, scales = (tensors[name] for name in node.input[:2])
            assert values.dtype in (np.int8, np.int32)  # the weights, and the biases
            if values.ndim == 4:
                assert scales.shape == (len(values),)
                channels[node.input[0]] = values
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(channels) == len(convolutions) == 14 - 1
    # Each channel uses its whole range, which a single scale for all would not.
    assert all((np.abs(v).max(axis=(1, 2, 3)) >= 126).all() for v in channels.values())
    floats = [t for t in tensors.values() if t.dtype == np.float32]
    assert max(t.size for t in floats) <= 32, "no weights are left as floats"


def test_the_ranges_are_those_of_the_training_images(
    written: tuple[Path, dict[str, Any]], data: Data
) -> None:
    folder, _ = written
    model = onnx.load(folder / "model.int8.onnx")
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    (first,) = [node for node in model.graph.node if "input" in node.input]
    images, _ = fetch(data.train, torch.arange(len(data.train)))
    spread = float(images.max() - images.min())
    assert float(tensors[first.input[1]]) == pytest.approx(spread / 255, rel=1e-6)


def test_the_images_are_drawn_from_the_training_set_once_each(data: Data) -> None:
    images = quantize._images(data.train, 100)
    assert images.shape == (100, 1, 8, 8)
    assert np.array_equal(images, quantize._images(data.train, 100))
    every, labels = fetch(data.train, torch.arange(len(data.train)))
    places = [np.flatnonzero((every.numpy() == image).all(axis=(1, 2, 3))) for image in images]
    assert all(len(found) for found in places)
    assert len({int(found[0]) for found in places}) > 95  # digits has a few twins
    assert len({int(labels[found[0]]) for found in places}) == 10
    assert len(quantize._images(data.train, 10_000)) == len(data.train)


def test_the_metadata_say_how(written: tuple[Path, dict[str, Any]], data: Data) -> None:
    folder, _ = written
    said = {
        kind: onnxruntime.InferenceSession(folder / name).get_modelmeta().custom_metadata_map
        for kind, name in FILES_OF.items()
    }
    how = json.loads(said["int8"].pop("quantization"))
    assert (how["bits"], how["calibration_images"]) == (8, 256)
    assert said["int8"] == said["float32"]
    assert json.loads(said["int8"]["preprocessing"]) == data.preprocessing


def test_a_loss_is_told(
    written: tuple[Path, dict[str, Any]], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges from all too little: images of one value leave nothing of the network."""
    folder, _ = written
    flat = np.zeros((8, 1, 8, 8), np.float32)
    monkeypatch.setattr(quantize, "_images", lambda dataset, wanted: flat)
    content, report = quantized((folder / "model.onnx").read_bytes(), Int8(data))
    assert report["test_accuracy_lost"] > 0.3
    assert len(content) == report["bytes"]["int8"]
    (line,) = [line for line in lines({"model.int8.onnx": report}) if "WARNING" in line]
    assert f"{100 * report['test_accuracy_lost']:.1f} points" in line


# -------------------------------------------------------------------------- what is refused


def test_what_cannot_be_quantised_is_refused_before_anything(
    data: Data, trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    untested = dataclasses.replace(data, test=None)
    with pytest.raises(ConfigError, match="images must be at least 1, got 0"):
        Int8(data, 0)
    with pytest.raises(DataError, match="has no test set"):
        Int8(untested)
    with pytest.raises(UnsupportedRequest, match="ask for the format onnx too, beside source, pt2"):
        deliver(SPACE, ARCH, tmp_path / "a", trained, formats=("source", "pt2"), int8=Int8(data))
    other = NasBench201(channels=8, cells=1, input=(3, 8, 8))
    with pytest.raises(DataError, match=r"takes \(3, 8, 8\)"):
        deliver(other, ARCH, tmp_path / "a", trained, formats=("onnx",), int8=Int8(data))
    with pytest.raises(ExportError, match="onnxruntime cannot quantise the network"):
        quantize.quantize(b"no model", np.zeros((1, 1, 8, 8), np.float32))
    assert list(tmp_path.iterdir()) == []


class _NoGraph:
    """A space that must not be trained, for its network is no graph."""

    def __getattr__(self, name: str) -> Any:
        return getattr(SPACE, name)

    def build(self, builder: Any) -> torch.nn.Module:
        class Branching(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x if x.sum() > 0 else -x

        return Branching()


def test_what_is_no_graph_is_refused_before_it_is_trained(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("nas.training.retrain", never)
    with pytest.raises(ExportError, match="control flow"):
        retrain_and_export(
            _NoGraph(), ARCH, data, tmp_path / "out", epochs=1, formats=("onnx", "source")
        )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------ the commands

CONFIG = {
    "data": "digits",
    "space": {"name": "chain", "depths": [1, 2], "widths": [4, 8], "kernels": [3]},
    "strategy": "random",
    "evaluator": ["cost", {"name": "training", "epochs": 1, "data_fraction": 0.2}],
    "objectives": ["maximize accuracy", {"minimize": "macs"}],
    "budget": {"trials": 2},
}


def nas(*arguments: str, cwd: Path) -> int:
    """Runs ``nas …`` in a folder; gives the exit code."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["nas", *arguments])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
    return 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``run``, and ``blind``: a run whose evaluator knows no data."""
    folder = tmp_path_factory.mktemp("runs")
    blind = {"evaluator": "cost", "objectives": [{"minimize": "macs"}]}
    for name, changes in (("run", {}), ("blind", blind)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
        assert nas("search", f"{name}.yaml", "--out", name, cwd=folder) == 0
    return folder


def test_export_writes_what_is_asked_for_and_says_so(
    runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    formats = ("--format", "onnx", "--format", "pt2", "--format", "source")
    options = ("--int8", "--calibration", "64", "--out", "net")
    assert nas("export", "run", *formats, *options, cwd=runs) == 0
    out, err = capfd.readouterr()
    assert err == "", "torch keeps to itself"
    names = {path.name for path in (runs / "net").iterdir()}
    assert names >= {"model.py", "model.onnx", "model.pt2", "model.int8.onnx", "deploy.json"}
    report = json.loads((runs / "net" / "deploy.json").read_text())["files"]
    assert report["model.int8.onnx"]["calibration"]["images"] == 64
    shown = report["model.int8.onnx"]["test_accuracy"]
    assert f"{shown['float32']:.2%} before, {shown['int8']:.2%} after" in out
    assert "outputs within" in out
    assert "run it:" in out


def test_retrain_writes_the_formats_too(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--epochs", "2", "--format", "onnx", "--int8", "--json", "--out", "trained")
    assert nas("retrain", "run", *options, cwd=runs) == 0
    names = {path.name for path in (runs / "trained").iterdir()}
    assert names == {"model.onnx", "model.int8.onnx", "deploy.json"}
    document = json.loads(capfd.readouterr().out)
    before = document["files"]["model.int8.onnx"]["test_accuracy"]["float32"]
    assert before == pytest.approx(document["test_accuracy"], abs=1 / 359)
    said = onnxruntime.InferenceSession(runs / "trained" / "model.onnx").get_modelmeta()
    facts = json.loads(said.custom_metadata_map["facts"])
    assert facts["test_accuracy"] == document["test_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "run", "--int8"), "int8 is made from ONNX"),
        (("export", "run", "--format", "onxn"), "did you mean 'onnx'"),
        (("retrain", "run", "--format", "pt2", "--int8"), "int8 is made from ONNX"),
        (("export", "blind", "--format", "onnx", "--int8"), "trains on no data set"),
    ],
)
def test_bad_requests_are_one_message_and_no_folder(
    runs: Path, arguments: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert nas(*arguments, "--out", "never", cwd=runs) == 2
    err = capfd.readouterr().err
    assert says in err
    assert err.count("error:") == 1
    assert not (runs / "never").exists()


def test_a_maximum_over_each_map_is_quantised_too(tmp_path: Path) -> None:
    """onnxruntime's symbolic shapes do not know ReduceMax, which this pool becomes."""

    def body(builder: Builder) -> nn.Module:
        width = builder.number("width", (4, 8))
        pool = nn.AdaptiveMaxPool2d(1)
        return nn.Sequential(nn.Conv2d(1, width, 3), pool, nn.Flatten(), nn.Linear(width, 10))

    space = described(body, input=(1, 8, 8), classes=10)
    arch = parse(space, "width=4")
    export_graph(space, arch, tmp_path / "net.onnx", network(space, arch).state_dict())
    content = (tmp_path / "net.onnx").read_bytes()
    images = np.random.default_rng(0).standard_normal((8, 1, 8, 8)).astype("float32")
    (tmp_path / "int8.onnx").write_bytes(quantize.quantize(content, images))
    assert "ReduceMax" in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    before, after = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"input": images})[0]
        for name in ("net.onnx", "int8.onnx")
    )
    assert 0 < np.abs(before - after).max() < 0.1 * np.abs(before).max()

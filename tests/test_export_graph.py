"""ONNX and torch.export files: equal to torch, for any batch, and all or nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import PICK, ROOT, One, isolated, randomised
from small_spaces import SMALL
from torch import nn

from nas.delivery import DEPLOY, check_formats, deliver
from nas.errors import ExportError, InvalidArchitecture, UnsupportedRequest
from nas.export import export_graph, graph
from nas.export.folder import FILES
from nas.space import format_architecture, network, parse, sample
from search_spaces.nasbench201 import OPERATIONS, NasBench201

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SPACE = NasBench201(channels=3, cells=1, input=(3, 9, 9))
TEXT = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
ARCH = parse(SPACE, TEXT)


def run_onnx(file: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])


def run_pt2(file: Path, x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*treespec", FutureWarning)
        return torch.export.load(file).module()(x)


RUN = {"onnx": run_onnx, "pt2": run_pt2}


def assert_equal_to_torch(model: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
    for size in (1, 2, 5):
        x = torch.randn(size, *shape, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected = model.eval()(x)
            found = RUN[file.suffix[1:]](file, x)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


# ---------------------------------------------------------------------------- every space


QUICK = ("chain", "mbconv", "spos")
"""Of all kinds of network a few; tracing one takes seconds, and the others wait for test-all."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SMALL]
)
def test_a_network_of_every_space_is_torchs_in_both_formats(name: str, tmp_path: Path) -> None:
    space = SMALL[name]()
    arch = sample(space, np.random.default_rng(1))
    model = network(space, arch)
    weights = randomised(model, seed=1)
    model.load_state_dict(weights)
    told = deliver(space, arch, tmp_path / "out", weights, formats=("onnx", "pt2"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*told, DEPLOY}
    for file in ("model.onnx", "model.pt2"):
        assert_equal_to_torch(model, tmp_path / "out" / file, space.input)


# ------------------------------------------------------------------------------- one file


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return randomised(network(SPACE, ARCH), seed=1)


@pytest.fixture(scope="module")
def written(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "out"
    formats = ("source", "onnx", "pt2")
    facts, preprocessing = {"test_accuracy": 0.5}, {"scale": 16.0, "note": "größer"}
    told = deliver(
        SPACE, ARCH, folder, weights, formats=formats, facts=facts, preprocessing=preprocessing
    )
    document = json.loads((folder / DEPLOY).read_text())
    assert document == {"digest": ARCH.digest(), "files": told}
    return folder


def metadata(file: Path) -> dict[str, Any]:
    if file.suffix == ".pt2":
        extra = {"metadata.json": ""}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*treespec", FutureWarning)
            torch.export.load(file, extra_files=extra)
        return json.loads(extra["metadata.json"])
    said = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    text = ("space", "architecture", "digest")
    return {key: value if key in text else json.loads(value) for key, value in said.items()}


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_file_says_what_it_is(written: Path, name: str) -> None:
    assert metadata(written / name) == {
        "space": "nasbench201/v1",
        "search_space": {
            "name": "nasbench201",
            "channels": 3,
            "cells": 1,
            "classes": 10,
            "input": [3, 9, 9],
            "operations": list(OPERATIONS),
        },
        "architecture": format_architecture(SPACE, ARCH),
        "digest": ARCH.digest(),
        "input": [3, 9, 9],
        "classes": 10,
        "preprocessing": {"scale": 16.0, "note": "größer"},
        "facts": {"test_accuracy": 0.5},
    }


def test_several_formats_are_one_delivery(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {*FILES, "model.onnx", "model.pt2", DEPLOY}
    told = json.loads((written / DEPLOY).read_text())["files"]
    for name, values in told.items():
        assert values["bytes"] == (written / name).stat().st_size
        assert 0 <= values["largest_relative_difference"] <= 1e-4
    assert told["model.pt2"]["largest_relative_difference"] == 0


def test_the_onnx_file_is_bare(written: Path) -> None:
    model = onnx.load(written / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    (given,), (result,) = model.graph.input, model.graph.output
    for value, name, shape in ((given, "input", [3, 9, 9]), (result, "logits", [10])):
        first, *rest = value.type.tensor_type.shape.dim
        assert (value.name, first.dim_param) == (name, "batch")
        assert [size.dim_value for size in rest] == shape
    for name in ("model.onnx", "model.pt2"):
        assert os.fsencode(ROOT) not in (written / name).read_bytes(), "a path of this machine"


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_an_odd_size_is_torchs(weights: dict[str, torch.Tensor], written: Path, name: str) -> None:
    model = network(SPACE, ARCH)
    model.load_state_dict(weights)
    assert_equal_to_torch(model, written / name, (3, 9, 9))


def test_the_random_state_is_left_and_the_file_is_the_same(tmp_path: Path) -> None:
    linear, weights = One(lambda: nn.Linear(4, 2)), randomised(nn.Linear(4, 2), seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in ("a.onnx", "b.onnx"):
        assert 0 <= export_graph(linear, PICK, tmp_path / name, weights) <= 1e-4
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


class TwoBranches(nn.Module):
    """Two 1×1 convolutions, summed: one at inference."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(x)

    def merged(self) -> nn.Module:
        one = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            one.weight.copy_(self.first.weight + self.second.weight)
            one.bias.copy_(self.first.bias + self.second.bias)
        return one


def test_what_merges_for_inference_is_merged(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(TwoBranches(), nn.Flatten(), nn.Linear(48, 2))

    space = One(make, input=(3, 4, 4))
    weights = randomised(make(), seed=0)
    export_graph(space, PICK, tmp_path / "net.onnx", weights)
    nodes = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert nodes.count("Conv") == 1
    model = make()
    model.load_state_dict(weights)
    assert_equal_to_torch(model, tmp_path / "net.onnx", (3, 4, 4))


# ------------------------------------------------------------------- the documentation's lines

DEPLOY_PAGE = (ROOT / "docs" / "deploy.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", DEPLOY_PAGE, flags=re.DOTALL)


EACH = """
import io, json, sys
from contextlib import redirect_stdout
sys.path.insert(0, ".")  # what is beside the file is found, as in a shell there
for snippet in json.loads(sys.argv[1]):
    names, printed = {}, io.StringIO()
    with redirect_stdout(printed):
        exec(snippet, names)
    shape = list(names["logits"].shape) if "logits" in names else []
    print(json.dumps([shape, printed.getvalue()]))
print({"nas", "search_spaces"} & {name.split(".")[0] for name in sys.modules})
"""


def test_the_lines_shown_run_without_this_project(written: Path) -> None:
    snippets = [snippet.replace("5, 1, 8, 8", "5, 3, 9, 9") for snippet in SNIPPETS]
    done = isolated("-c", EACH, json.dumps(snippets), cwd=written)
    assert done.returncode == 0, done.stderr
    *results, loaded = done.stdout.splitlines()
    for snippet, (shape, printed) in zip(SNIPPETS, map(json.loads, results), strict=True):
        assert shape == ([5, 10] if "logits = " in snippet else []), snippet
        assert (TEXT in printed) == ("print" in snippet), snippet
    assert loaded == "set()"


def test_the_page_shows_all_formats() -> None:
    assert len(SNIPPETS) == 5
    for name in ("model.safetensors", "model.onnx", "model.pt2"):
        assert any(name in snippet for snippet in SNIPPETS)


# --------------------------------------------------------------------------- what is refused


class Branching(nn.Module):
    """Control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y if y.sum() > 0 else -y


class OfTwo(Branching):
    """Takes two examples at once, no other number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.view(2, 4))


class Pair(Branching):
    """Gives two tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return self.layer(x), x


class Infinite(Branching):
    """Gives what is not finite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) / 0


class Talking(Branching):
    """Warns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        warnings.warn("mind this", UserWarning, stacklevel=1)
        return self.layer(x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Branching, "no control flow that depends on values.*data-dependent"),
        (OfTwo, "takes any number of examples"),
        (Pair, "must give one tensor of finite numbers.*tuple"),
        (Infinite, "must give one tensor of finite numbers"),
    ],
)
def test_a_network_that_is_no_graph_is_refused(
    make: type[nn.Module],
    says: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ExportError, match=f"(?s){says}"):
        export_graph(One(make), PICK, tmp_path / "x.pt2", randomised(make(), seed=0))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", ""), "the error says it all"


def test_the_networks_own_warnings_are_heard(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="mind this"):
        export_graph(One(Talking), PICK, tmp_path / "x.pt2", randomised(Talking(), seed=0))


def test_relative_difference() -> None:
    expected = torch.tensor([[1.0, -4.0], [2.0, 0.0]])
    found = expected + torch.tensor([[0.0, 0.5], [-1.0, 0.0]])
    assert graph.relative_difference(expected, found) == 0.25
    assert graph.relative_difference(expected, expected) == 0
    zeros = torch.zeros(2)
    assert graph.relative_difference(zeros, zeros) == 0
    assert graph.relative_difference(zeros, zeros + 1e-9) == float("inf")
    assert np.isnan(graph.relative_difference(expected, expected * float("nan")))


@pytest.mark.parametrize(
    ("format", "change", "says"),
    [
        ("onnx", lambda y: y * (1 + 2e-4), "differ from the network's by 0.0002 of its largest"),
        ("pt2", lambda y: y * (1 + 2e-4), "differ from the network's by 0.0002 of its largest"),
        ("pt2", lambda y: y * float("nan"), "differ from the network's by nan"),
        ("pt2", lambda y: y if len(y) < 5 else y[:, :1], r"gives \(5, 1\) for 5 examples"),
    ],
)
def test_a_file_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, change: Any, says: str
) -> None:
    read = graph._READ[format]

    def misread(content: bytes) -> Any:
        run = read(content)
        return lambda x: change(run(x))

    monkeypatch.setitem(graph._READ, format, misread)
    linear = One(lambda: nn.Linear(4, 2))
    weights = randomised(nn.Linear(4, 2), seed=0)
    (tmp_path / f"model.{format}").write_text("old")
    with pytest.raises(ExportError, match=says):
        deliver(linear, PICK, tmp_path, weights, formats=("source", format))
    assert [path.name for path in tmp_path.iterdir()] == [f"model.{format}"]
    assert (tmp_path / f"model.{format}").read_text() == "old"

    monkeypatch.setitem(graph._READ, format, lambda c: lambda x: read(c)(x) * (1 + 5e-5))
    assert 1e-5 < export_graph(linear, PICK, tmp_path / f"x.{format}", weights) < 1e-4


def test_wrong_weights_and_targets_write_nothing(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    fewer = {name: tensor for name, tensor in weights.items() if name != "5.bias"}
    with pytest.raises(ExportError, match=r"(?s)not those of this architecture.*5\.bias"):
        export_graph(SPACE, ARCH, tmp_path / "x.onnx", fewer)
    with pytest.raises(InvalidArchitecture):
        export_graph(SPACE, PICK, tmp_path / "x.onnx", weights)
    with pytest.raises(ExportError, match="no format 'onx': did you mean 'onnx'"):
        export_graph(SPACE, ARCH, tmp_path / "x.onx", weights)
    with pytest.raises(ExportError, match="must be JSON"):
        export_graph(SPACE, ARCH, tmp_path / "x.onnx", weights, facts={"a": object()})
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export_graph(SPACE, ARCH, tmp_path / "x.onnx", weights)
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_what_cannot_be_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedRequest, match="no format 'pt': did you mean 'pt2'"):
        check_formats(SPACE, ["source", "pt"])
    with pytest.raises(UnsupportedRequest, match="no format"):
        check_formats(SPACE, [])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    check_formats(SPACE, ["source", "pt2"])
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install nasforge\[deploy\]"):
        check_formats(SPACE, ["onnx"])


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_file_is_replaced_at_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    linear, weights = One(lambda: nn.Linear(4, 2)), randomised(nn.Linear(4, 2), seed=0)
    file = tmp_path / f"net.{format}"
    file.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ExportError, match="No space left"):
            export_graph(linear, PICK, file, weights)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    export_graph(linear, PICK, file, weights)
    assert file.read_bytes() != b"old"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]

"""Exported networks run alone, to the bit, and all or nothing is written."""

from __future__ import annotations

import ast
import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from exporting import isolated, randomised, unused

from nas.architecture import Architecture
from nas.cost import count
from nas.errors import ExportError, InvalidArchitecture
from nas.export import export, runner
from nas.space import network, parse
from search_spaces.chain import Chain
from search_spaces.nasbench201 import OPERATIONS, NasBench201

FILES = {"model.py", "model.safetensors", "check.safetensors", "architecture.json"}
SPACES = {
    "nasbench201": NasBench201(channels=4, cells=1, input=(3, 8, 8)),
    "chain": Chain(input=(1, 8, 8)),
}


def test_unused_sees_what_is_unused():
    source = "import os\nimport sys\nclass A: pass\ndef f(): return f() or sys\nX = A"
    assert unused(source) == {"os", "f", "X"}


def test_unpicked_operations_leave_no_trace(tmp_path):
    space = SPACES["nasbench201"]
    nothing = parse(
        space,
        "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    )
    export(space, nothing, tmp_path / "out", network(space, nothing).state_dict())
    tree = ast.parse((tmp_path / "out" / "model.py").read_text())
    (build,) = [node for node in tree.body if getattr(node, "name", "") == "build"]
    text = ast.unparse(build)
    assert "ReLUConvBN" not in text
    assert "None" not in text
    assert text.count("nn.Identity()") == 9


# ------------------------------------------------------------------------------ one export


@pytest.fixture
def arch() -> Architecture:
    return parse(
        SPACES["nasbench201"],
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
    )


@pytest.fixture
def weights(arch) -> dict[str, torch.Tensor]:
    return randomised(network(SPACES["nasbench201"], arch), seed=1)


@pytest.fixture
def written(arch, weights, tmp_path) -> Path:
    return export(
        SPACES["nasbench201"],
        arch,
        tmp_path / "deep" / "out",
        weights,
        facts={"test_accuracy": 0.5},
        preprocessing={"scale": 16.0, "mean": [0.1, 0.2, 0.3]},
    )


def test_the_file_runs_in_a_process_of_its_own(written, arch, weights, tmp_path):
    assert {path.name for path in written.iterdir()} == FILES
    empty = tmp_path / "empty"
    empty.mkdir()
    done = isolated(str(written / "model.py"), cwd=empty)
    assert done.returncode == 0, done.stderr
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    first, second, third = done.stdout.splitlines()
    assert (first, second) == (f"parameters: {cost.parameters:,}", f"MACs: {cost.macs:,}")
    assert third.startswith("largest difference from the stored output: 0 (of ")
    assert done.stderr == ""
    assert list(empty.iterdir()) == []

    path = written / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    begin, end = header["5.weight"]["data_offsets"]
    content[start + begin : start + end] = bytes(end - begin)  # the classifier's weights are gone
    path.write_bytes(content)
    done = isolated(str(written / "model.py"), cwd=empty)
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: the output is not the stored one")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: b"\xff" * len(content),
        lambda content: content.replace(b"5.weight", b"6.weight"),
        lambda content: content.replace(b"F32", b"F99"),
    ],
)
def test_damaged_weights_are_one_clear_message(written, damage, monkeypatch):
    path = written / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(runner, "__file__", str(written / "model.py"))
    with pytest.raises(SystemExit, match=r"FAILED: model\.safetensors or .* damaged"):
        runner.main(network(SPACES["nasbench201"], _arch_of(written)))


def test_nan_weights_fail_the_check(written, weights, monkeypatch, capsys):
    broken = weights | {"5.bias": torch.full((10,), float("nan"))}
    safetensors.torch.save_file(broken, written / "model.safetensors")
    monkeypatch.setattr(runner, "__file__", str(written / "model.py"))
    with pytest.raises(SystemExit, match="FAILED: the output is not the stored one"):
        runner.main(network(SPACES["nasbench201"], _arch_of(written)))
    assert "largest difference from the stored output: nan" in capsys.readouterr().out


def _arch_of(folder: Path) -> Architecture:
    return Architecture.from_json((folder / "architecture.json").read_text())


def test_the_weights_written_are_those_given(written, weights):
    stored = safetensors.torch.load_file(written / "model.safetensors")
    by_hand = runner.load(written / "model.safetensors")
    assert stored.keys() == by_hand.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(stored[name], tensor)
        assert torch.equal(by_hand[name], tensor)
        assert by_hand[name].dtype == stored[name].dtype == tensor.dtype


def test_every_type_of_tensor_is_read_as_safetensors_reads_it(tmp_path):
    tensors = {
        name: torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in runner.DTYPES.items()
    }
    tensors |= {"empty": torch.empty(0, 4), "number": torch.tensor(3.5)}
    safetensors.torch.save_file(tensors, tmp_path / "some.safetensors")
    found = runner.load(tmp_path / "some.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_stored_pair_is_the_networks(written, arch, weights):
    check = safetensors.torch.load_file(written / "check.safetensors")
    assert check["input"].shape == (2, 3, 8, 8)
    assert check["input"].dtype == torch.float32
    model = network(SPACES["nasbench201"], arch)
    model.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(model.eval()(check["input"]), check["output"])


def test_architecture_json_says_what_the_network_is(written, arch):
    document = json.loads((written / "architecture.json").read_text())
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    assert document == {
        "space": "nasbench201/v1",
        "search_space": {
            "name": "nasbench201",
            "channels": 4,
            "cells": 1,
            "classes": 10,
            "input": [3, 8, 8],
            "operations": list(OPERATIONS),
        },
        "text": SPACES["nasbench201"].format(arch),
        "digest": arch.digest(),
        "picks": arch.as_dict(),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "preprocessing": {"scale": 16.0, "mean": [0.1, 0.2, 0.3]},
        "facts": {"test_accuracy": 0.5},
    }
    assert _arch_of(written) == arch


def test_the_docstring_says_what_the_network_is(written, arch):
    docstring = ast.get_docstring(ast.parse((written / "model.py").read_text()))
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    assert docstring is not None
    for part in (
        "nasbench201/v1",
        SPACES["nasbench201"].format(arch),
        "(N, 3, 8, 8)",
        f"{cost.parameters:,}",
        f"{cost.macs:,}",
        "mean: [0.1, 0.2, 0.3]",
    ):
        assert part in docstring


def test_export_leaves_the_random_state_and_gives_equal_files(arch, weights, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = export(SPACES["nasbench201"], arch, tmp_path / "a", weights)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = export(SPACES["nasbench201"], arch, tmp_path / "b", weights)
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_docstring_holds_any_text(arch, weights, tmp_path):
    odd = {
        "note": 'a """quote""", a back\\slash',
        "long": "words " * 60,
        "line": "a\nb",
        "end": '"',
    }
    folder = export(SPACES["nasbench201"], arch, tmp_path / "out", weights, preprocessing=odd)
    docstring = ast.get_docstring(ast.parse((folder / "model.py").read_text()))
    assert docstring is not None
    assert json.dumps(odd["note"]) in docstring


# ----------------------------------------------------------------------- all or nothing


def test_a_folder_keeps_its_other_files(arch, weights, tmp_path):
    folder = tmp_path / "out"
    (folder / "logs").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "model.py").write_text("old")
    export(SPACES["nasbench201"], arch, folder, weights)
    assert {path.name for path in folder.iterdir()} == FILES | {"logs", "notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "model.py").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_nothing_half_written(
    arch, weights, tmp_path, monkeypatch, there, after
):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        (folder / "model.py").write_text("old")
    calls = []

    def fsync(_: int) -> None:
        calls.append(None)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ExportError, match="No space left"):
        export(SPACES["nasbench201"], arch, folder, weights)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])
    if there:
        assert [path.name for path in folder.iterdir()] == ["model.py"]
        assert (folder / "model.py").read_text() == "old"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given["weights"].pop("5.bias"), "not those of this architecture.*5.bias"),
        (lambda given: given["weights"].update(more=torch.ones(1)), "not those.*more"),
        (
            lambda given: given["weights"].update({"5.bias": torch.ones(3)}),
            "not those of this architecture.*5.bias",
        ),
        (lambda given: given["weights"]["5.bias"].fill_(float("nan")), "not finite"),
        (lambda given: given.update(facts={"a": object()}), "must be JSON"),
        (lambda given: given.update(facts={"a": float("nan")}), "must be JSON"),
        (lambda given: given.update(preprocessing={1, 2}), "must be JSON"),
    ],
)
def test_bad_input_writes_nothing(arch, weights, tmp_path, change, message):
    given = {"weights": weights, "facts": None, "preprocessing": None}
    change(given)
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export(
            SPACES["nasbench201"],
            arch,
            tmp_path / "out",
            given["weights"],
            facts=given["facts"],
            preprocessing=given["preprocessing"],
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bad_target_is_refused(arch, weights, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        export(SPACES["nasbench201"], arch, tmp_path / "file", weights)
    (tmp_path / "out" / "model.py").mkdir(parents=True)
    with pytest.raises(ExportError, match=r"model\.py is a folder"):
        export(SPACES["nasbench201"], arch, tmp_path / "out", weights)


def test_an_architecture_of_another_space_is_refused(arch, weights, tmp_path):
    with pytest.raises(InvalidArchitecture):
        export(SPACES["chain"], arch, tmp_path / "out", weights)
    assert list(tmp_path.iterdir()) == []

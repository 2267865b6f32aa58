"""A pack is measured by its own script alone, and what comes back is a table or a clear error."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nas.cli import app
from nas.errors import ConfigError, DataError
from nas.latency import runner
from nas.latency.correction import Correction
from nas.latency.importing import corrected, imported
from nas.latency.measure import summary
from nas.latency.operations import operations
from nas.latency.pack import pack, read_manifest, write_pack
from nas.latency.table import LatencyTable
from nas.space import enumerate_architectures, sample
from search_spaces.mbconv import MBConv, Stage

pytest.importorskip("onnxruntime")

SPACE = MBConv(
    (Stage(("ir",), (8,), (1, 2), kernels=(3, 5), expansions=(2, 3)),),
    stem=8,
    head=8,
    widths=(100,),
    dropout=0.0,
    classes=3,
    input=(1, 8, 8),
)
QUICK = ("--seconds", "0.02", "--rounds", "9", "--half-width", "1")


def measured(folder, out, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), "--out", str(out), *QUICK, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A pack and what its script measured in a fresh process."""
    folder = tmp_path_factory.mktemp("device")
    count = write_pack(folder / "pack", pack(SPACE, networks=2))
    assert count == len([path for path in (folder / "pack").rglob("*") if path.is_file()])
    done = measured(folder / "pack", folder / "results.json", "--device", "board", cwd=folder)
    assert done.returncode == 0, done.stderr
    total = len(operations(SPACE)) + 2
    assert f"{total} of {total} measured" in done.stdout
    return folder


@pytest.mark.slow
def test_the_script_imports_onnxruntime_numpy_and_the_standard_library_alone(packed):
    text = (packed / "pack" / "run.py").read_text()
    named = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            named.add((node.module or "").partition(".")[0])
    assert named - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=40), st.floats(0.001, 0.5))
def test_the_script_sums_up_samples_as_measurements_here_do(samples, half_width):
    assert runner.summary(samples, half_width) == asdict(summary(samples, half_width))


def test_what_was_measured_is_a_table(packed):
    found = imported(packed / "results.json", packed / "pack")
    table = found.table
    assert set(table.entries) == set(operations(SPACE))
    assert table.machine["device"] == "board"
    assert table.protocol.rounds == 9
    rng = np.random.default_rng(0)
    for arch in {sample(SPACE, rng) for _ in range(4)}:
        assert 0 < table.predict(SPACE, arch) < 1000
        assert not table.missing(SPACE, [arch])
    assert len(found.networks) == 2
    assert found.raw is not None
    assert found.raw.networks == 2
    assert found.held_out is None
    with pytest.raises(ConfigError, match=r"there are 2: nas latency pack --networks 20"):
        corrected(found, SPACE)


def test_a_correction_is_fitted_to_the_networks_of_a_pack(packed, tmp_path):
    """Networks that take what a known line says: the correction finds it."""
    table = imported(packed / "results.json", packed / "pack").table
    line = Correction(0.5, 1.2, 0.01, 3.0, 20)
    manifest = json.loads((packed / "pack" / "manifest.json").read_text())
    results = json.loads((packed / "results.json").read_text())
    archs = list(enumerate_architectures(SPACE))
    assert len(archs) == 20
    np.random.default_rng(5).shuffle(archs)
    manifest["networks"] = [
        {"key": arch.digest(), "arch": arch.to_json(), "file": ""} for arch in archs
    ]
    shown = next(iter(results["groups"][0]["operations"].values()))
    for group in results["groups"]:
        group["networks"] = {}
    for arch in archs:
        ms = line(table.sum(SPACE, arch))
        timing = {**shown, "ms": ms, "p10": ms, "p90": ms}
        results["groups"][0]["networks"][arch.digest()] = timing
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = imported(tmp_path / "results.json", tmp_path / "manifest.json")
    assert found.raw.networks == len(archs)
    assert found.held_out.mape == pytest.approx(0, abs=1e-6)
    assert found.held_out_raw.mape > 0.01
    out = tmp_path / "table.json"
    arguments = ["latency", "import", str(tmp_path / "results.json"), "--correct"]
    arguments += ["--pack", str(tmp_path / "manifest.json"), "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    kept = LatencyTable.load(out)
    assert kept.correction == corrected(found, SPACE).correction
    for arch in archs:
        assert kept.predict(SPACE, arch) == pytest.approx(line(table.sum(SPACE, arch)), rel=1e-6)


def test_measuring_goes_on_where_it_was(packed, tmp_path):
    document = json.loads((packed / "results.json").read_text())
    dropped, kept = document["groups"][0]["operations"], {}
    first = next(iter(dropped))
    for key in list(dropped):
        if key != first:
            kept[key] = dropped.pop(key)
    assert kept
    out = tmp_path / "results.json"
    out.write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"lacks {len(kept)} of the pack's"):
        imported(out, packed / "pack")
    done = measured(packed / "pack", out, "--device", "board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = json.loads(out.read_text())
    assert after["groups"][0] == document["groups"][0]
    assert set(after["groups"][1]["operations"]) == set(kept)
    assert not after["groups"][1]["networks"]
    assert set(imported(out, packed / "pack").table.entries) == set(kept) | {first}


def test_groups_are_brought_to_the_speed_of_the_first(packed, tmp_path):
    document = json.loads((packed / "results.json").read_text())
    slow = json.loads(json.dumps(document["groups"][0]))
    for kind in slow.values():
        for timing in kind.values():
            for name in ("ms", "p10", "p90"):
                timing[name] *= 3.0
    document["groups"].append(slow)
    (tmp_path / "results.json").write_text(json.dumps(document))
    twice = imported(tmp_path / "results.json", packed / "pack").table
    once = imported(packed / "results.json", packed / "pack").table
    for key, entry in once.entries.items():
        assert twice.entries[key].ms == pytest.approx(entry.ms)
    assert twice.overhead_ms == once.overhead_ms


def test_settings_that_differ_are_not_mixed(packed, tmp_path):
    out = shutil.copy(packed / "results.json", tmp_path / "results.json")
    other = measured(packed / "pack", out, "--device", "board", "--threads", "2", cwd=tmp_path)
    assert other.returncode == 1
    assert "of other settings" in other.stderr
    Path(out).write_text('{"format"')
    torn = measured(packed / "pack", out, cwd=tmp_path)
    assert "is damaged" in torn.stderr
    wrong = measured(packed / "pack", out, "--threads", "2", "--clock", "cpu", cwd=tmp_path)
    assert "one thread" in wrong.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "is no results of a pack"),
        (lambda d: d.update(version=2), "version 2"),
        (lambda d: d.update(pack="0" * 32), "of another pack"),
        (lambda d: d.pop("groups"), "it has no 'groups'"),
        (lambda d: d.update(groups=[]), "damaged"),
        (lambda d: d.update(settings={"clock": "sun"}), "damaged"),
        (lambda d: d["groups"][0]["beside"].pop("reference"), "damaged"),
        (lambda d: d["groups"][0]["beside"]["nothing"].update(ms="1"), "damaged"),
        (lambda d: next(iter(d["groups"][0]["operations"].values())).update(ms=-1.0), "damaged"),
    ],
)
def test_results_that_cannot_be_used_are_one_error(packed, tmp_path, change, message):
    document = json.loads((packed / "results.json").read_text())
    change(document)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        imported(file, packed / "pack")


def test_files_that_are_none_are_one_error(packed, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        imported(tmp_path / "none.json", packed / "pack")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        imported(tmp_path / "torn.json", packed / "pack")
    for path in (tmp_path, tmp_path / "none.zip", tmp_path / "torn.json"):
        with pytest.raises(DataError, match=r"no pack|damaged"):
            read_manifest(path)
    manifest = json.loads((packed / "pack" / "manifest.json").read_text())
    for change, message in (
        ({"version": 9}, "version 9"),
        ({"operations": [{}]}, "damaged"),
        ({"format": 1}, "is not that of a pack"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DataError, match=message):
            read_manifest(tmp_path)


def test_a_pack_is_not_written_over_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other things"):
        write_pack(tmp_path, iter([]))
    with pytest.raises(ConfigError, match="is a file"):
        write_pack(tmp_path / "thesis.txt", iter([]))
    with pytest.raises(ConfigError, match="zero or more"):
        next(pack(SPACE, networks=-1))


def test_the_commands_pack_a_zip_file_and_import_it(packed, tmp_path):
    files = [
        (str(path.relative_to(packed / "pack")), path.read_bytes())
        for path in sorted((packed / "pack").rglob("*"))
        if path.is_file()
    ]
    zipped = tmp_path / "pack.zip"
    write_pack(zipped, iter(files))
    assert read_manifest(zipped) == read_manifest(packed / "pack")
    out = tmp_path / "table.json"
    arguments = ["latency", "import", str(packed / "results.json"), "--out", str(out)]
    found = CliRunner().invoke(app, [*arguments, "--pack", str(zipped)])
    assert found.exit_code == 0, found.output
    assert "of board" in found.stdout
    assert "sums, all 2" in found.stdout
    assert LatencyTable.load(out).entries == imported(packed / "results.json", zipped).table.entries
    plain = CliRunner().invoke(app, [*arguments, "--pack", str(zipped), "--json"])
    assert json.loads(plain.stdout)["agreement"]["sums, all 2"]["networks"] == 2


def test_the_command_writes_a_pack(tmp_path):
    few = ("depths=[1]", "kernels=[3]", "widths=[4]", "strides=[1]", "dense_widths=[4]",
           "input=[1,8,8]", "classes=3")  # fmt: skip
    arguments = ["latency", "pack", "chain", "--networks", "0", "--json"]
    arguments += [word for setting in few for word in ("--set", setting)]
    found = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "pack")])
    assert found.exit_code == 0, (found.output, found.exception)
    # Beside the operations: two networks, the script and the manifest.
    files = json.loads(found.stdout)["files"]
    assert files == len(read_manifest(tmp_path / "pack").titles) + 4

"""``nas latency profile`` and ``check`` as a user runs them, in processes that measure for real."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_cli import nas  # noqa: F401  (a fixture)

from evaluators.latency import MeasuredLatency
from nas.architecture import Architecture
from nas.components import create
from nas.described import described
from nas.errors import ConfigError, UnsupportedRequest
from nas.latency import fresh
from nas.latency.measure import Protocol
from nas.latency.operations import operations
from nas.latency.table import LatencyTable, continued, empty_table, profiled
from nas.space import sample
from nas.testing.toys import FlatSpace, toy_proposals
from nas.trial import Measured

SETTINGS = {
    "name": "chain",
    "input": [1, 8, 8],
    "depths": [1, 2, 3],
    "kernels": [1, 3],
    "widths": [4],
    "strides": [1],
    "dense": [0],
}
WORDS = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items() if key != "name"]
ARGUMENTS = ("chain", "--set", *WORDS, "--backend", "torch", "--seconds", "0.01")
QUICK = Protocol(seconds=0.01, rounds=1)


def small():
    return create("spaces", SETTINGS, "space")


def test_profile_check_correct_and_go_on(nas, tmp_path):  # noqa: F811  (the fixture)
    done = nas("latency", "profile", *ARGUMENTS, "--out", "t.json", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    space = small()
    table = LatencyTable.load(tmp_path / "t.json")
    assert set(table.entries) == set(operations(space))
    assert said["measured_now"] == said["operations"] == len(table.entries)
    assert table.machine["cores"] >= 1
    assert table.machine["versions"]["torch"]
    assert table.protocol.threads == 1
    assert table.reference_ms > table.overhead_ms >= 0
    assert all(entry.ms > 0 and entry.samples >= 1 for entry in table.entries.values())

    # As a killed run leaves it: some are there, and are not measured again.
    kept = dict(list(table.entries.items())[:-2])
    document = {**table.document()}
    document["entries"] = {key: document["entries"][key] for key in kept}
    (tmp_path / "t.json").write_text(json.dumps(document))
    done = nas("latency", "profile", *ARGUMENTS, "--out", "t.json")
    assert done.code == 0, done.err
    assert f"{len(table.entries)} operations, 2 of them measured now" in done.out
    again = LatencyTable.load(tmp_path / "t.json")
    assert set(again.entries) == set(table.entries)
    assert {key: again.entries[key] for key in kept} == kept

    done = nas("latency", "check", "t.json", "--n", "20", "--correct", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["raw"]["networks"] == 20
    assert found["held_out_raw"]["networks"] == found["held_out_corrected"]["networks"] == 10
    assert LatencyTable.load(tmp_path / "t.json").correction.document() == found["correction"]
    folder = tmp_path / "t_check"
    assert (folder / "check.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "check.json").read_text()) == found
    measured = (folder / "measured.json").read_bytes()

    # The same check again measures nothing anew.
    done = nas("latency", "check", "t.json", "--n", "20")
    assert done.code == 0, done.err
    assert "MAPE" in done.out
    assert (folder / "measured.json").read_bytes() == measured
    (folder / "measured.json").write_text("{")
    done = nas("latency", "check", "t.json", "--n", "20")
    assert done.code == 2
    assert "measured.json is damaged" in done.err


def test_mistakes_are_one_message(nas, tmp_path):  # noqa: F811  (the fixture)
    empty_table(small(), "torch", QUICK, "chain", "t.json").save(tmp_path / "t.json")
    for arguments, said in (
        (("profile", "chain", "--out", "n.json", "--backend", "torhc"), "did you mean 'torch'"),
        (("profile", "darts", "--out", "t.json", "--backend", "torch"), "is of the space"),
        (("profile", *ARGUMENTS, "--out", "t.json", "--clock", "cpu"), "measured with clock"),
        (
            ("profile", "chain", "--out", "t.json", "--backend", "torch_compile"),
            "is of the backend 'torch'",
        ),
        (("check", "t.json"), "is empty"),
        (("check", "none.json"), "cannot be read"),
    ):
        done = nas("latency", *arguments)
        assert done.code == 2, arguments
        assert said in done.err, done.err
        assert not (tmp_path / "n.json").exists()


def test_a_table_is_kept_after_each_group():
    space = small()
    wanted = dict(list(operations(space).items())[:5])
    seen = []
    table = profiled(
        empty_table(space, "torch", QUICK),
        space,
        wanted,
        lambda made, waiting: seen.append((len(made.entries), waiting)),
        group=2,
    )
    assert seen == [(2, 3), (4, 1), (5, 0)]
    assert list(table.entries) == list(wanted)


@pytest.mark.parametrize(
    "backend",
    [pytest.param(b, marks=pytest.mark.slow) for b in ("onnxruntime", "onnxruntime_int8")],
)
def test_files_for_onnxruntime_are_measured(backend):
    pytest.importorskip("onnxruntime")
    space = small()
    arch = sample(space, np.random.default_rng(1))
    wanted = list(operations(space, [arch]).values())[:1]
    (group,) = fresh.measured(space, [*wanted], backend, QUICK)
    assert group.timings[wanted[0].key].ms > 0
    assert group.overhead.ms > 0
    assert "onnxruntime" in group.machine["versions"]


def test_a_table_of_another_machine_is_not_gone_on_with():
    table = empty_table(small(), "torch", QUICK)
    moved = {**table.machine, "cpu": "another"}
    other = LatencyTable(
        table.space, table.description, "torch", QUICK, moved, 0.0, 0.0, {}, file="t.json"
    )
    with pytest.raises(ConfigError, match="was measured elsewhere: its cpu is 'another'"):
        continued(other, small(), "torch", QUICK)


def test_a_measuring_evaluator_measures():
    space = FlatSpace()
    proposal = toy_proposals(space, 1)[0]
    outcome = MeasuredLatency(space, "torch", seconds=0.01).evaluate(proposal)
    assert isinstance(outcome, Measured)
    assert outcome.values["latency_ms"] > 0
    assert outcome.notes["machine"]["cpu"]


def test_errors_cross_from_the_process_that_measures(monkeypatch, capfd):
    with pytest.raises(UnsupportedRequest, match="lives in a script"):
        list(fresh.measured(_in_a_script(), [_any(_in_a_script())], "torch", QUICK))
    with pytest.raises(ConfigError, match="no backend 'torhc'"):
        list(fresh.measured(small(), [_any(small())], "torhc", QUICK))
    monkeypatch.setattr(fresh, "describe", lambda space: {"name": "os:abort"})
    with pytest.raises(UnsupportedRequest, match="ended with code"):
        list(fresh.measured(small(), [_any(small())], "torch", QUICK))
    capfd.readouterr()  # what the process said as it died


def _any(space) -> Architecture:
    return sample(space, np.random.default_rng(0))


def _in_a_script():
    from torch import nn

    def local(builder):
        return nn.Sequential(nn.Flatten(), nn.Linear(4, builder.number("width", (2, 3))))

    return described(local, input=(1, 2, 2), classes=2)

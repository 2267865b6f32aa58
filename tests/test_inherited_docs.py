"""The page on inherited weights, and the experiment behind its numbers, run as they stand."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from nas.config import build
from nas.errors import DataError
from nas.history import History
from nas.search import search

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "inherited_weights.md").read_text()


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(code, "docs/inherited_weights.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"wider", "deeper", "kernel"}
    assert all(line.split()[2] == "True" for line in lines)


def test_the_configuration_runs():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    run = build(yaml.safe_load(re.sub(r"first_epochs: \d+", "first_epochs: 2", text)))
    trials = list(search(run.strategy, run.evaluator, run.executor, run.budget, History()))
    notes = [trial.notes["inherited"] for trial in trials if trial.proposal.parent is not None]
    assert len(notes) == 6
    assert all(set(note) <= {"parent", "share", "preserved", "why"} for note in notes)
    assert any(note["share"] > 0 for note in notes)


@pytest.mark.slow
def test_the_experiment_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.setattr(sys, "argv", ["experiment"])
    import inherited_weights

    try:
        inherited_weights.main(
            ["--images", "200", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path / "found")]
        )
    except DataError as error:
        pytest.skip(str(error))
    children = json.loads((tmp_path / "found.json").read_text())["children"]
    assert len(children) == 8
    assert max(child["difference"] for child in children) <= 1e-5
    assert "| chain | wider |" in capsys.readouterr().out
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")

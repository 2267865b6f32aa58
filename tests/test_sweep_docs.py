"""The page on sweeps: its example runs, from a file and from Python."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from nas.sweep.files import read_sweep
from nas.sweep.grid import planned

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sweeps.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_example_runs_from_python(tmp_path, monkeypatch):
    changed = YAML[0].replace("trials: 100", "trials: 8").replace("[0, 1, 2, 3, 4]", "[0]")
    (tmp_path / "sweep.yaml").write_text(changed + "executor: serial\n")
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(SCRIPT, found)
    assert found["errors"] == {}
    table = found["table"]
    assert [row["labels"]["strategy"] for row in table["rows"]] == [
        "random",
        "evolution",
        "NSGA-II",
    ]
    assert [row["trials"] for row in table["rows"]] == [8, 8, 8]
    folder = tmp_path / "runs" / "sweep"
    assert (folder / read_sweep(folder).searches[0].folder / "journal.jsonl").exists()


def test_what_else_is_shown_can_be_planned():
    document = yaml.safe_load(YAML[0])
    tables = yaml.safe_load(YAML[1])["axes"]["table"]
    del tables["CIFAR-10"]  # its file does not come with the package
    axes = {"table": tables, **document["axes"]}
    assert len(planned({**document, "axes": axes}, "sweep").sweep.searches) == 15
    more = planned({**document, "searches": yaml.safe_load(YAML[2])["searches"]}, "sweep")
    assert more.sweep.searches[-1].config["budget"] == {"trials": 500}
    assert len(more.sweep.searches) == 16


def test_the_experiment_is_what_the_page_says():
    document = yaml.safe_load((ROOT / "experiments" / "sweep.yaml").read_text())
    assert {axis: len(labels) for axis, labels in document["axes"].items()} == {
        "strategy": 4,
        "table": 2,
        "seed": 5,
    }
    document["axes"]["table"] = {"digits": {}}
    assert len(planned(document, "sweep").sweep.searches) == 20

"""The pages on own strategies, evaluators and executors, followed literally in an empty folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from test_tutorial_site import follow
from tutorial_script import script

from nas import registry

DOCS = Path(__file__).parents[1] / "docs"
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


def trials(folder: Path) -> list[str]:
    """The kinds of a run's outcomes."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [one["outcome"]["kind"] for one in events if one["event"] == "trial"]


def passed(printed: str) -> int:
    assert not re.search(r"\d failed, ", printed)
    return int(re.findall(r"(\d+) passed", printed)[-1])


@pytest.mark.slow
def test_a_strategy_of_ones_own(tmp_path: Path) -> None:
    printed = follow(script(DOCS / "own_strategy.md"), tmp_path, PATH)
    assert passed(printed) > 20
    assert trials(tmp_path / "runs" / "annealed") == ["measured"] * 220
    header = json.loads((tmp_path / "runs/annealed/journal.jsonl").read_text().splitlines()[0])
    assert header["strategy"]["name"] == "annealing:Annealing"
    assert header["strategy"]["cooling"] == 0.98


def test_an_evaluator_of_ones_own(tmp_path: Path) -> None:
    printed = follow(script(DOCS / "own_evaluator.md"), tmp_path, PATH)
    assert passed(printed) > 5
    found = trials(tmp_path / "runs" / "noisy")
    assert found.count("measured") == 6
    assert "failed" not in found


def test_an_executor_of_ones_own(tmp_path: Path) -> None:
    commands = script(DOCS / "own_plugin.md", passing=("toml",))
    assert passed(follow(commands, tmp_path, PATH)) > 10


def test_the_groups_named_are_those_of_the_registry() -> None:
    text = (DOCS / "own_plugin.md").read_text()
    shown = re.findall(r'^\[project\.entry-points\."nasforge\.(\w+)"\]$', text, re.MULTILINE)
    assert set(shown) <= set(registry.KINDS)
    for kind in registry.KINDS:
        assert f".{kind}`" in text


@pytest.mark.parametrize("name", ["annealing", "processes"])
def test_what_the_plug_in_registers_is_shown(name: str) -> None:
    text = (DOCS / "own_plugin.md").read_text()
    ((module, attribute),) = re.findall(rf'^{name} = "(\w+):(\w+)"$', text, re.MULTILINE)
    pages = "".join((DOCS / page).read_text() for page in ("own_strategy.md", "own_plugin.md"))
    assert f"`{module}.py`:" in pages
    assert f"class {attribute}:" in pages

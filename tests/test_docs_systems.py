"""The pages of systems: all of them, with paper and settings, and configurations that run."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from test_cli import nas  # noqa: F401  (a fixture)

from nas import registry
from nas.config import build

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

import results  # noqa: E402  (docs/hooks)
import systems  # noqa: E402
import texts  # noqa: E402

KINDS = ("strategies", "spaces", "evaluators")
COMPONENTS = [(kind, name) for kind in KINDS for name in registry.names(kind)]
PUBLISHED = [("published", name) for name in systems.TOLD["published"]]
NO_PAPER = {"chain", "cost", "latency", "staged", "surrogate", "training"}


def configuration(kind: str, name: str) -> tuple[str, str]:
    """What a page shows: the configuration, and the commands before it."""
    told = systems.TOLD.get(kind, {}).get(name) or {}
    text = told["config"] if kind == "published" else systems.configuration(kind, name)
    return text, told.get("before", "")


@pytest.mark.parametrize(("kind", "name"), COMPONENTS + PUBLISHED)
def test_its_configuration_builds_and_has_it(kind: str, name: str) -> None:
    text, before = configuration(kind, name)
    if before:
        pytest.skip("needs a file that a command before it makes: see the test of those")
    run = build(yaml.safe_load(text))
    used = {"strategies": name} if kind == "strategies" else {}
    parts = systems.TOLD["published"][name]["parts"] if kind == "published" else {kind: name}
    assert re.search(rf"\b{parts.get('strategies', used.get('strategies', ''))}\b", text)
    assert all(re.search(rf"\b{part}\b", text) or part == "staged" for part in parts.values())
    assert run.strategy.space is run.space


def test_those_that_need_a_file_are_few() -> None:
    needing = [name for kind, name in COMPONENTS + PUBLISHED if configuration(kind, name)[1]]
    assert needing == ["latency", "surrogate", "mnasnet"]


def test_the_command_before_a_surrogates_configuration_makes_it(nas, tmp_path):  # noqa: F811
    text, before = configuration("evaluators", "surrogate")
    done = nas(*shlex.split(before)[1:])
    assert done.code == 0, done.err
    (tmp_path / "search.yaml").write_text(text.replace("trials: 100", "trials: 3"))
    done = nas(*shlex.split(systems.command(""))[1:])
    assert done.code == 0, done.err
    assert (tmp_path / "runs" / "search" / "journal.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), COMPONENTS + PUBLISHED)
def test_its_configuration_runs(kind, name, nas, tmp_path):  # noqa: F811
    """As it stands, but for two trials and the fewest epochs."""
    text, before = configuration(kind, name)
    for command in before.strip().splitlines():
        short = ["--seconds", "0.002"] if "profile" in command else []
        done = nas(*shlex.split(command)[1:], *short)
        assert done.code == 0, done.err
    changed = re.sub(r"(?<!\w)epochs: \d+", "epochs: 2", text)
    changed = changed.replace("warmup_epochs: 3", "warmup_epochs: 1")
    if name in ("fbnet", "pc_darts"):  # whose warm-up is longer than that
        changed = changed.replace("{epochs: 2}", "{epochs: 2, warmup_epochs: 1}")
    changed = re.sub(r"budget: .*", "budget: {trials: 2}", changed)
    changed = changed.replace("schedule_epochs: 2", "schedule_epochs: 9")
    (tmp_path / "search.yaml").write_text(changed)
    done = nas("search", "search.yaml", "--out", "run")
    assert done.code == 0, done.err
    assert '"kind":"measured"' in (tmp_path / "run" / "journal.jsonl").read_text()


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_its_page_has_paper_settings_and_command(kind: registry.Kind, name: str) -> None:
    page = systems.component_page(kind, name)
    head = page.split("## How to run it")[0]
    assert name in NO_PAPER or re.search(r"\b(19|20)\d\d\b", head)
    assert "nas search search.yaml" in page
    for argument in inspect.signature(registry.load(kind, name)).parameters:
        if argument not in systems.GIVEN:
            row = re.search(rf"^\| `{argument}` \| .+ \| (.*) \|$", page, flags=re.MULTILINE)
            assert row, argument
            assert row.group(1), f"{argument} is not explained"


def test_the_file_beside_it_names_what_there_is() -> None:
    for kind in KINDS:
        assert set(systems.TOLD[kind]) <= set(registry.names(kind))
    for told in systems.TOLD["published"].values():
        for kind, part in told["parts"].items():
            assert part in registry.names(kind)
    index = systems.index_page()
    for kind in registry.KINDS:
        assert all(f"]({kind}/{name}.md)" in index for name in registry.names(kind))


def test_docstrings_are_read_into_prose_and_arguments() -> None:
    text = (
        "One.\n\nMore:\n- a\n- b\n\nArgs:\n    x, y: both\n        of them.\n    z: it.\n\nEnd.\n"
    )
    assert texts.prose(text) == "One.\n\nMore:\n\n- a\n- b\n\nEnd."
    assert texts.arguments(text) == {"x": "both of them.", "y": "both of them.", "z": "it."}


def test_the_list_of_results_has_each_page_with_its_command() -> None:
    rows = results.index_page().splitlines()
    for path in (ROOT / "docs" / "results").glob("*.md"):
        (row,) = (row for row in rows if f"]({path.name})" in row)
        assert re.search(r"`(python experiments/|nas )", row), path.name

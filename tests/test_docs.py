"""What the docs show is what the code gives."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import pytest
import yaml

from nas import registry
from nas.catalogue import size_text, summarise_space
from nas.config import build
from nas.cost import architecture_cost
from nas.history import History
from nas.points import points_of, published
from nas.search import search
from nas.trial import Measured

ROOT = Path(__file__).parents[1]
SPACES = (ROOT / "docs" / "spaces.md").read_text()
sys.path.insert(0, str(ROOT / "experiments"))


def test_exported_examples_are_what_export_writes():
    from exported_examples import EXAMPLES, source

    for name, (reference, settings) in EXAMPLES.items():
        assert (ROOT / "docs" / "exported" / name).read_text() == source(reference, settings)


def rows(heading):
    section = SPACES.split(f"# {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_space_is_in_the_table_with_its_size():
    table = rows("Search spaces")
    assert set(table) == set(registry.names("spaces"))
    for name, row in table.items():
        if name != "mbconv":
            assert row[-1] == size_text(summarise_space(name).size)


@pytest.mark.parametrize("reference", sorted(rows("Published networks")))
def test_published_networks_cost_what_the_table_says(reference):
    found = architecture_cost(*published(reference))
    assert rows("Published networks")[reference] == [f"{found.parameters:,}", f"{found.macs:,}"]


def test_every_published_network_is_in_the_table():
    named = {f"{space}:{p}" for space in registry.names("spaces") for p in points_of(space)}
    assert set(rows("Published networks")) == named


WEIGHT_SHARING = (ROOT / "docs" / "weight_sharing.md").read_text()


@pytest.mark.parametrize("index", [0, 1])
def test_configurations_of_weight_sharing_run(index, tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", WEIGHT_SHARING, flags=re.DOTALL)
    assert len(blocks) == 2
    changed = re.sub(r"epochs: \d+", "epochs: 1", blocks[index])
    changed = re.sub(r"trials: \d+", "trials: 3", changed).replace("channels: 8", "channels: 2")
    run = build(yaml.safe_load(changed))
    history = History(tmp_path / "run")
    trials = list(search(run.strategy, run.evaluator, run.executor, run.budget, history))
    assert len(trials) == (1, 3)[index]
    assert all(isinstance(trial.outcome, Measured) for trial in trials)
    assert (tmp_path / "run" / "supernet.safetensors").exists() == bool(index)


STRATEGIES = (ROOT / "docs" / "strategies.md").read_text()
CONFIGURATIONS = re.findall(r"```yaml\n(.*?)```", STRATEGIES, flags=re.DOTALL)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=["limit", "asha", "inherited", "table"])
def test_configurations_of_strategies_run(text):
    changed = re.sub(r"epochs: \d+", "epochs: 1", text).replace("channels: 8", "channels: 2")
    changed = re.sub(r"budget: .*", "budget: {trials: 4}", changed)
    changed = changed.replace("max_epochs: 1", "max_epochs: 3")
    changed = changed.replace("schedule_epochs: 1", "schedule_epochs: 3")
    run = build(yaml.safe_load(changed))
    trials = list(search(run.strategy, run.evaluator, run.executor, run.budget, History()))
    assert sum(isinstance(trial.outcome, Measured) for trial in trials) >= 4


def test_every_strategy_is_in_a_table():
    def named(text):
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, flags=re.MULTILINE)
        return {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    sharing, black_box = named(WEIGHT_SHARING), named(STRATEGIES)
    assert not sharing & black_box
    assert sharing | black_box == set(registry.names("strategies"))


def test_the_page_on_the_encoding_shows_what_comes_out():
    text = (ROOT / "docs" / "encoding.md").read_text()
    session = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(session, {}, "encoding.md", None, 0)
    assert len(test.examples) > 30
    said: list[str] = []
    assert not doctest.DocTestRunner().run(test, out=said.append).failed, "".join(said)

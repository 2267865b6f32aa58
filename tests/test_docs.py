"""What the docs show is what the code gives."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from nas import registry
from nas.catalogue import size_text, summarise_space
from nas.cost import architecture_cost
from nas.points import points_of, published

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

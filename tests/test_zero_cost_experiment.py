"""The experiment on zero-cost proxies goes on where it was, and chooses without a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nas.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))


def test_a_file_of_scores_that_was_cut_off_is_taken_up(tmp_path):
    from zero_cost import read

    path, settings = tmp_path / "run" / "snip.jsonl", {"format": 1, "seed": 0}
    assert read(path, settings) == {}
    with path.open("a") as file:
        file.write(json.dumps({"arch": "a", "ms": 1.0}) + "\n" + '{"arch": "b", "m')
    assert list(read(path, settings)) == ["a"]
    assert path.read_text().endswith('"ms": 1.0}\n')
    with pytest.raises(DataError, match="other settings"):
        read(path, {"format": 1, "seed": 1})


def test_architectures_are_different_and_the_same_every_time():
    from zero_cost import drawn

    assert len(set(drawn(200, 0))) == 200
    assert drawn(200, 0)[:50] == drawn(50, 0)
    assert drawn(50, 1) != drawn(50, 0)


@pytest.mark.slow
def test_sizes_are_compared_without_a_table(tmp_path):
    from zero_cost import SIZES, main

    main(["--choose", "3", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "choose.json").read_text())
    assert len(rows) == len(SIZES) + 2
    assert rows[0]["all four"] == pytest.approx(1.0)

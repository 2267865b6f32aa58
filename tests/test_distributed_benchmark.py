"""The benchmark of searches on Ray: a little of everything, and the page from what it wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "benchmarks" / "distributed.py"


def benchmark(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, str(SCRIPT), "--quick", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


def test_a_part_is_measured_once_and_a_page_needs_them_all(tmp_path):
    file = tmp_path / "found.json"
    done = benchmark("--out", file, "--part", "throughput")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(file.read_text())
    assert found["format"] == 1
    part = found["parts"]["throughput"]
    assert [row["workers"] for row in part["rounds"]] == [1, 2]
    for row in part["rounds"]:
        assert 0 < row["busy"] <= 1
        assert part["least_s"] <= row["mean_s"] <= part["most_s"] + 0.05
    before = file.read_bytes()
    again = benchmark("--out", file, "--part", "throughput")
    assert "throughput: in" in again.stdout
    assert file.read_bytes() == before
    refused = benchmark("--out", file, "--part", "throughput", "--page", tmp_path / "page.md")
    assert "no page yet: long, nodes, overhead not measured" in refused.stderr


@pytest.mark.slow
def test_all_parts_and_their_page(tmp_path):
    file, page = tmp_path / "found.json", tmp_path / "found.md"
    done = benchmark("--out", file, "--page", page)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = json.loads(file.read_text())["parts"]
    killed = parts["nodes"]["killed"]
    assert (killed["measured"], killed["lost"], killed["twice"]) == (18, 0, 0)
    assert 6 <= killed["killed_after"] < 18
    assert parts["overhead"]["median"]["tune"] > parts["overhead"]["median"]["serial"]
    for row in parts["long"]["rows"]:
        assert [point["trials"] for point in row["points"]] == [
            row["trials"] * tenth // 10 for tenth in range(1, 11)
        ]
    text = page.read_text()
    assert (tmp_path / "found_long.png").read_bytes().startswith(b"\x89PNG")
    assert "(found_long.png)" in text
    assert "nan" not in text


def test_the_page_in_the_documentation_is_what_is_written():
    """Every table of it has the rows that the benchmark writes, and no others."""
    text = (ROOT / "docs" / "results" / "distributed.md").read_text()
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import distributed_page
    finally:
        sys.path.remove(str(SCRIPT.parent))
    headings = re.findall(r"^#+ .*$", distributed_page.PAGE, flags=re.MULTILINE)
    fixed = [heading for heading in headings if "{" not in heading]
    assert [line for line in text.splitlines() if line in fixed] == fixed
    assert (ROOT / "docs" / "results" / "distributed_long.png").exists()

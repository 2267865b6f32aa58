"""docs/tutorial.md, followed literally in an empty folder: an exported network of an own space."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tutorial_script import script

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
SMALLER = (
    ("budget: {trials: 12}", "budget: {trials: 4}"),
    ("population_size: 8", "population_size: 3"),
    ("--seconds 0.1", "--seconds 0.01"),
    ("--epochs 15", "--epochs 5"),
)


def follow(commands: str, folder: Path, path: str) -> str:
    """What a shell prints that runs these commands in a folder, where nothing may fail."""
    known = {"HOME", "LANG", "TMPDIR", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE"}
    environment = {name: value for name, value in os.environ.items() if name in known}
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=folder,
        env=environment | threads | {"PATH": path, "NASFORGE": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def check(folder: Path, printed: str, trials: int = 12, share: float = 0.9) -> None:
    """The network is one of the reader's space, keeps the limit and classifies the images."""
    told = json.loads((folder / "found" / "architecture.json").read_text())
    assert told["search_space"]["name"] == "my_space:space"
    journal = (folder / "runs" / "first" / "journal.jsonl").read_text().splitlines()
    finished = [json.loads(line) for line in journal if '"event":"trial"' in line]
    measured = [t["outcome"]["values"] for t in finished if t["outcome"]["kind"] == "measured"]
    limits = re.findall(r"^limit: ([\d.]+) ms$", printed, flags=re.MULTILINE)
    assert len(measured) == trials
    assert len(finished) > trials  # two thirds of the space are too slow
    assert max(one["latency_ms"] for one in measured) <= float(limits[0])
    right = re.findall(r"^(found/\S+): (\d+) of 360 right$", printed, flags=re.MULTILINE)
    assert [name for name, _ in right] == ["found/model.onnx", "found/model.int8.onnx"]
    assert all(int(count) > share * 360 for _, count in right), right
    assert "parameters: " in printed  # of model.py
    assert "<html" in (folder / "runs" / "first" / "report.html").read_text()


def test_the_page_leads_to_an_exported_network(tmp_path: Path) -> None:
    """With a smaller budget than it has, and the packages of the tests."""
    commands = script(PAGE, skip=1)
    for shown, small in SMALLER:
        assert shown in commands
        commands = commands.replace(shown, small)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    check(tmp_path, follow(commands, tmp_path, path), trials=4, share=0.3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_does_so_in_a_new_environment(tmp_path: Path) -> None:
    """With what the page installs and nothing else: needs the package index."""
    reached = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-d", tmp_path / "p", "mdurl"],
        capture_output=True,
        check=False,
    )
    if reached.returncode:
        pytest.skip("no package index can be reached")
    reader = tmp_path / "reader"
    reader.mkdir()
    printed = follow(script(PAGE), reader, "/usr/local/bin:/usr/bin:/bin")
    check(reader, printed)
    assert (reader / "venv" / "bin" / "nas").exists()


def test_the_script_is_the_whole_page() -> None:
    """Nothing that a reader sees is left out, but for the installing."""
    text = PAGE.read_text()
    fences = re.findall(r"^```(\w+)$", text, flags=re.MULTILINE)
    files = re.findall(r"^`([\w.]+)`:$", text, flags=re.MULTILINE)
    whole = script(PAGE)
    assert files == re.findall(r"^cat > (\S+) <<", whole, flags=re.MULTILINE)
    assert len(files) == sum(language != "bash" for language in fences) == 6
    assert "pip install" in whole
    assert "pip install" not in script(PAGE, skip=1)

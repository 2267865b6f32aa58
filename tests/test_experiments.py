"""The scripts a user launches run, at sizes that take a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def run(script: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXPERIMENTS / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_published_search_derives_retrains_and_exports(tmp_path: Path) -> None:
    out = run(
        "darts.py", "--small", "--space", "nasbench201", "--strategy", "gdas", "--out", "run",
        cwd=tmp_path,
    )  # fmt: skip
    assert "found: |" in out
    assert "'test_accuracy': " in out
    ran = subprocess.run(
        [sys.executable, "-I", "model.py"],
        cwd=tmp_path / "run" / "network",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["darts", "darts_second_order", "pc_darts", "snas"])
def test_the_darts_space_is_searched_by_other_strategies(tmp_path: Path, strategy: str) -> None:
    out = run("darts.py", "--small", "--strategy", strategy, "--out", "run", cwd=tmp_path)
    assert "found: Genotype(" in out


def test_the_cost_benchmark_measures(tmp_path: Path) -> None:
    run("benchmarks/cost.py", "chain", "--rounds", "1", "--json", "cost.json", cwd=tmp_path)
    assert json.loads((tmp_path / "cost.json").read_text())


@pytest.mark.parametrize("script", ["cost.py", "strategies.py", "supernet.py"])
def test_benchmarks_start(tmp_path: Path, script: str) -> None:
    assert "usage: " in run(f"benchmarks/{script}", "--help", cwd=tmp_path)


@pytest.mark.parametrize("script", sorted(p.name for p in EXPERIMENTS.glob("*.py")))
def test_scripts_say_how_they_are_run(script: str) -> None:
    source = (EXPERIMENTS / script).read_text()
    compile(source, script, "exec")
    launched = "__main__" in source and script != "quickstart.py"
    assert not launched or f"python experiments/{script}" in source


def test_the_tabular_experiment_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ["--strategies", "random", "local_search", "nsga2", "--queries", "50"]
    out = run("tabular.py", *arguments, "--seeds", "2", "--out", "run", cwd=tmp_path)
    for title in ("query by query", "against simulated time", "test error and MACs"):
        assert f"## digits: {title}" in out
    assert "| local_search | 2 |" in out
    blocks = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.npz")}
    assert len(blocks) == 8
    assert run("tabular.py", *arguments, "--seeds", "2", "--out", "run", cwd=tmp_path) == out
    assert {file: file.stat().st_mtime_ns for file in blocks} == blocks

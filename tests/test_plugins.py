"""A package of somebody else plugs in as the built-ins do: installed, found, built, searched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parent / "plugin_package"
NAMES = {
    "spaces": "funnel",
    "strategies": "hill_climbing",
    "evaluators": "gradient_norm",
    "datasets": "stripes",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the sample package is installed: by pip, from a copy, without a network."""
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (target / "funnels" / "space.py").exists()
    return target


@pytest.fixture
def python(installed, tmp_path):
    """Runs Python in an empty folder, with the package on its path."""

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_its_parts_are_unknown_where_it_is_not_installed():
    from nas import registry
    from nas.errors import ConfigError

    for kind, name in NAMES.items():
        assert name not in registry.names(kind)
        with pytest.raises(ConfigError, match=f"'{name}'"):
            registry.load(kind, name)


def test_the_command_line_lists_its_parts(python):
    for kind, name in NAMES.items():
        lines = json.loads(python("-m", "nas.cli", "list", kind, "--json"))
        assert lines[name]
        assert len(lines) > 1  # the built-ins are still there


SCRIPT = """
import json
from nas import registry
from nas.components import create, describe
from nas.objective import maximize, minimize

space = create("spaces", {"name": "funnel", "widths": [2, 6]}, "space")
data = create("datasets", {"name": "stripes", "examples": 40}, "data")
known = {"space": space, "data": data, "objectives": (maximize("gradient_norm"),), "seed": 3}
strategy = create("strategies", {"name": "hill_climbing", "warmup": 2}, "strategy", known)
evaluator = create("evaluators", "gradient_norm", "evaluator", known)
for kind, part in (
    ("spaces", space), ("datasets", data), ("strategies", strategy), ("evaluators", evaluator)
):
    description = json.loads(json.dumps(describe(part)))
    assert describe(create(kind, description, kind)) == description
    print(description["name"])
values = evaluator.evaluate(strategy.ask(1)[0]).values
print(strategy.warmup, strategy.seed, len(data.train), values)
"""


def test_descriptions_make_its_parts(python):
    *names, last = python("-c", SCRIPT).splitlines()
    assert names == ["funnel", "stripes", "hill_climbing", "gradient_norm"]
    assert last.startswith("2 3 40 {'gradient_norm': ")


def test_a_search_runs_with_its_parts_and_the_built_in_ones(python, tmp_path):
    config = {
        "space": {"name": "funnel", "widths": [4, 8]},
        "data": {"name": "stripes", "examples": 60},
        "strategy": {"name": "hill_climbing", "warmup": 2},
        "evaluator": ["cost", "gradient_norm", {"name": "training", "epochs": 2}],
        "objectives": ["maximize accuracy", {"minimize": "macs"}],
        "budget": {"trials": 5},
        "seed": 1,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    python("-m", "nas.cli", "search", "config.yaml", "--out", "run")
    shown = json.loads(python("-m", "nas.cli", "show", "run", "--json"))
    assert "funnel" in json.dumps(shown)
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    header, *events = [json.loads(line) for line in lines]
    assert header["strategy"]["name"] == "hill_climbing"
    assert header["strategy"]["space"] == {
        "name": "funnel",
        "classes": 2,
        "input": [1, 6, 6],
        "widths": [4, 8],
    }
    trials = [event["outcome"] for event in events if event["event"] == "trial"]
    assert [trial["kind"] for trial in trials] == ["measured"] * 5
    for trial in trials:
        assert {"macs", "gradient_norm", "accuracy"} <= set(trial["values"])
    # What was written down is enough to go on with it in another process.
    python("-m", "nas.cli", "resume", "run", "--set", "budget.trials=7")
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    numbers = [json.loads(line)["number"] for line in lines if '"event":"trial"' in line]
    assert numbers == list(range(7))


def test_its_own_contract_suites_pass(python, tmp_path):
    for name in ("contracts.py", "pyproject.toml"):
        shutil.copy(PACKAGE / name, tmp_path)
    report = python("-m", "pytest", "-q", "-rs", "contracts.py")
    passed = int(report.rpartition(" passed")[0].split()[-1])
    assert passed > 50, report
    assert "failed" not in report

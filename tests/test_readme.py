"""The README's examples are the files they show, and run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import Result, nas  # noqa: F401  (a fixture)
from torch import nn

from nas.cost import architecture_cost
from nas.described import described
from nas.layers import GlobalAveragePool
from nas.space import count, parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, index: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)[index]


def test_the_first_example_is_the_quickstart_and_short() -> None:
    script = (ROOT / "experiments" / "quickstart.py").read_text()
    assert block("python") == script
    assert len(script.splitlines()) < 25


def test_the_configuration_shown_is_the_quickstarts() -> None:
    assert block("yaml") == (ROOT / "experiments" / "quickstart.yaml").read_text()


def test_the_quickstart_runs_and_runs_again(tmp_path: Path) -> None:
    """As it stands but for its sizes; the second time it continues where it ended."""
    script = (ROOT / "experiments" / "quickstart.py").read_text()
    for old, new in (
        ("epochs=4)", "epochs=1, data_fraction=0.2)"),
        ("trials=30", "trials=4"),
        ("epochs=40", "epochs=2"),
    ):
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "quickstart.py").write_text(script)
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "quickstart.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "4 done" in ran.stderr
        assert "parameters: " in ran.stdout
        journal = (tmp_path / "runs" / "quickstart" / "journal.jsonl").read_text()
        assert journal.count('"event":"trial"') == 4
    assert (tmp_path / "runs" / "quickstart" / "front.png").exists()


def test_the_commands_shown_run(nas: Callable[..., Result], tmp_path: Path) -> None:  # noqa: F811
    """Every ``nas`` line of the README, with the sizes of its search cut down."""
    commands = [line for line in block("bash", 1).splitlines() if line.startswith("nas ")]
    assert len(commands) >= 8
    (tmp_path / "experiments").mkdir()
    config = (ROOT / "experiments" / "quickstart.yaml").read_text()
    small = config.replace("epochs: 4", "epochs: 1, data_fraction: 0.2")
    small = small.replace("trials: 30", "trials: 3")
    assert small != config
    (tmp_path / "experiments" / "quickstart.yaml").write_text(small)
    for command in commands:
        command = command.replace("--epochs 40", "--epochs 1")
        command = command.replace("budget.trials=40", "budget.trials=4")
        words = shlex.split(command)[1:]
        # A cluster is for a process of its own, which takes it along.
        done = alone(words, tmp_path) if "ray" in words else nas(*words)
        assert done.code == 0, command + done.err


def alone(words: list[str], folder: Path) -> Result:
    """What ``nas`` does in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "nas.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
    )
    return Result(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.slow
def test_the_quickstart_as_it_stands_reaches_97_percent(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "quickstart.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"'test_accuracy': ([\d.]+)", ran.stdout)
    assert found is not None
    assert float(found.group(1)) >= 0.97


def test_the_space_of_ones_own_is_one() -> None:
    class Block(nn.Sequential):
        def __init__(self, width: int, kernel_size: int) -> None:
            super().__init__(nn.Conv2d(width, width, kernel_size, padding="same"), nn.ReLU())

    names = {"nn": nn, "Block": Block, "described": described}
    names["GlobalAveragePool"] = GlobalAveragePool
    exec(block("python", 1), names)
    space = names["space"]
    assert count(space) == 2 * (2 + 4 + 8)
    arch = parse(space, "width=16 depth=2 kernel0=3 kernel1=5")
    first, second = (16 * 9 + 16) + (16 * 16 * 9 + 16) + (16 * 16 * 25 + 16), 16 * 10 + 10
    assert architecture_cost(space, arch).parameters == first + second

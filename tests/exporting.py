"""What the export tests share."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.export import export
from nas.space import Legal, SearchSpace, network, next_choice, sample

ROOT = Path(__file__).parents[1]


def randomised(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights, norms and their statistics drawn anew: fresh norms would hide a swapped tensor."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            weights[name] = torch.randint(1, 100, tensor.shape, generator=generator)
        elif name.endswith("running_var"):
            weights[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            weights[name] = torch.randn(tensor.shape, generator=generator) * 0.4
    return weights


def isolated(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def assert_clean(folder: Path) -> None:
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, str(folder)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def unused(source: str) -> set[str]:
    """What a file binds at its top level and no other statement of it uses."""
    body = ast.parse(source).body
    uses = [
        {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        for statement in body
    ]
    left = set()
    for index, statement in enumerate(body):
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            bound = {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            bound = {statement.name}
        elif isinstance(statement, ast.Assign):
            bound = {node.id for node in statement.targets if isinstance(node, ast.Name)}
        else:
            continue
        elsewhere = set().union(*uses[:index], *uses[index + 1 :])
        left |= bound - elsewhere
    return left


@dataclass(frozen=True)
class One:
    """A space with one choice, whose network is whatever a function makes."""

    make: Callable[[], nn.Module]
    input: tuple[int, ...] = (4,)
    classes: int = 2

    name = "one/v1"
    choices = (Choice("pick", (0, 1)),)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {}

    def build(self, builder: Builder) -> nn.Module:
        return self.make()


PICK = Architecture("one/v1", (("pick", 0),))


def export_one(make: Callable[[], nn.Module], folder: Path, input: tuple[int, ...] = (4,)) -> Path:
    space = One(make, input)
    return export(space, PICK, folder, randomised(make(), seed=0))


def export_and_run(space: SearchSpace, folder: Path, number: int = 3) -> None:
    """Random architectures, exported and run alone: equal to the bit, lint-clean, all used."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(number):
        arch = sample(space, rng)
        weights = randomised(network(space, arch), seed=index)
        files.append(export(space, arch, folder / str(index), weights) / "model.py")
    run_all = (
        "import runpy, sys\nfor file in sys.argv[1:]:\n    runpy.run_path(file, None, '__main__')"
    )
    done = isolated("-c", run_all, *map(str, files), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("largest difference from the stored output: 0 (") == number
    assert_clean(folder)
    for file in files:
        assert unused(file.read_text()) == set(), file

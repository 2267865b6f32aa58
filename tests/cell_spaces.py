"""What the tests of the spaces of cells share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from exporting import assert_clean, isolated, randomised
from torch import nn

from nas.cost import NetworkCost, architecture_cost, count
from nas.export import export
from nas.points import published
from nas.space import SearchSpace, network, sample
from nas.supernet import Supernet
from nas.supernet.discretize import discretize, one_hot_weights

DRIVER = """
import contextlib, io, runpy, sys
from pathlib import Path

import torch

x = torch.load(sys.argv[2], weights_only=True)
outputs = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    with contextlib.redirect_stdout(io.StringIO()):
        names = runpy.run_path(str(folder / "model.py"), run_name="__main__")
    model = names["build"]()
    model.load_state_dict(names["load"](folder / "model.safetensors"))
    with torch.no_grad():
        outputs[folder.name] = model.eval()(x), list(model.state_dict())
assert not {"nas", "search_spaces"} & {name.split(".")[0] for name in sys.modules}
torch.save(outputs, sys.argv[3])
"""


def assert_exports_run_alone(space: SearchSpace, folder: Path, number: int = 3) -> None:
    """Random architectures, exported: the same output to the bit, the same names, lint-clean."""
    rng = np.random.default_rng(0)
    models = {}
    (folder / "exports").mkdir()
    for seed in range(number):
        arch = sample(space, rng)
        model = network(space, arch)
        weights = randomised(model, seed)
        model.load_state_dict(weights)
        export(space, arch, folder / "exports" / str(seed), weights)
        models[str(seed)] = model.eval()
    x = torch.randn(3, *space.input, generator=torch.Generator().manual_seed(7))
    torch.save(x, folder / "x.pt")
    (folder / "driver.py").write_text(DRIVER)
    done = isolated("driver.py", "exports", "x.pt", "out.pt", cwd=folder)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(folder / "out.pt", weights_only=True)
    assert outputs.keys() == models.keys()
    for name, model in models.items():
        with torch.no_grad():
            assert torch.equal(outputs[name][0], model(x))
        assert outputs[name][1] == list(model.state_dict())
    assert_clean(folder / "exports")


def published_cost(reference: str, settings: Mapping[str, object] | None = None) -> NetworkCost:
    """Of a published network, built on meta and counted."""
    space, arch = published(reference, settings)
    with torch.device("meta"):
        model = network(space, arch)
    return count(model, space.input)


def assert_discretised_back(space: SearchSpace, number: int = 20) -> None:
    """``discretize(one_hot(slots(a))) == a``."""
    with torch.device("meta"):
        slots = Supernet(space).slots
    rng = np.random.default_rng(0)
    for _ in range(number):
        arch = sample(space, rng)
        assert discretize(space, one_hot_weights(space, arch, slots)) == arch


def assert_analytic_cost_is_counted(space: SearchSpace, number: int = 20) -> None:
    """The cost that is put together from parts equals that of the built network."""
    rng = np.random.default_rng(1)
    for _ in range(number):
        arch = sample(space, rng)
        with torch.device("meta"):
            model = network(space, arch)
        assert architecture_cost(space, arch) == count(model, space.input)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ------------------------------------------- parameters from genotypes, written independently


def operation_parameters(name: str, c: int, stride: int) -> int:
    """Of one operation of the literature, with affine norms."""
    words = name.split("_")
    k = int(words[-1].split("x")[-1]) if words[-1] != "connect" else 1
    match words[:2]:
        case ["skip", _]:
            return 0 if stride == 1 else c * c + 2 * c
        case ["max" | "avg", _]:
            return 0
        case ["sep", _]:
            return 2 * (k * k * c + c * c + 2 * c)
        case ["dil", _]:
            return k * k * c + c * c + 2 * c
        case ["conv", _] if len(words) == 3:  # conv_7x1_1x7
            return 2 * k * c * c + 2 * c
        case ["conv", _]:
            return k * k * c * c + 2 * c
    raise AssertionError(name)


def genotype_parameters(
    normal: Sequence[tuple[str, int]],
    normal_concat: int,
    reduce: Sequence[tuple[str, int]],
    reduce_concat: int,
    *,
    channels: int,
    cells: int,
    classes: int = 10,
) -> int:
    """Of the DARTS code's CIFAR network of a genotype: a sum over its cells."""
    c, before, last = channels, 3 * channels, 3 * channels
    total = 27 * before + 2 * before
    for index in range(cells):
        reduction = index in (cells // 3, 2 * cells // 3)
        c = 2 * c if reduction else c
        total += (before + last) * c + 4 * c  # both inputs' 1×1 convolutions and norms
        for name, source in reduce if reduction else normal:
            total += operation_parameters(name, c, 2 if reduction and source < 2 else 1)
        before, last = last, c * (reduce_concat if reduction else normal_concat)
    return total + last * classes + classes

"""Networks of described spaces, taken away: the user's own classes travel along."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import assert_clean, isolated, randomised, unused

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import own_space_digits
import own_space_transformer

from nas.export import export
from nas.space import network, sample
from nas.supernet import Supernet

SPACES = {"digits": own_space_digits.space, "transformer": own_space_transformer.space}

DRIVER = """
import runpy, sys
from pathlib import Path

import torch

outputs = {}
for folder in sorted(path for path in Path(".").iterdir() if path.is_dir()):
    names = runpy.run_path(str(folder / "model.py"), run_name="__main__")
    model = names["build"]()
    model.load_state_dict(names["load"](folder / "model.safetensors"))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        outputs[folder.name] = model.eval()(x)
assert not any(name.split(".")[0].startswith(("nas", "own_space")) for name in sys.modules)
torch.save(outputs, "outputs.pt")
"""


@pytest.mark.parametrize("name", SPACES)
def test_exported_files_give_the_same_alone(name, tmp_path):
    space = SPACES[name]()
    rng = np.random.default_rng(0)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    expected = {}
    for index in range(5):
        arch = sample(space, rng)
        model = network(space, arch)
        weights = randomised(model, seed=index)
        model.load_state_dict(weights)
        export(space, arch, tmp_path / str(index), weights)
        assert not unused((tmp_path / str(index) / "model.py").read_text())
        with torch.no_grad():
            expected[str(index)] = model.eval()(x)
    assert_clean(tmp_path)
    (tmp_path / "driver.py").write_text(DRIVER)
    done = isolated("driver.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert list(outputs) == list(expected)
    assert all(torch.equal(outputs[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", SPACES)
def test_weights_can_be_shared(name):
    """What the largest network's views compute, an extracted network does too."""
    space = SPACES[name]()
    torch.manual_seed(0)
    supernet = Supernet(space)
    rng = np.random.default_rng(1)
    x = torch.randn(2, *space.input)
    for _ in range(3):
        arch = sample(space, rng)
        with torch.no_grad():
            out = supernet.extract(arch).eval()(x)
            assert torch.equal(supernet.network(arch).eval()(x), out)
        assert out.abs().max() > 1e-4

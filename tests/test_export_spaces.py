"""Random architectures of every space, exported: they run alone and give the same to the bit."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import assert_clean, isolated, randomised, unused
from small_spaces import SMALL

from nas.cost import count
from nas.export import export
from nas.space import network, sample

NUMBER = 30
sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))


def _digits():
    import own_space_digits

    return own_space_digits.space()


def _transformer():
    import own_space_transformer

    return own_space_transformer.space()


SPACES = {**SMALL, "own CNN": _digits, "own Transformer": _transformer}
QUICK = ("chain", "nasbench201")


DRIVER = """
import contextlib, io, json, runpy, sys
from pathlib import Path

import torch

results = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        names = runpy.run_path(str(folder / "model.py"), run_name="__main__")
    model = names["build"]()
    weights = names["load"](folder / "model.safetensors")
    model.load_state_dict(weights)
    model.eval()
    shape = json.loads((folder / "architecture.json").read_text())["search_space"]["input"]
    with torch.no_grad():
        output = model(torch.randn(3, *shape, generator=torch.Generator().manual_seed(7)))
    results[folder.name] = {
        "stdout": stdout.getvalue(),
        "output": output,
        "keys": list(model.state_dict()),
        "file_keys": list(weights),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
results["loaded"] = sorted({name.split(".")[0] for name in sys.modules})
torch.save(results, sys.argv[2])
"""


@pytest.fixture(
    scope="module",
    params=[
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(SPACES)
    ],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Random architectures of a space: their networks and the folder of their exports."""
    space = SPACES[request.param]()
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    rng = np.random.default_rng(0)
    models = {}
    while len(models) < NUMBER:
        arch = sample(space, rng)
        name = arch.digest()
        if name in models:
            continue
        model = network(space, arch)
        weights = randomised(model, seed=len(models))
        model.load_state_dict(weights)
        export(space, arch, folder / name, weights)
        models[name] = model.eval()
    return space, folder, models


def test_exported_files_run_alone_and_give_the_same_to_the_bit(exported, tmp_path):
    space, folder, models = exported
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    done = isolated(str(driver), str(folder), str(tmp_path / "results.pt"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    assert not {"nas", "search_spaces", "safetensors"} & set(results.pop("loaded"))
    x = torch.randn(3, *space.input, generator=torch.Generator().manual_seed(7))
    assert results.keys() == models.keys()
    for name, model in models.items():
        found = results[name]
        with torch.no_grad():
            assert torch.equal(found["output"], model(x)), name
        assert found["keys"] == list(model.state_dict())
        assert sorted(found["file_keys"]) == sorted(model.state_dict())
        cost = count(model, space.input)
        assert found["parameters"] == cost.parameters
        assert f"parameters: {cost.parameters:,}\nMACs: {cost.macs:,}\n" in found["stdout"]


def test_exported_files_are_formatted_and_lint_clean(exported):
    _, folder, _ = exported
    assert_clean(folder)


def test_exported_files_import_torch_and_the_standard_library_only(exported):
    _, folder, _ = exported
    for file in folder.glob("*/model.py"):
        modules = {
            name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None) or node.names[0].name]
        }
        roots = {module.split(".")[0] for module in modules}
        assert roots - sys.stdlib_module_names == {"torch"}


def test_everything_in_an_exported_file_is_used(exported):
    _, folder, _ = exported
    for file in folder.glob("*/model.py"):
        assert unused(file.read_text()) == set(), file

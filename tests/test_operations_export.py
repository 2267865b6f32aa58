"""Operations in exported files: word for word, alone, to the bit."""

from __future__ import annotations

import pytest
import torch
from exporting import assert_clean, export_one, isolated, randomised, unused
from operation_texts import C_IN, TEXTS

from nas.export.graph import GRAPHS, PACKAGES, graphs_of
from nas.export.merge import merge
from nas.operations import parse_operation

DRIVER = """
import contextlib, io, runpy, sys
from pathlib import Path

import torch

outputs = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    with contextlib.redirect_stdout(io.StringIO()):
        names = runpy.run_path(str(folder / "model.py"), run_name="__main__")
    model = names["build"]()
    model.load_state_dict(names["load"](folder / "model.safetensors"))
    x = torch.randn(3, 16, 7, 9, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        outputs[folder.name] = model.eval()(x)
outputs["loaded"] = sorted({name.split(".")[0] for name in sys.modules})
torch.save(outputs, sys.argv[2])
"""


def test_every_operation_is_exported_to_the_bit(tmp_path):
    """One process of torch alone runs them all; folders are named by the operations' texts."""
    folder = tmp_path / "out"
    models = {}
    for text in TEXTS:
        if text == "none":
            continue
        factory = parse_operation(text).factory(C_IN)
        export_one(factory, folder / text, input=(C_IN, 7, 9))
        model = factory()
        model.load_state_dict(randomised(model, seed=0))
        models[text] = merge(model).eval()
    (tmp_path / "driver.py").write_text(DRIVER)
    results = tmp_path / "results.pt"
    done = isolated(str(tmp_path / "driver.py"), str(folder), str(results), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(results, weights_only=True)
    assert "nas" not in outputs.pop("loaded")
    x = torch.randn(3, C_IN, 7, 9, generator=torch.Generator().manual_seed(7))
    assert outputs.keys() == models.keys()
    for text, model in models.items():
        with torch.no_grad():
            assert torch.equal(outputs[text], model(x)), text
        source = (folder / text / "model.py").read_text()
        assert unused(source) == set(), text
        assert "from nas" not in source
    assert_clean(folder)


@pytest.mark.slow
def test_every_operation_is_a_graph():
    """Written as each format, read back and compared (to 1e-4) by the writing itself."""
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)
    for text in TEXTS:
        if text == "none":
            continue
        model = parse_operation(text).factory(C_IN)()
        model.load_state_dict(randomised(model, seed=0))
        with torch.no_grad():
            graphs = graphs_of(merge(model).eval(), (C_IN, 7, 9), GRAPHS, {"text": text})
        assert set(graphs) == set(GRAPHS)
        assert max(graph.difference for graph in graphs.values()) <= 1e-5, text

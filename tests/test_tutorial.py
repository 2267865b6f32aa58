"""docs/own_space.md: its files are those of experiments/, and all it shows runs as it stands."""

from __future__ import annotations

import ast
import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import assert_clean, isolated, randomised, unused

from nas import cli
from nas.errors import UnsupportedRequest
from nas.space import network, sample
from nas.supernet import Supernet

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
TUTORIAL = (ROOT / "docs" / "own_space.md").read_text()
FILES = ("own_space_digits", "own_space_transformer")
SMALLER = (
    (r"epochs=(3|10)\)", "epochs=1, data_fraction=0.2)"),
    (r"epochs: 3\}", "epochs: 1, data_fraction: 0.2}"),
    (r"trials=2\d", "trials=4"),
    (r"trials: 8", "trials: 3"),
    (r"budget\.trials=12", "budget.trials=4"),
    (r"epochs=(30|60)", "epochs=1"),
    (r"--epochs 30", "--epochs 1"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, flags=re.DOTALL | re.MULTILINE)


def smaller(text: str) -> str:
    """The same with the sizes of searches and trainings cut down."""
    for old, new in SMALLER:
        text = re.sub(old, new, text)
    return text


def folder(path: Path, change=lambda text: text) -> Path:
    """The reader's folder: the two files and the configuration."""
    for name in FILES:
        (path / f"{name}.py").write_text(change((EXPERIMENTS / f"{name}.py").read_text()))
    (path / "search.yaml").write_text(change(blocks("yaml")[0]))
    return path


def run(commands: str, path: Path) -> str:
    """What commands print; ``nas`` and ``python`` are those that run the tests."""
    printed = []
    for command in commands.splitlines():
        command = re.sub(r"^nas ", f"{sys.executable} -m nas.cli ", command)
        command = re.sub(r"^python ", f"{sys.executable} ", command)
        ran = subprocess.run(
            command,
            shell=True,
            cwd=path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        )
        assert ran.returncode == 0, command + ran.stdout + ran.stderr
        printed.append(ran.stdout)
    return "".join(printed)


def accuracy(printed: str) -> float:
    found = re.search(r"test_accuracy'?: ([\d.]+)", printed)
    assert found is not None, printed
    return float(found.group(1))


# --------------------------------------------------------------------------- what it shows


@pytest.mark.parametrize("index", [0, 1], ids=FILES)
def test_the_files_shown_are_the_experiments(index: int) -> None:
    first, second = blocks("python")[2 * index : 2 * index + 2]
    assert f"{first}\n\n{second}" == (EXPERIMENTS / f"{FILES[index]}.py").read_text()


@pytest.mark.parametrize(
    ("index", "names"), [(0, {"digits_cnn", "space"}), (2, {"digits_transformer", "space"})]
)
def test_a_space_is_described_in_under_30_lines(index: int, names: set[str]) -> None:
    tree = ast.parse(blocks("python")[index])
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in found} == names
    assert sum(node.end_lineno - node.lineno + 1 for node in found) < 30
    # Nothing to subclass but torch's own.
    bases = {ast.unparse(b) for n in tree.body if isinstance(n, ast.ClassDef) for b in n.bases}
    assert bases == {"nn.Module"}


def test_the_sessions_give_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path))
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    parser, sessions = doctest.DocTestParser(), blocks("pycon")
    assert len(sessions) == 3
    for session in sessions:
        names: dict[str, object] = {}
        test = parser.get_doctest(session, names, "own_space.md", None, 0)
        assert len(test.examples) > 5
        said: list[str] = []
        assert not doctest.DocTestRunner().run(test, out=said.append).failed, "".join(said)
    written = (tmp_path / "found" / "model.py").read_text()
    assert blocks("python")[-1] == written
    assert_clean(tmp_path / "found")
    assert not unused(written)
    done = isolated(str(tmp_path / "found" / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Of the classes, those of the file's network alone.
    classes = {n.name for n in ast.parse(written).body if isinstance(n, ast.ClassDef)}
    assert classes == {"Rows", "Attention", "MLP", "Residual", "TokenMean"}
    assert "LayerNorm" not in written


# ------------------------------------------------------------------------ it shares weights


def test_the_transformers_of_the_tutorial_share_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import own_space_transformer as tutorial

    own = tutorial.space()
    supernet = Supernet(own)
    supernet.load_state_dict(randomised(supernet, seed=0))
    supernet.eval()
    whole = supernet.largest[1][0]  # the first layer: its two parts may be wrapped
    (shared,) = [m for m in whole.modules() if isinstance(m, tutorial.Attention)]
    torch.manual_seed(0)
    rng, x = np.random.default_rng(0), torch.randn(2, *own.input)
    for _ in range(50):
        arch = sample(own, rng)
        fixed, copied = network(own, arch).eval(), supernet.extract(arch)
        fixed.load_state_dict(copied.state_dict())
        out = fixed(x)
        assert torch.equal(copied(x), out)
        assert torch.equal(supernet.network(arch)(x), out)
        out.square().sum().backward()
        supernet.zero_grad()
        supernet.network(arch)(x).square().sum().backward()
        sums = [
            sum(p.grad.double().square().sum() for p in net.parameters() if p.grad is not None)
            for net in (fixed, supernet)
        ]
        torch.testing.assert_close(*sums, rtol=1e-6, atol=0)
        attention, dim = fixed[1][0][0].inner, arch["dim"]
        for part in range(3):  # queries, keys, values
            rows = slice(part * 32, part * 32 + dim)
            taken = attention.qkv.weight[part * dim :][:dim]
            assert torch.equal(shared.qkv.weight[rows, :dim], taken)
            grad = attention.qkv.weight.grad[part * dim :][:dim]
            assert torch.equal(shared.qkv.weight.grad[rows, :dim], grad)

    monkeypatch.delattr(tutorial.Rows, "layouts")
    small = next(a for a in map(partial(sample, own), [rng] * 20) if a["dim"] < 32)
    with pytest.raises(UnsupportedRequest, match=r"places.*no rule"):
        Supernet(own).extract(small)


# -------------------------------------------------------------------------------- it runs


@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_the_scripts_search_and_export(index: int, tmp_path: Path) -> None:
    reader = folder(tmp_path, smaller)
    printed = run(blocks("bash")[index], reader)
    assert accuracy(printed) > 0
    journals = list(reader.glob("runs/*/journal.jsonl"))
    assert len(journals) == 1
    assert journals[0].read_text().count('"accuracy":') >= 4
    written = re.findall(r"^written: (.*)$", printed, flags=re.MULTILINE)[0]
    done = isolated(str(reader / written / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_clean(reader / written)


def test_the_commands_search_resume_and_retrain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder(tmp_path, smaller))
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def nas(command: str) -> str:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, before)
        assert not code, capfd.readouterr()
        return capfd.readouterr().out

    commands = smaller(blocks("bash")[1]).splitlines()
    assert [line.split()[:2] for line in commands] == [
        ["nas", word] for word in ("cost", "search", "resume", "show", "retrain")
    ]
    printed = [nas(command) for command in commands]
    assert "100 random architectures" in printed[0]
    assert "4 measured" in printed[3]
    assert accuracy(printed[4]) > 0
    journal = Path("runs/evolved/journal.jsonl").read_text()
    assert '"space":{"name":"own_space_digits:space"}' in journal.splitlines()[0]
    found = Path("runs/evolved/retrained/architecture.json")
    assert "macs" in nas(f"nas cost own_space_digits:space --arch {found}")


@pytest.mark.slow
def test_all_of_it_as_it_stands(tmp_path: Path) -> None:
    reader = folder(tmp_path)
    scores = [accuracy(run(commands, reader)) for commands in blocks("bash")]
    assert len(scores) == 3
    assert min(scores) > 0.95

"""Export: the file alone gives the framework's network, to the bit; or there is no file."""

from __future__ import annotations

import ast
import contextlib
import errno
import importlib
import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.cost import count
from nas.errors import ExportError, InvalidArchitecture
from nas.export import export, runner
from nas.export.definitions import Definitions
from nas.export.expression import spell
from nas.export.verify import verify
from nas.space import Legal, network, next_choice, parse, sample
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201

ROOT = Path(__file__).parents[1]
FILES = {"model.py", "model.safetensors", "check.safetensors", "architecture.json"}
SPACES = {
    "nasbench201": NasBench201(channels=4, cells=1, input=(3, 8, 8)),
    "chain": Chain(input=(1, 8, 8)),
}


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


# --------------------------------------------------------------------- the spaces, at large

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


@pytest.fixture(scope="module", params=list(SPACES))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """50 random architectures of a space: their networks and the folder of their exports."""
    space = SPACES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    models = {}
    while len(models) < 50:
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


def assert_clean(folder: Path) -> None:
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, str(folder)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


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


def test_unused_sees_what_is_unused():
    source = "import os\nimport sys\nclass A: pass\ndef f(): return f() or sys\nX = A"
    assert unused(source) == {"os", "f", "X"}


def test_unpicked_operations_leave_no_trace(tmp_path):
    space = SPACES["nasbench201"]
    nothing = parse(
        space,
        "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    )
    export(space, nothing, tmp_path / "out", network(space, nothing).state_dict())
    tree = ast.parse((tmp_path / "out" / "model.py").read_text())
    (build,) = [node for node in tree.body if getattr(node, "name", "") == "build"]
    text = ast.unparse(build)
    assert "ReLUConvBN" not in text
    assert "None" not in text
    assert text.count("nn.Identity()") == 9


# ------------------------------------------------------------------------------ one export


@pytest.fixture
def arch() -> Architecture:
    return parse(
        SPACES["nasbench201"],
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
    )


@pytest.fixture
def weights(arch) -> dict[str, torch.Tensor]:
    return randomised(network(SPACES["nasbench201"], arch), seed=1)


@pytest.fixture
def written(arch, weights, tmp_path) -> Path:
    return export(
        SPACES["nasbench201"],
        arch,
        tmp_path / "deep" / "out",
        weights,
        facts={"test_accuracy": 0.5},
        preprocessing={"scale": 16.0, "mean": [0.1, 0.2, 0.3]},
    )


def test_the_file_runs_in_a_process_of_its_own(written, arch, weights, tmp_path):
    assert {path.name for path in written.iterdir()} == FILES
    empty = tmp_path / "empty"
    empty.mkdir()
    done = isolated(str(written / "model.py"), cwd=empty)
    assert done.returncode == 0, done.stderr
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    first, second, third = done.stdout.splitlines()
    assert (first, second) == (f"parameters: {cost.parameters:,}", f"MACs: {cost.macs:,}")
    assert third.startswith("largest difference from the stored output: 0 (of ")
    assert done.stderr == ""
    assert list(empty.iterdir()) == []

    path = written / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    begin, end = header["5.weight"]["data_offsets"]
    content[start + begin : start + end] = bytes(end - begin)  # the classifier's weights are gone
    path.write_bytes(content)
    done = isolated(str(written / "model.py"), cwd=empty)
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: the output is not the stored one")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: b"\xff" * len(content),
        lambda content: content.replace(b"5.weight", b"6.weight"),
        lambda content: content.replace(b"F32", b"F99"),
    ],
)
def test_damaged_weights_are_one_clear_message(written, damage, monkeypatch):
    path = written / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(runner, "__file__", str(written / "model.py"))
    with pytest.raises(SystemExit, match=r"FAILED: model\.safetensors or .* damaged"):
        runner.main(network(SPACES["nasbench201"], _arch_of(written)))


def test_nan_weights_fail_the_check(written, weights, monkeypatch, capsys):
    broken = weights | {"5.bias": torch.full((10,), float("nan"))}
    safetensors.torch.save_file(broken, written / "model.safetensors")
    monkeypatch.setattr(runner, "__file__", str(written / "model.py"))
    with pytest.raises(SystemExit, match="FAILED: the output is not the stored one"):
        runner.main(network(SPACES["nasbench201"], _arch_of(written)))
    assert "largest difference from the stored output: nan" in capsys.readouterr().out


def _arch_of(folder: Path) -> Architecture:
    return Architecture.from_json((folder / "architecture.json").read_text())


def test_the_weights_written_are_those_given(written, weights):
    stored = safetensors.torch.load_file(written / "model.safetensors")
    by_hand = runner.load(written / "model.safetensors")
    assert stored.keys() == by_hand.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(stored[name], tensor)
        assert torch.equal(by_hand[name], tensor)
        assert by_hand[name].dtype == stored[name].dtype == tensor.dtype


def test_every_type_of_tensor_is_read_as_safetensors_reads_it(tmp_path):
    tensors = {
        name: torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in runner.DTYPES.items()
    }
    tensors |= {"empty": torch.empty(0, 4), "number": torch.tensor(3.5)}
    safetensors.torch.save_file(tensors, tmp_path / "some.safetensors")
    found = runner.load(tmp_path / "some.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_stored_pair_is_the_networks(written, arch, weights):
    check = safetensors.torch.load_file(written / "check.safetensors")
    assert check["input"].shape == (2, 3, 8, 8)
    assert check["input"].dtype == torch.float32
    model = network(SPACES["nasbench201"], arch)
    model.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(model.eval()(check["input"]), check["output"])


def test_architecture_json_says_what_the_network_is(written, arch):
    document = json.loads((written / "architecture.json").read_text())
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    assert document == {
        "space": "nasbench201/v1",
        "search_space": {
            "name": "nasbench201",
            "channels": 4,
            "cells": 1,
            "classes": 10,
            "input": [3, 8, 8],
        },
        "text": SPACES["nasbench201"].format(arch),
        "digest": arch.digest(),
        "picks": arch.as_dict(),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "preprocessing": {"scale": 16.0, "mean": [0.1, 0.2, 0.3]},
        "facts": {"test_accuracy": 0.5},
    }
    assert _arch_of(written) == arch


def test_the_docstring_says_what_the_network_is(written, arch):
    docstring = ast.get_docstring(ast.parse((written / "model.py").read_text()))
    cost = count(network(SPACES["nasbench201"], arch), (3, 8, 8))
    assert docstring is not None
    for part in (
        "nasbench201/v1",
        SPACES["nasbench201"].format(arch),
        "(N, 3, 8, 8)",
        f"{cost.parameters:,}",
        f"{cost.macs:,}",
        "mean: [0.1, 0.2, 0.3]",
    ):
        assert part in docstring


def test_export_leaves_the_random_state_and_gives_equal_files(arch, weights, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = export(SPACES["nasbench201"], arch, tmp_path / "a", weights)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = export(SPACES["nasbench201"], arch, tmp_path / "b", weights)
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_docstring_holds_any_text(arch, weights, tmp_path):
    odd = {
        "note": 'a """quote""", a back\\slash',
        "long": "words " * 60,
        "line": "a\nb",
        "end": '"',
    }
    folder = export(SPACES["nasbench201"], arch, tmp_path / "out", weights, preprocessing=odd)
    docstring = ast.get_docstring(ast.parse((folder / "model.py").read_text()))
    assert docstring is not None
    assert json.dumps(odd["note"]) in docstring


# ----------------------------------------------------------------------- all or nothing


def test_a_folder_keeps_its_other_files(arch, weights, tmp_path):
    folder = tmp_path / "out"
    (folder / "logs").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "model.py").write_text("old")
    export(SPACES["nasbench201"], arch, folder, weights)
    assert {path.name for path in folder.iterdir()} == FILES | {"logs", "notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "model.py").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_nothing_half_written(
    arch, weights, tmp_path, monkeypatch, there, after
):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        (folder / "model.py").write_text("old")
    calls = []

    def fsync(_: int) -> None:
        calls.append(None)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ExportError, match="No space left"):
        export(SPACES["nasbench201"], arch, folder, weights)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])
    if there:
        assert [path.name for path in folder.iterdir()] == ["model.py"]
        assert (folder / "model.py").read_text() == "old"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given["weights"].pop("5.bias"), "not those of this architecture.*5.bias"),
        (lambda given: given["weights"].update(more=torch.ones(1)), "not those.*more"),
        (
            lambda given: given["weights"].update({"5.bias": torch.ones(3)}),
            "not those of this architecture.*5.bias",
        ),
        (lambda given: given["weights"]["5.bias"].fill_(float("nan")), "not finite"),
        (lambda given: given.update(facts={"a": object()}), "must be JSON"),
        (lambda given: given.update(facts={"a": float("nan")}), "must be JSON"),
        (lambda given: given.update(preprocessing={1, 2}), "must be JSON"),
    ],
)
def test_bad_input_writes_nothing(arch, weights, tmp_path, change, message):
    given = {"weights": weights, "facts": None, "preprocessing": None}
    change(given)
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export(
            SPACES["nasbench201"],
            arch,
            tmp_path / "out",
            given["weights"],
            facts=given["facts"],
            preprocessing=given["preprocessing"],
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bad_target_is_refused(arch, weights, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        export(SPACES["nasbench201"], arch, tmp_path / "file", weights)
    (tmp_path / "out" / "model.py").mkdir(parents=True)
    with pytest.raises(ExportError, match=r"model\.py is a folder"):
        export(SPACES["nasbench201"], arch, tmp_path / "out", weights)


def test_an_architecture_of_another_space_is_refused(arch, weights, tmp_path):
    with pytest.raises(InvalidArchitecture):
        export(SPACES["chain"], arch, tmp_path / "out", weights)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------- a user's own modules


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


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Makes a module of a user's from source."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made = []

    def make(source: str, name: str = "") -> ModuleType:
        name = name or f"user_module_{uuid.uuid4().hex}"
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


HELPERS = """
    SLOPE = 0.25
    UNUSED = 3

    def unused():
        return UNUSED
"""

USER = """
    from __future__ import annotations

    import functools
    import math as m
    from collections.abc import Callable, Sequence
    from dataclasses import dataclass
    from typing import TYPE_CHECKING, Literal

    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from user_helpers import SLOPE

    if TYPE_CHECKING:
        from torch.nn.parameter import Parameter

    FACTOR = m.sqrt(4)
    LOW, HIGH = -1.0, 1.0
    WIDTHS: dict[str, int] = {
        "small": 8,  # kept
        "large": int(8 * FACTOR),
    }
    DATA = np.ones(3)


    def same():
        return nn.Sequential(*(Plain(8, 8) for _ in DATA))


    def scaled(x, factor=FACTOR):
        x = x * factor
        return clip(x)


    def clip(x):
        return scaled(x) if x is None else x.clamp(LOW, HIGH)


    def swish(x):
        return x * torch.sigmoid(x)


    @dataclass(frozen=True)
    class Setting:
        slope: float


    class Base(nn.Module):
        gain: Parameter | None

        def __init__(self, features: int) -> None:
            super().__init__()
            self.features = features
            self.linear = nn.Linear(features, features)

        def forward(self, x: Tensor) -> Tensor:
            return scaled(self.linear(x))


    class Block(Base):
        def __init__(
            self,
            features: int,
            act: Callable[[Tensor], Tensor],
            norm: type[nn.Module],
            /,
            mode: Literal["same", "valid"] = "same",
            *,
            extra: nn.Module | None = None,
            widths: Sequence[int] = (),
            table: dict[str, int] | None = None,
        ) -> None:
            super().__init__(features)
            self.act = act
            self.norm = norm
            self.mode = mode
            self.extra = extra
            self.widths = widths
            self.table = table
            self.inner = norm(WIDTHS["small"])
            self.setting = Setting(SLOPE)

        @functools.cached_property
        def slope(self) -> float:
            return self.setting.slope

        def forward(self, x: Tensor) -> Tensor:
            np = self.act(self.inner(super().forward(x)))
            if self.extra is not None:
                np = np + self.extra(np)
            return F.leaky_relu(np, self.slope)


    class Stack(nn.Sequential):
        pass


    class Plain(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1


    def make():
        return Stack(
            Block(8, swish, nn.LayerNorm),
            Block(8, F.gelu, nn.BatchNorm1d, mode="valid", extra=Plain(8, 8, bias=False),
                  widths=[1, 2, 3], table={"a": 1}),
            Block(8, torch.tanh, nn.BatchNorm1d, extra=same()),
        )
"""


def test_a_users_module_travels_with_all_it_references(user_module, tmp_path):
    user_module(HELPERS, "user_helpers")
    module = user_module(USER, "user_blocks")
    folder = export_one(module.make, tmp_path / "out", (8,))
    source = (folder / "model.py").read_text()
    body = ast.parse(source).body
    bound = {statement.name for statement in body if hasattr(statement, "name")} | {
        node.id
        for statement in body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert {
        "FACTOR",
        "SLOPE",
        "LOW",
        "HIGH",
        "WIDTHS",
        "scaled",
        "clip",
        "swish",
        "Setting",
        "Base",
        "Block",
        "Plain",
        "Stack",
    } <= bound
    for absent in ("numpy", "user_", "UNUSED", "DATA", "def same", "TYPE_CHECKING", "def make"):
        assert absent not in source
    assert '"small": 8,  # kept' in source  # word for word
    assert unused(source) == set()
    assert "*(Plain(8, 8) for _ in range(3))" in source
    assert "import math as m\n" in source
    done = isolated(str(folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_clean(folder)


START = "import torch\nfrom torch import nn\n"
LAYER = """
class Layer(nn.Module):
    def __init__(self, x=1):
        super().__init__()
        self.x = x
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x) {plus}

def make():
    return nn.Sequential(Layer({argument}))
"""


def layer(before: str = "", plus: str = "", argument: str = "") -> str:
    return START + before + LAYER.format(plus=plus, argument=argument)


CANNOT = {
    "lambda": (layer(argument="lambda x: x"), r"a lambda of .* top level"),
    "closure": (
        layer("def outer():\n    def inner(): pass\n    return inner\n", argument="outer()"),
        r"outer\.<locals>\.inner is defined inside another definition: move it",
    ),
    "local class": (
        START + "def make():\n    class Here(nn.Linear): pass\n    return Here(4, 2)\n",
        r"make\.<locals>\.Here is defined inside another",
    ),
    "an argument that is not kept": (
        layer().replace("self.x = x", "self.y = x"),
        r"the network's '0': argument 'x' of Layer is not kept: write 'self\.x = x'",
    ),
    "an argument kept otherwise": (
        layer().replace("self.x = x", "self.x = x + 1"),
        "attribute 'x' of module '0' \\(Layer\\) is 2, but the constructor makes it 3",
    ),
    "an argument with the name of a method": (
        layer().replace("(self, x=1)", "(self, float=1)").replace("self.x = x", ""),
        "argument 'float' of Layer has the name of a method",
    ),
    "variable arguments": (
        layer().replace("x=1", "*x"),
        r"the network's '0': Layer takes \*x, .*name each argument",
    ),
    "a tensor": (layer(argument="torch.ones(2)"), "argument 'x' of Layer is a Tensor, which"),
    "a set": (layer(argument="{1, 2}"), "argument 'x' of Layer is a set, which"),
    "a partial": (
        layer("import functools\n", argument="functools.partial(nn.ReLU, True)"),
        "argument 'x' of Layer is a partial",
    ),
    "numpy": (layer("import numpy as np\n", "* float(np.ones(()))"), "imports 'numpy'.*torch and"),
    "numpy by name": (layer("from numpy import ones\n", "* float(ones(()))"), "numpy"),
    "a project's module": (
        layer("from nas import layers\n", "+ 0 * len(layers.__name__)"),
        "imports the module 'nas.layers': import the names",
    ),
    "another name": (
        layer("from nas.layers import ConvBNReLU as C\n", "+ 0 * len(C.__name__)"),
        "imports 'ConvBNReLU' as 'C'",
    ),
    "a star": (
        layer("from torch.nn.functional import *\n", "* float(relu(torch.ones(())))"),
        "uses 'relu', which no statement",
    ),
    "bound twice": (layer("X = 1\nX += 1\n", "* X"), "'X' must be bound by one plain statement.*3"),
    "bound in a block": (
        layer("try:\n    X = 1\nexcept ImportError:\n    X = 2\n", "* X"),
        "'X' must be bound by one plain statement",
    ),
    "redefined": (
        layer("class Layer(nn.Linear): pass\nOld = Layer\n").replace("Layer()", "Old(4, 2)"),
        "is not what its module calls 'Layer'",
    ),
    "a name of the file's own": (
        layer("def main(x): return x\n").replace("self.linear(x)", "main(self.linear(x))"),
        "two things are called 'main'",
    ),
    "build": (
        layer("def build(x): return x\n").replace("self.linear(x)", "build(self.linear(x))"),
        "two things are called 'build'",
    ),
    "random in eval mode": (
        layer("from torch.nn import functional as F\n", "+ F.dropout(x).sum()"),
        "output is not the original's.*random",
    ),
    "state from outside": (
        layer("COUNT = [0.0]\n", "+ COUNT.append(COUNT[-1] + 1) or COUNT[-1]"),
        "attribute|output|does not",
    ),
    "a module added later": (
        layer().replace("    return nn.Sequential(Layer())", "")
        + "    made = Layer()\n    made.more = nn.ReLU()\n    return made\n",
        "module 'more' is not made by its parent's constructor",
    ),
    "an attribute changed later": (
        START
        + "def make():\n    made = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))\n"
        + "    made[1].inplace = 'yes'\n    made[1].eps = 3\n    return made\n",
        "attribute 'eps' of module '1' \\(Dropout\\) is 3",
    ),
    "tied weights": (
        START
        + "def make():\n    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))\n"
        + "    made[1].weight = made[0].weight\n    return made\n",
        "parameters that are one tensor",
    ),
    "other types": (
        START
        + "class Double(nn.Module):\n    def forward(self, x):\n        return x.double()\n"
        + "def make():\n"
        + "    return nn.Sequential(Double(), nn.Linear(4, 2, dtype=torch.float64))\n",
        r"tensor '1\.weight' is \(2, 4\) of torch\.float64, but in the",
    ),
    "a parametrised layer": (
        START
        + "def make():\n"
        + "    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))\n",
        "ParametrizedLinear, which is not one of torch.nn's public",
    ),
    "a layer that keeps nothing": (
        START + "def make():\n    return nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 2), First())\n"
        "class First(nn.Module):\n    def forward(self, x):\n        return x[0]\n",
        "torch's LSTM does not keep its arguments",
    ),
    "two outputs": (
        layer(plus=", 1"),
        "gives a tuple; to be exported it must give one tensor",
    ),
    "another input": (layer(plus="+ torch.ones(2, 3)"), "cost cannot be told|does not take"),
}


@pytest.mark.parametrize("case", list(CANNOT))
def test_what_cannot_be_exported_is_said(case, user_module, tmp_path):
    source, message = CANNOT[case]
    module = user_module(source)
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export_one(module.make, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["user"]


def test_a_class_without_source_is_refused(tmp_path):
    module = ModuleType("typed_in")
    exec(layer(), vars(module))
    for value in vars(module).values():
        if getattr(value, "__module__", "") == "builtins":
            with contextlib.suppress(AttributeError, TypeError):
                value.__module__ = "typed_in"
    sys.modules["typed_in"] = module
    try:
        with pytest.raises(ExportError, match="module 'typed_in' has no source file: define"):
            export_one(module.make, tmp_path / "out")
    finally:
        del sys.modules["typed_in"]


def test_two_definitions_of_one_name_are_refused(user_module, tmp_path):
    helper = START + "def half(x):\n    return x / {}\n"
    one = user_module(helper.format(2) + "class A(nn.Linear):\n    half = staticmethod(half)\n")
    two = user_module(helper.format(3) + "class B(nn.Linear):\n    half = staticmethod(half)\n")
    with pytest.raises(ExportError, match=f"'half', in module {one.__name__} and in module"):
        export_one(lambda: nn.Sequential(one.A(4, 4), two.B(4, 2)), tmp_path / "out")


# ---------------------------------------------------------------------------- torch's layers

LAYERS = """
nn.Conv1d(4, 6, 3)
nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False)
nn.Conv2d(4, 6, (1, 3), stride=(2, 1), padding=(0, 1), padding_mode="reflect")
nn.Conv2d(4, 6, 3, padding="same")
nn.Conv2d(4, 6, 3, stride=3)
nn.Conv3d(4, 6, 3, padding=(1, 1, 0), bias=False)
nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1)
nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
nn.ConvTranspose3d(4, 6, (1, 2, 3), dilation=2)
nn.Linear(4, 6)
nn.Linear(4, 6, bias=False)
nn.Bilinear(4, 5, 6, bias=False)
nn.BatchNorm1d(4)
nn.BatchNorm2d(4, eps=0.001, momentum=0.01)
nn.BatchNorm2d(4, affine=False)
nn.BatchNorm3d(4, momentum=None, track_running_stats=False)
nn.GroupNorm(2, 4)
nn.GroupNorm(2, 4, eps=0.001, affine=False)
nn.LayerNorm(4)
nn.LayerNorm((4, 4), eps=1e-06, bias=False)
nn.LayerNorm((4, 5), elementwise_affine=False)
nn.RMSNorm(4)
nn.RMSNorm((4, 5), eps=1e-06, elementwise_affine=False)
nn.InstanceNorm1d(4)
nn.InstanceNorm2d(4, affine=True)
nn.InstanceNorm3d(4, track_running_stats=True)
nn.LocalResponseNorm(3, alpha=0.01)
nn.MaxPool1d(3)
nn.MaxPool2d(3, stride=2, padding=1)
nn.MaxPool2d((3, 2), stride=1, dilation=2, ceil_mode=True)
nn.MaxPool3d(2)
nn.AvgPool1d(3)
nn.AvgPool1d(3, stride=1)
nn.AvgPool2d(2)
nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
nn.AvgPool3d(2, divisor_override=3)
nn.LPPool1d(2, 3)
nn.LPPool2d(2, 3, stride=1)
nn.FractionalMaxPool2d(3, output_ratio=(0.5, 0.5))
nn.AdaptiveAvgPool1d(1)
nn.AdaptiveAvgPool2d(1)
nn.AdaptiveAvgPool2d((None, 7))
nn.AdaptiveAvgPool3d((1, 2, 3))
nn.AdaptiveMaxPool1d(2)
nn.AdaptiveMaxPool2d((3, 4))
nn.AdaptiveMaxPool3d(2)
nn.ReLU()
nn.ReLU(inplace=True)
nn.ReLU6()
nn.LeakyReLU(negative_slope=0.2)
nn.PReLU()
nn.PReLU(num_parameters=4)
nn.RReLU()
nn.ELU(alpha=0.5)
nn.CELU()
nn.SELU()
nn.GELU()
nn.GELU(approximate="tanh")
nn.GLU(dim=1)
nn.SiLU()
nn.Mish(inplace=True)
nn.Hardswish()
nn.Hardsigmoid()
nn.Hardtanh(min_val=-2.0)
nn.Hardshrink()
nn.Softshrink(lambd=0.1)
nn.Tanhshrink()
nn.Sigmoid()
nn.LogSigmoid()
nn.Tanh()
nn.Softplus(beta=2.0)
nn.Softsign()
nn.Softmax(dim=1)
nn.Softmin(dim=1)
nn.Softmax2d()
nn.LogSoftmax(dim=-1)
nn.Threshold(0.1, 20)
nn.Dropout()
nn.Dropout(p=0.1, inplace=True)
nn.Dropout1d(p=0.1)
nn.Dropout2d(p=0.1)
nn.Dropout3d(p=0.1)
nn.AlphaDropout(p=0.1)
nn.FeatureAlphaDropout(p=0.1)
nn.Flatten()
nn.Flatten(start_dim=2)
nn.Unflatten(1, (2, 2))
nn.Unflatten(1, (2,))
nn.Fold((4, 5), 2, stride=2)
nn.Unfold(3, padding=1)
nn.Upsample(scale_factor=2.0)
nn.Upsample(size=(8, 8), mode="bilinear", align_corners=True)
nn.UpsamplingBilinear2d(scale_factor=2.0)
nn.UpsamplingNearest2d(size=8)
nn.PixelShuffle(2)
nn.PixelUnshuffle(2)
nn.ChannelShuffle(2)
nn.ReflectionPad1d(1)
nn.ReflectionPad2d((1, 2, 3, 4))
nn.ReplicationPad3d(1)
nn.CircularPad2d(1)
nn.ZeroPad2d((1, 0, 1, 0))
nn.ConstantPad2d(1, 0.5)
nn.CosineSimilarity(dim=2)
nn.Embedding(5, 4)
nn.Embedding(5, 4, padding_idx=0, max_norm=1.0)
nn.EmbeddingBag(5, 4, mode="sum")
nn.Identity()
nn.GRUCell(4, 5, bias=False)
nn.LSTMCell(4, 5)
nn.RNNCell(4, 5, nonlinearity="relu")
nn.MultiheadAttention(8, 2)
nn.MultiheadAttention(8, 2, dropout=0.1, bias=False, kdim=4, vdim=6, batch_first=True)
nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True)
nn.TransformerEncoderLayer(8, 2, dim_feedforward=16)
nn.TransformerEncoderLayer(8, 2, dropout=0.2, activation=F.gelu, batch_first=True, norm_first=True)
nn.TransformerEncoderLayer(8, 2, activation=nn.SiLU(), layer_norm_eps=0.001, bias=False)
nn.TransformerDecoderLayer(8, 2, dim_feedforward=16, batch_first=True)
nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 3)
nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2), 2, norm=nn.LayerNorm(8))
nn.Sequential()
nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
nn.Sequential(nn.ReLU(), *(nn.Linear(2, 2) for _ in range(3)))
nn.Sequential(OrderedDict([("conv", nn.Conv2d(1, 2, 3)), ("act", nn.ReLU())]))
nn.ModuleList()
nn.ModuleList([nn.ReLU(), nn.ReLU()])
nn.ModuleList([nn.ReLU(), *(nn.Linear(2, 2) for _ in range(3))])
nn.ModuleList(nn.Linear(2, 2) for _ in range(4))
nn.ModuleDict()
nn.ModuleDict({"a": nn.ReLU(), "b c": nn.Linear(2, 2)})
""".strip().splitlines()


def evaluate(text: str) -> nn.Module:
    import collections

    scope = {"nn": nn, "F": F, "torch": torch, "OrderedDict": collections.OrderedDict}
    return eval(text, scope)


@pytest.mark.parametrize("text", LAYERS)
def test_torchs_layers_are_spelt_as_they_were_written(text):
    original = evaluate(text)
    code = spell(original, Definitions())
    assert code.flat() == text
    rebuilt = evaluate("\n".join(code.lines(0)))
    assert repr(rebuilt) == repr(original)
    shapes = {name: tensor.shape for name, tensor in original.state_dict().items()}
    assert {name: tensor.shape for name, tensor in rebuilt.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("given", "spelt"),
    [
        ("nn.Conv2d(4, 6, (3, 3), (2, 2))", "nn.Conv2d(4, 6, 3, stride=2)"),
        ("nn.MaxPool2d((2, 2), (2, 2))", "nn.MaxPool2d(2)"),
        ("nn.AdaptiveAvgPool2d((1, 1))", "nn.AdaptiveAvgPool2d(1)"),
        ("nn.LayerNorm((4,))", "nn.LayerNorm(4)"),
        ("nn.ConstantPad1d((1, 1), 0)", "nn.ConstantPad1d(1, 0)"),
        ("nn.Dropout(0.5)", "nn.Dropout()"),
        ("nn.Identity(3, a=4)", "nn.Identity()"),
        ("nn.TransformerEncoderLayer(8, 2, activation='relu')", "nn.TransformerEncoderLayer(8, 2)"),
    ],
)
def test_the_shortest_spelling_is_taken(given, spelt):
    assert spell(evaluate(given), Definitions()).flat() == spelt


def test_attention_is_exported_and_counted(tmp_path):
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 8),
            nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True),
            nn.Flatten(),
            nn.Linear(40, 2),
        )

    folder = export_one(make, tmp_path / "out", (5, 4))
    done = isolated(str(folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    by_hand = 5 * 4 * 8 + 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8 + 2 * 5 * 8 * 16 + 40 * 2
    assert f"MACs: {by_hand:,}\n" in done.stdout
    assert json.loads((folder / "architecture.json").read_text())["macs"] == by_hand


def test_source_of_another_network_is_refused():
    source = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(4, {}){})\n"
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(verify(source.format(2, ""), model, x), model(x))
        with pytest.raises(ExportError, match="'out_features' of module '0'"):
            verify(source.format(3, ""), model, x)
        with pytest.raises(ExportError, match="module '1' is not made"):
            verify(source.format(2, ", nn.ReLU()"), model, x)
        with pytest.raises(ExportError, match="does not run: NameError"):
            verify(source.format("two", ""), model, x)
        model.register_forward_hook(
            lambda module, args, output: torch.nextafter(output, torch.tensor(9.0))
        )
        with pytest.raises(ExportError, match="output is not the original's"):
            verify(source.format(2, ""), model, x)

"""A user's own modules travel with an export; what cannot is said."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
import textwrap
import uuid
from types import ModuleType

import pytest
from exporting import assert_clean, export_one, isolated, unused
from torch import nn

from nas.errors import ExportError


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

        # What a search asks it.
        def layouts(self):
            return {"weight": (*DATA.shape, UNUSED)}

        def extra_repr(self) -> str:
            return "plain"


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
    assert "layouts" not in source
    assert "asks it" not in source
    assert "+ 1\n\n    def extra_repr" in source
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

"""Who may import whom, read from the source; and what importing the package loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nas
from nas.errors import NasError

ROOT = Path(nas.__file__).parents[1]
PACKAGES = ("nas", "search_spaces", "strategies", "evaluators")
RAY = "nas/execution/"


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path, source=None):
    """The dotted names a module imports anywhere in it, in functions and for types too."""
    tree = ast.parse(path.read_text() if source is None else source)
    # What a relative import counts its dots from: the package the module is in.
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def tops(path, source=None):
    return {name.partition(".")[0] for name in imports(path, source)}


def test_the_reader_of_imports_sees_them_all():
    path = ROOT / "nas" / "execution" / "made_up.py"
    source = (
        "import a.b, c as d\nfrom e.f import g\nfrom . import h\nfrom .. import i\n"
        "from .j import k\n"
        "def f():\n    import l\n    importlib.import_module('m.n')\n    __import__('o')\n"
        "if TYPE_CHECKING:\n    from p import q\n"
    )
    found = set(imports(path, source))
    expected = {"a.b", "c", "e.f", "nas.execution.h", "nas.i", "nas.execution.j.k", "l", "m.n"}
    assert expected | {"o", "p.q"} <= found
    assert {name.partition(".")[0] for name in found} == set("aceplo") | {"m", "nas"}


def test_there_is_something_to_check():
    counts = {package: len(modules(package)) for package in PACKAGES}
    assert counts["nas"] > 20
    assert min(counts.values()) > 2


@pytest.mark.parametrize("package", PACKAGES)
def test_plug_ins_are_unknown_to_the_core_and_to_each_other(package):
    others = set(PACKAGES) - {package, "nas"}
    for path in modules(package):
        met = tops(path) & others
        assert not met, f"{path.relative_to(ROOT)} imports {', '.join(sorted(met))}"


def test_only_execution_imports_ray():
    users = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in modules(package)
        if "ray" in tops(path)
    }
    assert "nas/execution/ray.py" in users
    assert all(name.startswith(RAY) for name in users), users


def test_only_the_contracts_import_pytest():
    for package in PACKAGES:
        for path in modules(package):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("nas/testing/"):
                assert not tops(path) & {"pytest", "hypothesis", "tests"}, name


def test_nothing_outside_the_contracts_imports_them():
    for package in PACKAGES:
        for path in modules(package):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("nas/testing/"):
                assert not {n for n in imports(path) if n.startswith("nas.testing")}, name


# --------------------------------------------------------------- what importing it loads

HEAVY = ("torch", "ray", "pytest", "sklearn", "matplotlib", "optuna", "hypothesis")


def loaded_after(code):
    """Which of the heavy modules are loaded in a new process once it ran this code."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys; print('LOADED', *(m for m in {HEAVY} if m in sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_loaded_modules_are_seen():
    assert "torch" in loaded_after("import torch")


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import nas") == set()


@pytest.mark.parametrize(
    "code",
    [
        "import nas; nas.maximize('a'), nas.Choice, nas.Architecture, nas.Budget, nas.History()",
        "import nas, nas.search; nas.network, nas.Serial(), nas.Objective",
        "import nas.encoding, nas.components, nas.testing, nas.execution.serial, nas.registry",
    ],
)
def test_the_core_loads_nothing_heavy(code):
    assert loaded_after(code) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["cost", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        f"import sys; sys.argv = ['nas', *{arguments}]\n"
        "import nas.cli\n"
        "try:\n    nas.cli.main()\n"
        "except SystemExit as error:\n    assert not error.code, error.code\n"
    )
    assert loaded_after(code) == set()


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "nas.cli", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout
    assert "resume" in done.stdout


def test_every_public_name_is_there():
    for name in nas.__all__:
        assert getattr(nas, name) is not None
    assert set(nas.__all__) <= set(dir(nas))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = nas.serach
    assert issubclass(nas.NasError, ValueError)
    assert nas.NasError is NasError

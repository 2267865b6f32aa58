"""The archive of code for machines that do not have it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import nas
from nas.errors import ConfigError
from nas.execution import code, ray_cluster

ROOT = Path(nas.__file__).parents[1]

pytestmark = pytest.mark.skipif(
    "site-packages" in ROOT.parts, reason="the project is installed, not used from its folder"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder with modules, a package and much that is not code."""
    for name, content in {
        "alone.py": "x = 1",
        "package/__init__.py": "",
        "package/inside.py": "y = 2",
        "package/table.json": "{}",
        "package/.hidden": "",
        "package/__pycache__/inside.cpython-311.pyc": "",
        ".git/config": "",
        "data/images.bin": "",
        "notes.txt": "",
        "names/inside.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def bundled(file):
    code.write_bundle(file)
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def test_modules_go_and_what_lies_beside_them_does_not(project, tmp_path_factory):
    file = tmp_path_factory.mktemp("out") / "code.zip"
    names = bundled(file)
    assert {name for name in names if (project / name).exists()} == {
        "alone.py",
        "package/__init__.py",
        "package/inside.py",
        "package/table.json",
    }
    assert not any("pycache" in name or "pytest" in name for name in names)
    # A package without __init__ goes once it was imported.
    subprocess.run([sys.executable, "-c", "import names.inside"], cwd=project, check=True)
    script = (
        "import sys; sys.path.insert(0, ''); import names.inside\n"
        "from pathlib import Path; from nas.execution.code import write_bundle\n"
        "write_bundle(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(file)], cwd=project, check=True)
    with zipfile.ZipFile(file) as archive:
        assert "names/inside.py" in archive.namelist()


def test_the_whole_project_goes_and_works_from_there(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    names = bundled(folder / "code.zip")
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("nas", "search_spaces", "strategies", "evaluators")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources <= names
    # With the names of components, though nothing is installed.
    with zipfile.ZipFile(folder / "code.zip") as archive:
        archive.extractall(folder / "there")
    script = "import nas, nas.registry; print(nas.__file__, *nas.registry.names('spaces'))"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path[0] = ''\n{script}"],
        cwd=folder / "there",
        capture_output=True,
        text=True,
        check=True,
    )
    file, *spaces = done.stdout.split()
    assert Path(file).is_relative_to(folder)
    assert "nasbench201" in spaces


def test_the_same_code_is_the_same_archive(project, tmp_path_factory):
    one, other = (tmp_path_factory.mktemp("out") / "code.zip" for _ in range(2))
    bundled(one)
    (project / "alone.py").touch()
    bundled(other)
    assert one.read_bytes() == other.read_bytes()
    (project / "alone.py").write_text("x = 2")
    bundled(other)
    assert one.read_bytes() != other.read_bytes()


def test_a_package_with_data_in_it_is_refused_by_name(project, tmp_path_factory):
    (project / "package" / "images").mkdir()
    with open(project / "package" / "images" / "train.bin", "wb") as file:
        file.truncate(code.MOST_BYTES)
    file = tmp_path_factory.mktemp("out") / "code.zip"
    with pytest.raises(ConfigError, match="more than the 64 MB") as caught:
        code.write_bundle(file)
    assert f"{project / 'package'} alone is 64 MB (of them 64 MB in images)" in str(caught.value)
    assert "code: none" in str(caught.value)
    assert not file.exists()


def test_what_a_build_left_behind_is_no_second_package(project, tmp_path_factory):
    installed = distribution("nasforge")
    entries = "\n".join(f"{e.name} = {e.value}" for e in installed.entry_points)
    left = project / "nasforge.egg-info"
    left.mkdir()
    (left / "entry_points.txt").write_text(f"[nasforge.spaces]\n{entries}\n")
    (left / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: nasforge\nVersion: 0.1.0\n")
    file = tmp_path_factory.mktemp("out") / "code.zip"
    described = [name for name in bundled(file) if name.endswith("METADATA")]
    assert len(described) == 1
    with zipfile.ZipFile(file) as archive:
        assert len(archive.namelist()) == len(set(archive.namelist()))
        assert b"Name: nasforge" in archive.read(described[0])


@pytest.mark.parametrize(
    ("job", "has"),
    [
        (None, False),
        ('{"runtime_env": {"working_dir": "gcs://_ray_pkg_0.zip"}}', True),
        ('{"runtime_env": {"env_vars": {}}}', False),
        ("not JSON", False),
    ],
)
def test_a_submitted_job_brought_its_code(job, has, monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if job is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", job)
    assert ray_cluster._has_code_already() == has

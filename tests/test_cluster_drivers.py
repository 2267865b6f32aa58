"""Searches that join a running cluster by its address, and what reaches its machines."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import venv
import warnings
from pathlib import Path

import pytest
import yaml
from clusters import MB, machines

from nas import cli
from nas.errors import ConfigError
from nas.execution import ray_cluster
from nas.execution.ray import RayExecutor
from nas.history import JOURNAL, History
from nas.trial import Measured

MINE = """
import os
import nas
from nas.objective import Metric
from nas.trial import Measured

class Mine:
    metrics = (Metric("score", "1", "maximize"),)

    def evaluate(self, proposal):
        import besides
        notes = {"nas": nas.__file__, "mine": __file__, "besides": besides.__file__}
        return Measured({"score": 1.0}, notes=notes | {"folder": os.getcwd()})

    def planned_epochs(self, fidelity):
        return 0.0
"""
CONFIG = {
    "space": "nasbench201",
    "strategy": "random",
    "evaluator": "mine:Mine",
    "objectives": ["maximize score"],
    "budget": {"trials": 2},
}


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and a machine whose Python has all that this one has but nasforge."""
    with machines(42) as made:
        yield made


@pytest.fixture(scope="module")
def bare(cluster, tmp_path_factory):
    """That machine: its processes' environment has no trace of this project."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    inside = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    # Folders named in a file of paths are searched, the files of paths in them are not read: what
    # is installed is found, what is installed from its source folder is not.
    paths = Path(sysconfig.get_path("purelib", vars=inside)) / "others.pth"
    paths.write_text("\n".join({sysconfig.get_path(kind) for kind in ("purelib", "platlib")}))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    control = subprocess.run(
        [python, "-c", "import nas"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert "No module named 'nas'" in control.stderr
    process = subprocess.Popen(
        [
            *(python, "-m", "ray.scripts.scripts", "start", "--block"),
            *("--address", cluster.address, "--node-ip-address", "127.0.42.99"),
            *(
                "--num-cpus",
                "1",
                "--resources",
                '{"bare": 1}',
                "--object-store-memory",
                str(80 * MB),
            ),
        ],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def command(*arguments, cwd, address):
    """``nas …`` in another folder, where the environment names the cluster."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *arguments],
        cwd=cwd,
        env=environment | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "besides.py").write_text("")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_a_search_by_command_takes_its_code_to_machines_that_have_none(cluster, bare, folder):
    nas = functools.partial(command, cwd=folder, address=cluster.address)
    settings = ("--set", "executor.resources={bare: 1}", "--set", "executor.wait_s=60")
    join = ("--executor", "ray", "--address", "auto")
    done = nas("search", "run.yaml", *join, *settings, "--out", "out")
    assert done.returncode == 0, done.stderr
    trials = History(folder / "out").trials
    assert len(trials) == 2
    for trial in trials:
        assert isinstance(trial.outcome, Measured), trial
        notes = dict(trial.outcome.notes)
        assert notes.pop("folder") == str(folder)
        sources = [Path(file) for file in notes.values()]
        assert len(sources) == 3
        assert all("runtime_resources" in file.parts for file in sources), sources
    # What the header says of the executor is what goes on, and without code there is nothing.
    changes = ("--set", "budget.trials=3", "--set", "executor.code=none")
    done = command(
        "resume", "out", "--address", "auto", *changes, cwd=folder, address=cluster.address
    )
    assert done.returncode == 0, done.stderr
    (failed,) = [trial for trial in History(folder / "out").trials if trial.number == 2]
    assert failed.outcome.cause == "exception"
    assert "a worker lacks a module: ModuleNotFoundError: No module named 'nas'" in (
        failed.outcome.message
    )


# ------------------------------------------------------------------------------ what is refused


@pytest.fixture
def nas(folder, monkeypatch, capfd):
    """``nas …`` in this process, in that folder: the exit code and the errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nas", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        return code, capfd.readouterr().err

    yield run
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--address", "auto"), "the executor of this search is 'serial': add --executor ray"),
        (("--address", "127.0.0.1:1", "--executor", "ray"), "no Ray cluster at '127.0.0.1:1'"),
        (("--address", "127.0.0.1", "--executor", "ray"), "'127.0.0.1' has no port"),
        (("--address", "ray://127.0.0.1:1", "--executor", "ray"), "of Ray's client"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_written(
    nas, folder, arguments, message
):
    before = sorted(folder.iterdir())
    code, errors = nas("search", "run.yaml", *arguments, "--out", "out")
    assert code == 2, errors
    assert message in " ".join(errors.split())
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_a_run_is_not_touched_where_there_is_no_cluster_to_go_on_with_it(nas, folder):
    (folder / "run.yaml").write_text(
        yaml.safe_dump(CONFIG | {"evaluator": "cost", "objectives": ["minimize macs"]})
    )
    assert nas("search", "run.yaml", "--out", "out")[0] == 0
    before = (folder / "out" / JOURNAL).read_bytes()
    more = ("resume", "out", "--set", "budget.trials=4", "--executor", "ray")
    code, errors = nas(*more, "--address", "127.0.0.1:1")
    assert code == 2, errors
    assert "no Ray cluster at '127.0.0.1:1'" in errors
    assert (folder / "out" / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_listens_and_is_not_ray_is_refused(answer, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.2", 0)) as server:
        address = f"127.0.0.2:{server.getsockname()[1]}"

        def serve():
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                if answer:
                    connection.sendall(answer)
                connection.recv(100)
                connection.recv(1)  # until the other side has gone

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConfigError, match=f"no Ray cluster at '{address}': "):
            _ = RayExecutor(address=address).free
        thread.join()

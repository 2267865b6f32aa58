"""A space, evaluators and drivers for the tests of execution: quick, without torch, picklable."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture, Choice, Scalar
from nas.budget import Budget, Cost
from nas.history import History
from nas.objective import Metric, maximize
from nas.search import search
from nas.space import next_choice
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

# ------------------------------------------------------------------------------ the space


class Line:
    """Five choices of six options each: 7,776 architectures."""

    def __init__(self, name: str = "line/v1") -> None:
        self.name = name
        self.choices = tuple(Choice(f"c{i}", tuple(range(6))) for i in range(5))
        self.input = (1, 2, 2)
        self.classes = 2

    def legal(self, prefix: Mapping[str, Scalar]) -> Any:
        return next_choice(self.choices, prefix)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {}

    def build(self, builder: Any) -> Any:
        raise NotImplementedError


def proposal(number: int = 0) -> Proposal:
    return Proposal(number, Architecture("line/v1", tuple((f"c{i}", 0) for i in range(5))))


# --------------------------------------------------------------------------- evaluators


class Score:
    """A score that rises with the picks; takes ``delay_s`` seconds."""

    metrics = (Metric("score", "1", "maximize"),)

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        if self.delay_s:
            time.sleep(self.delay_s)
        picks = sum(int(value) for _, value in proposal.arch.picks)
        noise = np.random.default_rng(proposal.seed).random()
        return Measured({"score": picks + noise}, Cost(epochs=1.0), {"curve": [noise, 1.0]})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0


class Broken(Exception):
    """An exception that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("beyond repair")
        self.lock = threading.Lock()


class Mute(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class FaultAt(Score):
    """Goes wrong in one trial, in a given way; measures the others.

    Args:
        how: a key of ``FAULTS``.
        number: the trial.
        folder: where it notes its process and how often it began.
    """

    def __init__(self, how: str, folder: str, number: int = 0) -> None:
        super().__init__()
        self.how = how
        self.folder = folder
        self.number = number

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        if proposal.number == self.number:
            attempt = len(self.attempts())
            with open(Path(self.folder) / "attempts", "a") as file:
                file.write(f"{os.getpid()}\n")
            fault = FAULTS[self.how]
            outcome = fault(attempt)
            if outcome is not None:
                return outcome
        return super().evaluate(proposal)

    def attempts(self) -> list[int]:
        """The process of each attempt at that trial so far."""
        path = Path(self.folder) / "attempts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def _raise(attempt: int) -> Any:
    raise LookupError("the cable\nis loose")


def _exit(attempt: int) -> Any:
    sys.exit("I leave")


def _broken(attempt: int) -> Any:
    raise Broken


def _mute(attempt: int) -> Any:
    raise Mute


def _swallow(attempt: int) -> Any:
    while True:
        with suppress(BaseException):
            time.sleep(60)


def _swallow_exceptions(attempt: int) -> Any:
    while True:
        with suppress(Exception):
            time.sleep(60)


def _hang_in_cleanup(attempt: int) -> Any:
    try:
        time.sleep(60)
    finally:
        time.sleep(60)


def _lock(attempt: int) -> Any:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _die(attempt: int) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(attempt: int) -> Any:
    if attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _die_late_once(attempt: int) -> Any:
    time.sleep(1.2)
    if attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _grow(attempt: int) -> Any:
    chunks = []
    while True:
        chunks.append(bytearray(2**23))


FAULTS: dict[str, Any] = {
    "raise": _raise,
    "exit": _exit,
    "unpicklable exception": _broken,
    "mute exception": _mute,
    "nan": lambda attempt: Measured({"score": float("nan")}),
    "no outcome": lambda attempt: {"score": 1.0},
    "no metric": lambda attempt: Measured({"scor": 1.0}),
    "unpicklable result": lambda attempt: Measured({"score": 1.0}, notes={"lock": _lock}),
    "nan in notes": lambda attempt: Measured({"score": 1.0}, notes={"loss": float("nan")}),
    "path": lambda attempt: Measured({"score": 1.0}, artifacts={"../../model.pt": b""}),
    "hang": lambda attempt: time.sleep(3600),
    "hang in a lock": _lock,
    # Keeps the interpreter's lock: no other Python code of the process runs, ever.
    "hang in C": lambda attempt: ctypes.PyDLL(None).pause(),
    "hang, swallowing all": _swallow,
    "hang, swallowing exceptions": _swallow_exceptions,
    "hang in cleanup": _hang_in_cleanup,
    "die": _die,
    "die once": _die_once,
    "die late once": _die_late_once,
    "memory: numpy": lambda attempt: np.ones(2**30),
    "memory: bytearray": lambda attempt: bytearray(2**33),
    "memory: bit by bit": _grow,
}


# ----------------------------------------------------------------------------- searches


def strategy(name: str, seed: int = 0) -> RandomSearch | RegularizedEvolution:
    objectives = (maximize("score"),)
    if name == "random":
        return RandomSearch(Line(), objectives, seed)
    return RegularizedEvolution(Line(), objectives, seed, population_size=8, sample_size=4)


def run(
    name: str, evaluator: Any, executor: Any, trials: int, history: History | None = None
) -> list[Trial]:
    """A whole search; all trials of the history then."""
    history = History() if history is None else history
    for _ in search(strategy(name), evaluator, executor, Budget(trials=trials), history):
        pass
    return history.trials


def main() -> None:
    """``serial|ray FOLDER STRATEGY TRIALS DELAY``: runs or continues a search in a folder."""
    kind, folder, name, trials, delay = sys.argv[1:]
    executor: Any
    if kind == "serial":
        from nas.execution.serial import Serial

        executor = Serial()
    else:
        from nas.execution.ray import RayExecutor

        executor = RayExecutor(workers=2)
    assert "torch" not in sys.modules  # or every start takes seconds
    history = History(folder)
    evaluator = Score(float(delay))
    budget = Budget(trials=int(trials))
    print("ready", flush=True)
    for _ in search(strategy(name), evaluator, executor, budget, history):
        pass
    print("done", flush=True)


# ---------------------------------------------------------------------------- processes

MAIN = "import workloads; workloads.main()"
MARK = "NASFORGE_TEST_DRIVER"


@contextmanager
def driver(
    code: str | Path, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A Python process running this code or file; killed at the end, with all it left behind."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = subprocess.Popen(
        [sys.executable, *([code] if isinstance(code, Path) else ["-c", code]), *arguments],
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "default", MARK: mark}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.mark = mark  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        members = family(process)
        process.kill()
        process.communicate()
        for pid, start in members | family(process):
            if alive(pid, start):
                os.kill(pid, signal.SIGKILL)


def wait_until(condition: Any, seconds: float = 60.0) -> bool:
    """Whether a condition came true in that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def family(process: subprocess.Popen[str]) -> set[tuple[int, str]]:
    """The processes that a driver started and those they started, as they are now.

    Each with its start time, which tells it from a later one of the same number. Those that
    lost their parent are known by a variable of their environment.
    """
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    marked: set[int] = set()
    mark = f"{MARK}={process.mark}".encode()  # type: ignore[attr-defined]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] == "Z":
                continue
            parents[int(entry.name)], starts[int(entry.name)] = int(fields[1]), fields[19]
            if mark in (entry / "environ").read_bytes():
                marked.add(int(entry.name))
        except OSError:  # ended in between
            continue
    found = marked | {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {(pid, starts[pid]) for pid in found if pid in starts and pid != process.pid}


def alive(pid: int, start: str | None = None) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] != "Z" and (start is None or fields[19] == start)


def left(process: subprocess.Popen[str], before: set[tuple[int, str]]) -> list[str]:
    """What is left of a driver's family, known from before or not: the commands."""
    pids = {member[0] for member in before | family(process) if alive(*member)}
    commands = []
    for pid in pids:
        with suppress(OSError):  # ended in between
            commands.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip())
    return commands


def left_by_the_killed(process: subprocess.Popen[str], before: set[tuple[int, str]]) -> list[str]:
    """What is left but for two agents of Ray's, which take a minute to report a dead raylet."""
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    return [command for command in left(process, before) if not command.startswith(agents)]

"""Sweeps for tests: evaluators that take their time, die or raise, and how to run the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from nas.budget import Cost
from nas.sweep.files import Sweep, SweepSearch
from nas.sweep.following import Following
from nas.sweep.grid import planned
from nas.sweep.running import run_searches
from nas.sweep.summary import summarise

TESTS = Path(__file__).parent
TABULAR = {"name": "tabular", "table": "digits", "report": {"accuracy": "test_accuracy"}}


def document(**changes):
    """A sweep of 2 strategies × 2 seeds on the table that comes with the package."""
    return {
        "search": {
            "space": {
                "name": "nasbench201",
                "operations": ["none", "skip_connect", "nor_conv_3x3"],
            },
            "evaluator": dict(TABULAR),
            "objectives": [{"maximize": "accuracy"}, {"minimize": "macs", "limit": 120_000}],
            "budget": {"trials": 25},
        },
        "axes": {
            "strategy": {
                "random": {"strategy": "random"},
                "evolution": {
                    "strategy": {
                        "name": "regularized_evolution",
                        "population_size": 8,
                        "sample_size": 4,
                    }
                },
            },
            "seed": [0, 1],
        },
        "executor": "serial",
        **changes,
    }


class Watcher:
    """Writes down what it is told; stops the sweep after so many looks, or at a sight."""

    def __init__(
        self, stop_after: int | None = None, stop_when: Callable[[], bool] = lambda: False
    ) -> None:
        self.stop_after = stop_after
        self.stop_when = stop_when
        self.done_before = 0
        self.names: list[str] = []
        self.errors: dict[str, str | None] = {}
        self.looks = 0
        self.most = 0

    def begin(self, sweep: Sweep, done: int) -> None:
        self.done_before = done

    def started(self, one: SweepSearch, following: Following) -> None:
        self.names.append(one.name)
        self.most = max(self.most, len(self.names) - len(self.errors))

    def looked(self) -> None:
        self.looks += 1
        if self.looks == self.stop_after or self.stop_when():
            raise KeyboardInterrupt

    def ended(self, one: SweepSearch, error: str | None) -> None:
        self.errors[one.name] = error


def sweep(folder, watcher=None, **changes):
    """Runs a sweep to its end; gives its table."""
    plan = planned(document(**changes), "sweep")
    errors = run_searches(plan, folder, watcher or Watcher())
    return summarise(plan, folder, errors)


def journals(folder):
    """All journals below a folder by run, as events without what the machine decides."""
    found = {}
    for path in sorted(folder.rglob("journal.jsonl")):
        events = [json.loads(line) for line in path.read_bytes().splitlines()]
        for key in ("machine", "crc"):
            events[0].pop(key, None)
        found[path.parent.relative_to(folder).as_posix()] = events
    return found


# ------------------------------------------------------------------------- evaluators


class Troubled:
    """Another evaluator, with what may happen on the way.

    Args:
        seconds: how much later each trial ends.
        dies_at: numbers of trials that kill their process.
        notes: a folder in which to note that, so that each does it once.
        fails: seeds of searches that cannot even begin.
    """

    def __init__(
        self,
        evaluator,
        seconds: float = 0.0,
        dies_at: tuple[int, ...] = (),
        notes: str = "",
        fails: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        self.evaluator = evaluator
        self.seconds = seconds
        self.dies_at = dies_at
        self.notes = notes
        self.fails = fails
        self.seed = seed
        self.metrics = evaluator.metrics

    def fit(self, folder=None, on_epoch=None):
        if self.seed in self.fails:
            raise RuntimeError("the cable is loose\nand so is the other")
        return Cost()

    def preview(self, arch):
        return self.evaluator.preview(arch)

    def planned_epochs(self, fidelity):
        return self.evaluator.planned_epochs(fidelity)

    def evaluate(self, proposal):
        time.sleep(self.seconds)
        note = Path(self.notes) / f"{self.seed}-{proposal.number}"
        if proposal.number in self.dies_at and not (self.notes and note.exists()):
            if self.notes:
                note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.evaluator.evaluate(proposal)


def troubled(**trouble):
    """``document``'s search with that evaluator."""
    search = document()["search"]
    search["evaluator"] = {"name": "sweeping:Troubled", "evaluator": TABULAR, **trouble}
    return search


# ------------------------------------------------------------------------ the command


def start(folder, text, *arguments, environment=None):
    """``nas sweep`` in a process of its own, in a folder that gets the file."""
    (folder / "sweep.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    return subprocess.Popen(
        [sys.executable, "-m", "nas.cli", "sweep", "sweep.yaml", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials(folder):
    """How many trials are in the journals below a folder."""
    return sum(
        path.read_bytes().count(b'"event":"trial"') for path in folder.rglob("journal.jsonl")
    )

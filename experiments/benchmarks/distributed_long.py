"""One search of 100,000 trials: time and memory as it grows, and resuming it.

Each case is a process of its own, so that its memory is its own. What grows is what it holds
more than after its first trials (a thousandth of them): imports and tables are not the search's.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed_work import (
    Made,
    evolution,
    leave_the_scripts_folder,
    local_ray,
    random_search,
    resident_bytes,
)

from nas.budget import Budget
from nas.execution import Executor
from nas.execution.serial import Serial
from nas.history import JOURNAL, SNAPSHOT, History
from nas.search import search

PIECES = 10
MORE = 100


def measure(quick: bool, table: str, dataset: str | None) -> dict[str, Any]:
    """All cases; see ``grow`` and ``resume``."""
    many, fewer = (2000, 200) if quick else (100_000, 5000)
    cases = [
        ("regularized evolution, table", "evolution", "serial", many),
        ("random search, made up", "random", "serial", many),
        ("random search, made up, Ray", "random", "ray", fewer),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for title, strategy, executor, trials in cases:
            folder = str(Path(scratch) / f"{strategy}-{executor}")
            plan = {
                "strategy": strategy,
                "executor": executor,
                "trials": trials,
                "folder": folder,
                "table": table,
                "dataset": dataset,
            }
            row = {"title": title, "trials": trials, **_apart("grow", plan)}
            if executor == "serial":
                row["resumed"] = _apart("resume", plan)
                (Path(folder) / SNAPSHOT).unlink()
                row["replayed"] = _apart("resume", plan | {"trials": trials + MORE})
            rows.append(row)
    return {"table": Path(table).stem, "rows": rows}


def _apart(what: str, plan: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, what, json.dumps(plan)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def _executor(name: str) -> Iterator[Executor]:
    if name == "serial":
        yield Serial()
        return
    from nas.execution.ray import RayExecutor

    with local_ray(2):
        yield RayExecutor()


def _parts(plan: dict[str, Any]) -> tuple[Any, Any]:
    if plan["strategy"] == "random":
        return random_search(), Made()
    return evolution(plan["table"], plan["dataset"])


def grow(plan: dict[str, Any]) -> dict[str, Any]:
    """Runs a search; seconds, processor seconds and bytes by tenths of its trials."""
    trials = plan["trials"]
    strategy, evaluator = _parts(plan)
    points: list[dict[str, float]] = []
    first = max(trials // 1000, 10)
    with _executor(plan["executor"]) as executor:
        run = search(strategy, evaluator, executor, Budget(trials=trials), History(plan["folder"]))
        for done, _ in enumerate(run, start=1):
            if done == first:
                gc.collect()
                before, start, cpu = resident_bytes(), time.perf_counter(), time.process_time()
            if done > first and done % (trials // PIECES) == 0:
                points.append(
                    {
                        "trials": done,
                        "seconds": time.perf_counter() - start,
                        "cpu_seconds": time.process_time() - cpu,
                        "bytes": resident_bytes() - before,
                    }
                )
    journal = (Path(plan["folder"]) / JOURNAL).stat().st_size
    snapshot = (Path(plan["folder"]) / SNAPSHOT).stat().st_size
    return {
        "points": points,
        "journal_bytes_a_trial": journal / trials,
        "snapshot_bytes": snapshot,
    }


def resume(plan: dict[str, Any]) -> dict[str, Any]:
    """Opens a run, and goes on with it for some trials."""
    strategy, evaluator = _parts(plan)
    gc.collect()
    before, start = resident_bytes(), time.perf_counter()
    history = History(plan["folder"])
    read, held = time.perf_counter() - start, resident_bytes() - before
    run = search(strategy, evaluator, Serial(), Budget(trials=plan["trials"] + MORE), history)
    next(run)
    first = time.perf_counter() - start - read
    done = 1 + sum(1 for _ in run)
    assert done == MORE, f"{done} trials after the resume, expected {MORE}"
    return {"open_s": read, "first_trial_s": first, "bytes": held}


if __name__ == "__main__":
    leave_the_scripts_folder()
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("grow", "resume"))
    parser.add_argument("plan", type=json.loads)
    asked = parser.parse_args()
    print(json.dumps({"grow": grow, "resume": resume}[asked.what](asked.plan)))

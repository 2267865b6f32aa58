"""Workers that wait for ever, a process that starts them, and a list of those started."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nas.supernet import workers
from nas.supernet.parallel import Group
from nas.supernet.workers import run_workers


def recorded(monkeypatch: Any) -> list[Any]:
    """Takes down the processes that are started for workers."""
    found: list[Any] = []
    popen = workers.Popen

    def start(*arguments: Any, **keywords: Any) -> Any:
        found.append(popen(*arguments, **keywords))
        return found[-1]

    monkeypatch.setattr(workers, "Popen", start)
    return found


def assert_gone(processes: list[Any], count: int = 2) -> None:
    assert len(processes) == count
    assert all(process.returncode is not None for process in processes)


def waiting(folder: Path, group: Group, report: Callable[..., None]) -> None:
    """Notes its process and waits."""
    (folder / str(group.rank)).write_text(str(os.getpid()))
    group.sum([torch.zeros(1)])
    report("all are there")
    time.sleep(1000)


if __name__ == "__main__":
    from waiting_together import waiting as work  # by its name in a module, not in a script

    said = functools.partial(print, flush=True)
    run_workers(functools.partial(work, Path(sys.argv[1])), 2, on_report=said)

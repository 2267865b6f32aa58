"""Workers that wait for ever, and a process that starts them: to be ended by others."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nas.supernet.parallel import Group
from nas.supernet.workers import run_workers


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

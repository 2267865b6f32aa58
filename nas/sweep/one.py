"""One search of a sweep, in whatever process it runs: begun, or gone on with from its journal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.config import build
from nas.errors import DataError, NasError
from nas.history import JOURNAL, History, write_file
from nas.search import search
from nas.sweep.files import mark_done
from nas.trial import Trial

ERROR = "error.txt"
TOKEN = "sweep.token"
_PATIENCE_S = 60.0


def run_search(
    folder: Path,
    config: Mapping[str, Any],
    executor: Any,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Runs a search to its end, in a folder that may hold its beginning, and marks it as done.

    Args:
        executor: where its trials run, instead of where the configuration says.

    Raises:
        NasError: it cannot be built or gone on with.
    """
    run = build({**config, "executor": executor})
    history = History(folder)
    trials = search(run.strategy, run.evaluator, run.executor, run.budget, history)
    with contextlib.closing(trials):
        for trial in trials:
            on_trial(trial)
    from nas.plot import front_png

    write_file(folder / "front.png", front_png(history, run.strategy.objectives))
    mark_done(folder, config)


def run_in_worker(
    sweep: str, token: str, run: str, config: Mapping[str, Any], executor: Any
) -> str | None:
    """``run_search`` as a job of a worker process, maybe of another machine.

    Args:
        sweep: the sweep's folder; ``token`` is what stands in its token file.
        run: the search's folder below it.

    Returns:
        What went wrong, in one line, with the traceback in the run's ``error.txt``; or ``None``.

    Raises:
        DataError: the sweep's folder is not to be seen from this machine.
    """
    check_shared(Path(sweep), token)
    folder = Path(sweep, run)
    wait_until_free(folder / JOURNAL)
    return attempt(folder, lambda: run_search(folder, config, executor))


def attempt(folder: Path, job: Callable[[], None]) -> str | None:
    """Does it; what goes wrong is told in one line, and at length in ``error.txt``."""
    try:
        job()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a component does not end the sweep
        with contextlib.suppress(NasError):
            write_file(folder / ERROR, traceback.format_exc().encode("utf-8", "replace"))
        lines = str(error).strip().splitlines() or [""]
        text = lines[0] if isinstance(error, NasError) else f"{type(error).__name__}: {lines[0]}"
        return text.removesuffix(": ")
    (folder / ERROR).unlink(missing_ok=True)
    return None


def check_shared(sweep: Path, token: str) -> None:
    """Raises ``DataError`` if the sweep's folder here is not the driver's."""
    try:
        found = (sweep / TOKEN).read_text()
    except OSError:
        found = ""
    if found != token:
        raise DataError(
            f"the sweep's folder {sweep} is not to be seen from {os.uname().nodename}, a machine "
            "of the cluster: put it on storage that all of them share (--out), or set the "
            "searches' executor to ray, so that only their trials leave this machine"
        )


def wait_until_free(journal: Path, patience_s: float = _PATIENCE_S) -> None:
    """Waits for a process that writes a journal and is about to end.

    A search whose machine was lost may be gone on with elsewhere before the process there has
    noticed. Of a process that stays, ``nas.history`` tells.
    """
    if not journal.exists():
        return
    until = time.monotonic() + patience_s
    with open(journal, "rb+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.1)
            else:
                return

"""The command line. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from nas.cli import (
    bench,
    deliver,
    fidelity,
    latency,
    latency_devices,
    mirror,
    rank,
    report,
    runs,
    spaces,
    specialize,
    supernet,
    surrogate,
    sweep,
    watch,
    zero_cost,
)
from nas.cli.common import app, err_console
from nas.errors import NasError

__all__ = [
    "app",
    "bench",
    "deliver",
    "fidelity",
    "latency",
    "latency_devices",
    "main",
    "mirror",
    "rank",
    "report",
    "runs",
    "spaces",
    "specialize",
    "supernet",
    "surrogate",
    "sweep",
    "watch",
    "zero_cost",
]


def settings_spread(arguments: list[str]) -> list[str]:
    """``--set a=1 b=2`` as ``--set a=1 --set b=2``."""
    spread: list[str] = []
    after_set = False
    for position, argument in enumerate(arguments):
        if after_set and "=" in argument and not argument.startswith("-"):
            if arguments[position - 1] != "--set":
                spread.append("--set")
        else:
            after_set = argument == "--set"
        spread.append(argument)
    return spread


def _show_warning(message: Warning | str, *_: Any) -> None:
    err_console.print(f"warning: {message}", markup=False)


def main() -> None:
    """The entry point: a user's mistake is one message and exit code 2."""
    # Before torch is imported: idle threads must not spin, trials train on one each.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.path.insert(0, os.getcwd())  # so that a configuration can name a module beside it
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # its signature has defaults we ignore
    try:
        app(settings_spread(sys.argv[1:]))
    except NasError as error:
        err_console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)

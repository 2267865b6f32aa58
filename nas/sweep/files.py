"""The folder of a sweep: what it is made of (``sweep.json``), which searches are done, who runs it.

Each search is an ordinary run folder below it, so that whatever reads a run reads it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, DataError, JournalError, ResumeError
from nas.history import JOURNAL, write_file

SWEEP = "sweep.json"
TABLE = "table.json"
FORMAT = 1
SEED = "seed"
"""The axis over which the others are averaged."""
_COMPARED = "strategy"
_DONE = "done.json"
_LOCK = "sweep.lock"


@dataclass(frozen=True)
class SweepSearch:
    """One search of a sweep.

    Attributes:
        folder: its run folder, below the sweep's: ``runs/<label>/<label>/…``.
        labels: where it stands on each axis.
        config: its configuration, as ``nas search`` takes it.
    """

    folder: str
    labels: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.removeprefix("runs/")

    @property
    def cell(self) -> tuple[str, ...]:
        """Its labels on all axes but the seeds'."""
        return tuple(label for axis, label in self.labels.items() if axis != SEED)

    @property
    def group(self) -> dict[str, str]:
        """Its labels on the axes on which whoever compares it with another stays (``compared``)."""
        left_out = (SEED, compared(tuple(self.labels)))
        return {axis: label for axis, label in self.labels.items() if axis not in left_out}


@dataclass(frozen=True)
class Sweep:
    """What a sweep is made of.

    Attributes:
        axes: the labels of each axis, in order.
        objectives: as in a journal's header, without the limits that differ between searches.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    searches: tuple[SweepSearch, ...]
    objectives: tuple[Mapping[str, Any], ...]

    @property
    def cell_axes(self) -> tuple[str, ...]:
        """The axes other than the seeds'."""
        return tuple(axis for axis in self.axes if axis != SEED)

    def cells(self) -> dict[tuple[str, ...], list[SweepSearch]]:
        """The searches of each cell of the axes other than the seeds', in order."""
        cells: dict[tuple[str, ...], list[SweepSearch]] = {}
        for one in self.searches:
            cells.setdefault(one.cell, []).append(one)
        return cells


def compared(axes: Sequence[str]) -> str | None:
    """The axis whose labels are compared: ``strategy``, or else the first but the seeds'."""
    cell_axes = [axis for axis in axes if axis != SEED]
    if _COMPARED in cell_axes:
        return _COMPARED
    return cell_axes[0] if cell_axes else None


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / SWEEP).exists()


def read_sweep(folder: Path) -> Sweep:
    """What the sweep in a folder is made of.

    Raises:
        DataError: the folder holds no sweep, or ``sweep.json`` is damaged.
    """
    path = folder / SWEEP
    document = _read(path)
    if document is None:
        raise DataError(f"{folder} is not a sweep's folder: it has no {SWEEP}")
    if document.get("format") != FORMAT:
        raise DataError(f"{path}: expected format {FORMAT}, got {document.get('format')!r}")
    try:
        return Sweep(
            name=str(document["name"]),
            axes={axis: tuple(labels) for axis, labels in document["axes"].items()},
            searches=tuple(
                SweepSearch(one["folder"], dict(one["labels"]), dict(one["config"]))
                for one in document["searches"]
            ),
            objectives=tuple(dict(one) for one in document["objectives"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} does not describe a sweep: {error!r}") from error


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Writes ``sweep.json``; raises ``JournalError`` when the disk does not take it."""
    document = {
        "format": FORMAT,
        "name": sweep.name,
        "axes": {axis: list(labels) for axis, labels in sweep.axes.items()},
        "objectives": [dict(one) for one in sweep.objectives],
        "searches": [
            {"folder": one.folder, "labels": dict(one.labels), "config": dict(one.config)}
            for one in sweep.searches
        ],
    }
    write_json(folder / SWEEP, document)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, (text + "\n").encode())


def _read(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; ``None`` where there is no such file."""
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} must hold a mapping, got a {type(document).__name__}")
    return document


# ------------------------------------------------------------------------- what is done


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration, what decides what a search finds: all but where it runs.

    As JSON has it, so that it may be compared with what was read from a file.
    """
    kept: dict[str, Any] = json.loads(json.dumps(dict(config)))
    kept.pop("executor", None)
    return kept


def mark_done(run: Path, config: Mapping[str, Any]) -> None:
    """Notes in a run's folder that the search of this configuration has ended."""
    write_json(run / _DONE, {"format": FORMAT, "config": settings(config)})


def is_done(run: Path, config: Mapping[str, Any]) -> bool:
    """Whether the search of this configuration, its budget included, has ended."""
    document = _read(run / _DONE)
    return (
        document is not None
        and document.get("config") == settings(config)
        and (run / JOURNAL).exists()
    )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a sweep's folder alone, and makes it where it is not there.

    Raises:
        ConfigError: it is a run's.
        JournalError: it cannot be made or written to.
        ResumeError: another process runs this sweep.
    """
    if (folder / JOURNAL).exists():
        raise ConfigError(f"{folder} holds a run, not a sweep: choose another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JournalError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResumeError(f"{folder}: another process is running this sweep") from error
        yield
    finally:
        os.close(handle)

"""A search in TensorBoard: every metric by trial, the best so far, the front and its picture.

    with TensorBoard(history, objectives) as board:
        for trial in watch(strategy, evaluator, executor, budget, history):
            board.add(trial)

``tensorboard --logdir RUN`` shows it. The step is a trial's place in the order in which they
finished. A run that is resumed goes on where its events end, and trials that were finished but not
written (the process was killed) are written then. The choices of each architecture are not
written: TensorBoard wants a folder a trial for those; ``nas report`` has them.
"""

from __future__ import annotations

import importlib
import io
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.errors import ConfigError, DataError
from nas.history import History, ParetoFront
from nas.objective import Objective, violated
from nas.pareto import costs, hypervolume
from nas.plot import front_png
from nas.trial import Failed, Infeasible, Trial

FOLDER = "tensorboard"

_PICTURE_EVERY_S = 60.0
_FIRST = 10
"""The worst of so many first measured trials bounds the hypervolume, which begins with them."""


class TensorBoard:
    """Writes a search's events; enter it as a context, or ``close`` it.

    Nothing is written before the first trial. Per trial: ``metrics/…`` as measured, ``best/…`` of
    each objective among the trials that keep the limits, ``front/size``, ``front/hypervolume``
    (of several objectives, from the tenth measured trial on, whose worst values bound it), and
    ``search/…``: failed, infeasible, seconds and epochs so far. ``front`` is its picture, drawn
    at most once a minute, and at the end.

    Args:
        history: that the search writes; its earlier trials are written too.
        folder: ``tensorboard`` in the run folder by default.

    Raises:
        ConfigError: tensorboardX is not installed, or there is no folder to write to.
        DataError: the events that are there cannot be read.
    """

    def __init__(
        self, history: History, objectives: Sequence[Objective], folder: str | Path | None = None
    ) -> None:
        if folder is None:
            if history.folder is None:
                raise ConfigError("this history is in memory only: give TensorBoard a folder")
            folder = history.folder / FOLDER
        _library()
        self.history = history
        self.objectives = tuple(objectives)
        self.folder = Path(folder)
        self._writer: Any = None
        self._steps = 0
        self._failed = self._infeasible = 0
        self._seconds = self._epochs = 0.0
        self._best: dict[str, float] = {}
        self._front = ParetoFront(self.objectives)
        self._first: list[tuple[float, ...]] = []
        self._volume: float | None = None
        self._drawn_at = float("-inf")
        self._drawn_steps = -1
        last = last_step(self.folder)
        self._written = last[0] if last else -1
        self._tags = last[1] if last else frozenset[str]()
        self._unfinished = list(history.trials)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, trial: Trial) -> None:
        """Writes a trial that has just finished."""
        self._catch_up()
        self._add(trial)
        if self._undrawn() and time.monotonic() - self._drawn_at >= _PICTURE_EVERY_S:
            self._draw()

    def close(self) -> None:
        """Draws the front, and puts everything on disk; ``add`` may follow again."""
        self._catch_up()
        if self._steps and self._undrawn():
            self._draw()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _catch_up(self) -> None:
        """What was finished before: counted, and written where it is not there yet."""
        for trial in self._unfinished:
            self._add(trial)
        self._unfinished.clear()

    def _add(self, trial: Trial) -> None:
        step = self._steps
        self._steps += 1
        self._failed += isinstance(trial.outcome, Failed)
        self._infeasible += isinstance(trial.outcome, Infeasible)
        self._seconds += trial.cost.seconds
        self._epochs += trial.cost.epochs
        for name, value in self._scalars(trial).items():
            if step > self._written or (step == self._written and name not in self._tags):
                self._open().add_scalar(name, value, step)

    def _scalars(self, trial: Trial) -> dict[str, float]:
        values = trial.values
        found = {f"metrics/{name}": value for name, value in values.items()}
        if self._front.add(trial):
            self._volume = None
        if all(one.metric in values for one in self.objectives):
            if len(self._first) < _FIRST:
                self._first.append(costs(self.objectives, values))
            if violated(self.objectives, values) is None:
                for one in self.objectives:
                    best = self._best.get(one.metric)
                    if best is None or one.better(values[one.metric], best):
                        self._best[one.metric] = values[one.metric]
        found |= {f"best/{name}": value for name, value in self._best.items()}
        found["front/size"] = len(self._front)
        if len(self.objectives) > 1 and len(self._first) == _FIRST:
            if self._volume is None:
                worst = [max(column) for column in zip(*self._first, strict=True)]
                rows = [costs(self.objectives, member.values) for member in self._front.trials()]
                self._volume = hypervolume(rows, worst) if rows else 0.0
            found["front/hypervolume"] = self._volume
        return found | {
            "search/failed": self._failed,
            "search/infeasible": self._infeasible,
            "search/seconds": self._seconds,
            "search/epochs": self._epochs,
        }

    def _undrawn(self) -> bool:
        return self._drawn_steps != self._steps and self._steps - 1 >= self._written

    def _draw(self) -> None:
        from matplotlib.image import imread

        self._drawn_at, self._drawn_steps = time.monotonic(), self._steps
        step = self._steps - 1
        if step == self._written and "front" in self._tags:
            return
        picture = imread(io.BytesIO(front_png(self.history, self.objectives)), format="png")
        pixels = (255 * picture[..., :3]).round().astype("uint8")
        self._open().add_image("front", pixels, step, dataformats="HWC")

    def _open(self) -> Any:
        if self._writer is None:
            # Of its own for certain: the library's names change by the second.
            suffix = f".{time.time_ns()}"
            self._writer = _library().SummaryWriter(str(self.folder), filename_suffix=suffix)
        return self._writer


def last_step(folder: Path) -> tuple[int, frozenset[str]] | None:
    """The last step in a folder's event files, and the tags it has; ``None`` if there is none.

    Raises:
        DataError: a file is none of TensorBoard's, or cannot be read.
    """
    last: dict[int, set[str]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in read_events(path):
            for value in event.summary.value:
                if not last or event.step > max(last):
                    last = {event.step: set()}
                if event.step in last:
                    last[event.step].add(value.tag)
    return next(((step, frozenset(tags)) for step, tags in last.items()), None)


def read_events(path: Path) -> Iterator[Any]:
    """The events of a file (``tensorboardX.proto.event_pb2.Event``); a torn end is passed over.

    Raises:
        DataError: it is no event file, or cannot be read.
    """
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    event_class = importlib.import_module("tensorboardX.proto.event_pb2").Event
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    at = 0
    # A record: its length in 8 bytes, 4 of a checksum of that, itself, 4 of a checksum of itself.
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + 12 + length + 4
        if end > len(content):
            return
        event = event_class()
        try:
            event.ParseFromString(content[at + 12 : end - 4])
        except decode_error as error:
            raise DataError(f"{path} is no event file of TensorBoard's: {error}") from error
        yield event
        at = end


def _library() -> Any:
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as error:
        raise ConfigError(
            "writing for TensorBoard needs tensorboardX: pip install tensorboardX"
        ) from error

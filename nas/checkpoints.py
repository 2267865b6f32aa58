"""The checkpoints of a run's trials: kept while something may go on from them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nas.trial import CHECKPOINT, Measured, Trial

PART = ".part"
"""How the name of a file ends that is being written."""


class Checkpoints:
    """Knows which trials have a checkpoint; holds them itself where there is no folder.

    Args:
        folder: where each trial has a folder of its number for its artifacts.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[int, bytes | None] = {}  # None: in the folder

    def __bool__(self) -> bool:
        return bool(self._held)

    def find(self) -> None:
        """Looks for those that a killed run left in the folder."""
        if self._folder is not None:
            for path in self._folder.glob(f"*/{CHECKPOINT}"):
                if path.parent.name.isdigit():
                    self._held[int(path.parent.name)] = None

    def take(self, trial: Trial) -> Trial:
        """Notes a trial that has one; where there is no folder, returns it without."""
        if not isinstance(trial.outcome, Measured) or CHECKPOINT not in trial.outcome.artifacts:
            return trial
        if self._folder is not None:
            self._held[trial.number] = None
            return trial
        others = dict(trial.outcome.artifacts)
        self._held[trial.number] = others.pop(CHECKPOINT)
        return replace(trial, outcome=replace(trial.outcome, artifacts=others))

    def held(self, number: int) -> bytes | None:
        """That of a trial, where it is held here."""
        return self._held.get(number)

    def artifacts(self, number: int) -> dict[str, bytes]:
        """A trial's checkpoint and its files in the folder, as far as they can be read."""
        held = self._held.get(number)
        found = {} if held is None else {CHECKPOINT: held}
        if self._folder is not None:
            for path in (self._folder / str(number)).glob("*"):
                if path.suffix != PART:
                    # What cannot be read is not there: the evaluator starts again without it.
                    with contextlib.suppress(OSError):
                        found[path.name] = path.read_bytes()
        return found

    def keep(self, numbers: Collection[int]) -> None:
        """Deletes the checkpoints of all trials but these."""
        for number in set(self._held).difference(numbers):
            del self._held[number]
            if self._folder is not None:
                folder = self._folder / str(number)
                with contextlib.suppress(OSError):  # at worst it takes up room
                    (folder / CHECKPOINT).unlink(missing_ok=True)
                    folder.rmdir()  # unless something else is in it

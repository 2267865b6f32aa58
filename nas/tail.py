"""A journal that another process writes, read on from where one was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.errors import JournalError
from nas.journal import decode_line

_PIECE = 2**20


class Tail:
    """The events of a journal from where the last look ended; only whole lines count.

    What is behind the last newline is being written, or was when its process died: whoever goes
    on with the run cuts it off or completes it. The file is opened to read, and not locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._at = 0
        self._file: tuple[int, int] | None = None

    def look(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """The new events, each with whether the file was replaced and this is its first line.

        Raises:
            JournalError: a line is damaged, or the file cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                yield from self._read(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _read(self, file: Any) -> Iterator[tuple[bool, dict[str, Any]]]:
        status = os.fstat(file.fileno())
        same = self._file in (None, (status.st_dev, status.st_ino))
        # A copy is put in its place (a backup, a synchronised folder), or the run begins anew.
        if not same or status.st_size < self._at:
            self._at = self.lines = 0
        self._file = status.st_dev, status.st_ino
        file.seek(self._at)
        rest = b""
        while piece := file.read(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                self._at += len(line) + 1
                self.lines += 1
                try:
                    event = decode_line(line)
                except ValueError as error:
                    raise JournalError(
                        f"{self.path}: line {self.lines} is damaged: {error}"
                    ) from error
                yield self.lines == 1, event

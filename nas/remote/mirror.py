"""What brings a run folder to its URL while a search writes to it."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.checkpoints import PART
from nas.errors import JournalError, NasError, ResumeError
from nas.history import ARTIFACTS, JOURNAL
from nas.remote import copy, lease, working_copy
from nas.remote.lease import Times
from nas.remote.segments import Segment
from nas.remote.store import Store
from nas.trial import CHECKPOINT

_MERGED, _LARGE = 32, 4 << 20
_BACKOFF_S = 60.0
TIMES = Times()


class StoreTrouble(UserWarning):
    """A run's store cannot be written to; the search goes on, and what is new waits."""


@dataclass(slots=True)
class _Sent:
    """What is at the URL: the journal's bytes, and each file as it was when it was brought.

    Attributes:
        end: of the journal.
        tail: this driver's segments that may yet be made one.
        files: size and time of change of each file.
        when: each was brought, by this process's clock.
        manifest: what the URL's list of files says.
        checkpoints: those of trials that are there.
    """

    end: int = 0
    tail: list[Segment] = field(default_factory=list)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    when: dict[str, float] = field(default_factory=dict)
    manifest: dict[str, dict[str, int]] = field(default_factory=dict)
    checkpoints: set[str] = field(default_factory=set)


class Mirror:
    """Keeps a run at a URL: a working copy here, and a thread that brings what is new there.

    Args:
        url: of the run folder.

    Attributes:
        folder: the working copy.

    Raises:
        ConfigError: the URL cannot be reached this way.
        JournalError: it cannot be read, or a part of it is missing or damaged.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.folder = working_copy(url)
        self._store = Store(url)
        self._times = TIMES
        self._seen = copy.update(self._store, self.folder)
        self._driver: lease.Driver | None = None
        self._sent = _Sent()
        self._length = 0
        self._trials: set[str] = set()  # files of trials that are to be brought
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._lost: NasError | None = None
        self._trouble = self._warned = ""
        self._beat_at = self._wait_until = 0.0
        self._backoff = 0.0

    # ------------------------------------------------------------- from the search's thread

    def begin(self, length: int) -> None:
        """Becomes the run's driver, and starts bringing what is new.

        Args:
            length: of the journal that was read, in bytes.

        Raises:
            ResumeError: another process drives it, or wrote to it since it was opened.
        """
        # Whoever drove this working copy held its journal, which this process holds now.
        ended = copy.read_state(self.folder).get("drove")
        self._driver = lease.take(self._store, self._times, ended)
        try:
            if self._driver.term != (self._seen.term + 1 if self._seen else 1):
                raise ResumeError(f"{self.url}: another process wrote to it since it was read")
            self._sent = _Sent(
                end=copy.journal_end(self._store), manifest=copy.read_manifest(self._store)
            )
            if self._sent.end > length:
                raise ResumeError(
                    f"{self.url} has {self._sent.end} bytes of the journal, its working copy "
                    f"{self.folder} only {length}: delete the working copy"
                )
            if copy.read_state(self.folder).get("drove") is None:
                copy.fetch_trials(self._store, self.folder)
            self._find_trials()
        except BaseException:
            lease.say(self._store, replace(self._driver, released=True))
            self._driver = None
            raise
        self._seen = self._driver
        copy.write_state(self.folder, {"url": self.url, "drove": self._driver.id})
        self._length = length
        self._closing = False
        self._wake.clear()
        self._thread = threading.Thread(target=self._work, name=f"mirror {self.url}", daemon=True)
        self._thread.start()

    def appended(self, length: int, trial: int | None = None) -> None:
        """Notes that the journal is so long now, and a trial whose files are to be brought.

        Raises:
            ResumeError: another driver has taken over.
        """
        with self._lock:
            self._length = length
            if trial is not None:
                folder = self.folder / ARTIFACTS / str(trial)
                self._trials |= {f"{ARTIFACTS}/{trial}/{path.name}" for path in folder.glob("*")}
        if self._lost is not None:
            raise self._lost
        trouble = self._trouble
        if trouble != self._warned:
            if trouble and not self._warned:
                warnings.warn(
                    f"{trouble}. The search goes on in {self.folder}, and what is new is brought "
                    "there when that is possible again",
                    StoreTrouble,
                    stacklevel=3,
                )
            self._warned = trouble

    def fetch(self, name: str) -> None:
        """Brings a trial's file to the working copy, where it is at the URL."""
        if not (self.folder / name).exists() and self._store.names(name):
            self._store.fetch(name, self.folder / name)

    def put(self, name: str) -> None:
        """Brings one file of the working copy to the URL, also when no search runs."""
        if self._thread is None:
            self._sent.manifest = copy.read_manifest(self._store)
            self._put_files([name])

    def close(self, length: int) -> None:
        """Brings everything to the URL and lets go of the run.

        Args:
            length: of the journal, in bytes.

        Raises:
            JournalError: that could not be done; the message says what is missing there.
        """
        if self._thread is None:
            return
        self._length = length
        self._closing = True
        self._wake.set()
        self._thread.join(self._times.patience + 5)
        hangs, self._thread = self._thread.is_alive(), None
        self._driver = None
        if self._lost is not None:
            raise self._lost
        if hangs or self._trouble:
            missing = [f"{self._length - self._sent.end} bytes of the journal"]
            missing += sorted({*self._trials, *self._changed()})
            why = self._trouble or f"{self.url} does not answer"
            raise JournalError(
                f"{why}. What is not there: {', '.join(missing[:8])}"
                f"{', …' if len(missing) > 8 else ''}. All of it is in {self.folder}: "
                f"'nas resume {self.url}' on this machine brings it there"
            )

    # -------------------------------------------------------------------------- the thread

    def _work(self) -> None:
        deadline = None
        while self._lost is None:
            if self._closing and deadline is None:
                deadline = time.monotonic() + self._times.patience
                self._wait_until = 0.0
            now = time.monotonic()
            if now >= self._wait_until:
                whole = self._pass()
                if deadline is not None and (whole or time.monotonic() > deadline):
                    return
            pause = self._times.upload
            if deadline is not None:
                pause = min(pause, max(0.01, self._wait_until - time.monotonic()))
            self._wake.wait(pause) if deadline is None else time.sleep(pause)

    def _pass(self) -> bool:
        """One look for what is new; whether all of it is at the URL now."""
        assert self._driver is not None
        try:
            if self._closing or time.monotonic() >= self._beat_at:
                self._driver = lease.beat(self._store, self._driver)
                self._beat_at = time.monotonic() + self._times.beat
            # Before the journal: a trial that is recorded there has its files there.
            with self._lock:
                length, trials = self._length, set(self._trials)
            self._put_trials(trials)
            self._put_journal(length)
            before = time.monotonic() - (0 if self._closing else self._times.again)
            self._put_files([n for n in self._changed() if self._sent.when.get(n, 0.0) <= before])
            if self._closing:
                lease.say(self._store, replace(self._driver, released=True))
        except ResumeError as error:
            self._lost = error
            return False
        except Exception as error:  # the thread lives as long as the search does
            self._trouble = f"{self.url} cannot be written to ({error})"
            self._backoff = min(max(2 * self._backoff, self._times.upload), _BACKOFF_S)
            if self._closing:
                self._backoff = min(self._backoff, 1.0)
            self._wait_until = time.monotonic() + self._backoff
            return False
        self._trouble, self._backoff = "", 0.0
        return True

    def _put_journal(self, length: int) -> None:
        if length <= self._sent.end:
            return
        assert self._driver is not None
        with open(self.folder / JOURNAL, "rb") as file:
            file.seek(self._sent.end)
            content = file.read(length - self._sent.end)
            segment = Segment.of(self._driver.term, self._sent.end, content)
            self._store.write(segment.name, content)
            self._sent.end = segment.end
            self._sent.tail.append(segment)
            if len(self._sent.tail) < _MERGED:
                return
            # A long search would leave an object for every few seconds otherwise.
            begin = self._sent.tail[0].start
            file.seek(begin)
            merged = Segment.of(self._driver.term, begin, file.read(segment.end - begin))
            file.seek(begin)
            self._store.write(merged.name, file.read(segment.end - begin))
        for part in self._sent.tail:
            self._store.delete(part.name)
        self._sent.tail = [] if merged.end - merged.start > _LARGE else [merged]

    def _put_trials(self, names: set[str]) -> None:
        for name in sorted(names):
            try:
                with open(self.folder / name, "rb") as file:
                    self._store.put(name, file)
            except FileNotFoundError:
                pass  # a checkpoint that nothing goes on from any more
            else:
                if name.endswith("/" + CHECKPOINT):
                    self._sent.checkpoints.add(name)
            with self._lock:
                self._trials.discard(name)
        for name in [n for n in self._sent.checkpoints if not (self.folder / n).exists()]:
            self._store.delete(name)
            self._sent.checkpoints.discard(name)

    def _find_trials(self) -> None:
        """Of what trials left here, what a killed driver had not brought there yet."""
        there = self._store.names(ARTIFACTS)
        here = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in (self.folder / ARTIFACTS).glob("*/*")
            if path.suffix != PART
        }
        self._trials = {name for name, size in here.items() if there.get(name) != size}
        self._sent.checkpoints = {n for n in there if n.endswith("/" + CHECKPOINT)}

    def _changed(self) -> list[str]:
        """The files outside ``trials`` that are not at the URL as they are here."""
        found = []
        for folder, below, names in os.walk(self.folder):
            if Path(folder) == self.folder and ARTIFACTS in below:
                below.remove(ARTIFACTS)
            for name in names:
                path = Path(folder) / name
                relative = path.relative_to(self.folder).as_posix()
                if copy.is_plain(relative):
                    try:
                        facts = path.stat()
                    except FileNotFoundError:
                        continue
                    if self._sent.files.get(relative) != (facts.st_size, facts.st_mtime_ns):
                        found.append(relative)
        return found

    def _put_files(self, names: list[str]) -> None:
        brought = False
        for name in names:
            with open(self.folder / name, "rb") as file:
                facts = os.fstat(file.fileno())
                crc = 0
                while chunk := file.read(1 << 20):
                    crc = zlib.crc32(chunk, crc)
                file.seek(0)
                entry = {"size": facts.st_size, "crc": crc}
                if self._sent.manifest.get(name) != entry:
                    self._store.put(name, file)
                    self._sent.manifest[name] = entry
                    brought = True
            self._sent.files[name] = (facts.st_size, facts.st_mtime_ns)
            self._sent.when[name] = time.monotonic()
        if brought:
            document = {"format": copy.FORMAT, "files": self._sent.manifest}
            self._store.write(copy.MANIFEST, json.dumps(document).encode())

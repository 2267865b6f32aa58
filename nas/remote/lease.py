"""Who drives a run at a URL: an object that its driver rewrites every few seconds.

A driver that was killed leaves it as it was; whoever comes next watches it for as long as three
beats take and goes on if nothing moves. No two machines' clocks are compared. fsspec has no
"write if unchanged" that all stores share: two drivers that start within the same moment settle
it by reading back who wrote last.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nas.errors import JournalError, ResumeError
from nas.remote.store import Store

FILE = "driver.json"
FORMAT = 1


class Watching(UserWarning):
    """A run's last driver may still be running, which takes a while to find out."""


@dataclass(frozen=True, slots=True)
class Times:
    """How often things happen, in seconds.

    Attributes:
        upload: from one look for what is new to the next.
        again: before a file that was brought is brought again, if it goes on changing.
        beat: from one sign of life to the next.
        silent: after so long without one a driver is taken for dead.
        settle: after it has taken a run a driver waits so long for another that did the same.
        patience: so long the end of a search tries to bring everything to a store that fails.
    """

    upload: float = 2.0
    again: float = 15.0
    beat: float = 5.0
    silent: float = 20.0
    settle: float = 0.5
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver of a run, present or past.

    Attributes:
        term: how many drivers there have been, this one included.
        id: no other's.
        beat: how often it has said that it lives.
        released: it ended in good order.
        host, pid, start: its process; ``start`` is when that began, so that a number that was
            given again is not taken for it.
    """

    term: int
    id: str
    host: str
    pid: int
    start: str
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def gone(self) -> bool:
        """Whether this is a process of this machine that is no more."""
        return self.host == _host() and _start(self.pid) != self.start


def read(store: Store) -> Driver | None:
    """The driver a run has, or had last; raises ``JournalError`` for a file of something else."""
    content = store.read(FILE)
    if content is None:
        return None
    try:
        document = json.loads(content)
        if document.pop("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        return Driver(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{store.url}/{FILE} is not a run's: {error!r}") from error


def take(store: Store, times: Times, ended: str | None = None) -> Driver:
    """Becomes the driver of a run.

    Args:
        ended: the id of a driver that is known to be no more.

    Raises:
        ResumeError: another drives it; the message names its process and machine.
    """
    last = read(store)
    if last is not None and not (last.released or last.id == ended or last.gone()):
        warnings.warn(
            f"{store.url}: {last} has not said that it ended; watching for {times.silent:g} s "
            "whether it still runs",
            Watching,
            stacklevel=2,
        )
        deadline = time.monotonic() + times.silent
        while time.monotonic() < deadline:
            time.sleep(min(times.beat / 4, times.silent / 4))
            now = read(store)
            if now != last:
                if now is not None and not now.released:
                    raise ResumeError(f"{store.url}: {now} is running this search")
                last = now
                break
    pid = os.getpid()
    term = 1 if last is None else last.term + 1
    mine = Driver(term, uuid.uuid4().hex, _host(), pid, _start(pid))
    say(store, mine)
    time.sleep(times.settle)
    holder = read(store)
    if holder != mine:
        raise ResumeError(f"{store.url}: {holder} took this search a moment later")
    return mine


def say(store: Store, driver: Driver) -> None:
    """Writes down who drives."""
    store.write(FILE, json.dumps({"format": FORMAT, **asdict(driver)}).encode())


def beat(store: Store, driver: Driver) -> Driver:
    """Says that the driver lives; raises ``ResumeError`` if another has taken over."""
    holder = read(store)
    if holder is None or holder.id != driver.id:
        raise ResumeError(
            f"{store.url}: {holder or 'nobody'} runs this search now: it took {driver} for dead, "
            "which had not reached the store for a while"
        )
    following = replace(driver, beat=driver.beat + 1)
    say(store, following)
    return following


def _host() -> str:
    return socket.gethostname()


def _start(pid: int) -> str:
    """When a process of this machine began, in what the system counts by; empty if it is gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot} {fields[19]}"

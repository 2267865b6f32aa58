"""The working copy of a run at a URL: brought up to date when the run is opened.

The copy of the machine that drove last has all that is at the URL, and what was not brought there
any more when its driver was killed: it is taken as it is. Any other is made equal to the URL's.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.checkpoints import PART
from nas.errors import JournalError
from nas.history import ARTIFACTS, JOURNAL
from nas.remote import lease, segments
from nas.remote.lease import Driver
from nas.remote.segments import Segment
from nas.remote.store import Store

MANIFEST = "files.json"
STATE = ".remote.json"
FORMAT = 1
_CHUNK = 1 << 20


def update(store: Store, folder: Path) -> Driver | None:
    """Makes a working copy what the URL holds; returns the driver it had last.

    One that a process of this machine is driving at this moment is left as it is: nothing is
    newer.

    Raises:
        JournalError: a segment is missing or damaged, or the store cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        driver = lease.read(store)
        if _driven(folder):
            return driver
        state = read_state(folder)
        journal = folder / JOURNAL
        if driver is not None and state.get("drove") == driver.id and journal.exists():
            return driver  # it was the last to drive: nothing is newer
        if "drove" in state:
            _set_aside(folder, str(state["drove"]))
        if state.get("seen") != (driver and driver.id):
            shutil.rmtree(folder / ARTIFACTS, ignore_errors=True)
        _fetch_journal(store, journal)
        _fetch_files(store, folder)
        write_state(folder, {"url": store.url, "seen": driver and driver.id})
        return driver


def fetch_trials(store: Store, folder: Path) -> None:
    """Brings what trials left (checkpoints, weights), as far as it is not there."""
    for name, size in store.names(ARTIFACTS).items():
        target = folder / name
        if not target.exists() or target.stat().st_size != size:
            store.fetch(name, target)


def read_state(folder: Path) -> dict[str, Any]:
    """What the working copy knows of itself: whose URL it is, who drove, what it saw last."""
    try:
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    part = folder / (STATE + PART)
    part.write_text(json.dumps(state))
    part.replace(folder / STATE)


def read_manifest(store: Store) -> dict[str, dict[str, int]]:
    """Size and checksum of the run's files but for the journal and what trials left."""
    content = store.read(MANIFEST)
    if content is None:
        return {}
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        files = {str(name): {**facts} for name, facts in document["files"].items()}
        outside = [name for name in files if ".." in Path(name).parts or not is_plain(name)]
        if outside or any(Path(name).is_absolute() for name in files):
            raise ValueError(f"it names files that are not the run's: {outside or list(files)}")
        return files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{store.url}/{MANIFEST} is not a run's: {error!r:.300}") from error


def checksum(path: Path) -> int:
    """The checksum of a file's content."""
    found = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def journal_end(store: Store) -> int:
    """How many bytes of the journal are at the URL."""
    chosen = _segments(store)
    return chosen[-1].end if chosen else 0


def _segments(store: Store) -> list[Segment]:
    named = (Segment.named(name) for name in store.names(segments.FOLDER))
    return segments.in_force(store.url, [segment for segment in named if segment is not None])


def _fetch_journal(store: Store, path: Path) -> None:
    chosen = _segments(store)
    if not chosen:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(path.name + PART)
    with open(part, "wb") as made, open(path if path.exists() else "/dev/null", "rb") as old:
        for segment in chosen:
            old.seek(segment.start)
            content: bytes | None = old.read(segment.end - segment.start)
            if content is None or not segment.holds(content):
                content = store.read(segment.name)
                if content is None or not segment.holds(content):
                    held = "gone" if content is None else f"{len(content)} other bytes"
                    raise JournalError(
                        f"{store.url}/{segment.name} is damaged: expected "
                        f"{segment.end - segment.start} bytes with the checksum of its name, found "
                        f"{held}. Restore it from a backup, or delete it and what is behind it"
                    )
            made.write(content)
    part.replace(path)


def _fetch_files(store: Store, folder: Path) -> None:
    manifest = read_manifest(store)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and is_plain(name) and name not in manifest:
            path.unlink()
    for name, facts in manifest.items():
        target = folder / name
        if target.exists() and checksum(target) == facts["crc"]:
            continue
        store.fetch(name, target)
        if checksum(target) != facts["crc"]:
            # The journal says what was found; this is a picture, or a state that saves time.
            target.unlink()
            warnings.warn(
                f"{store.url}/{name} is not whole (its driver ended while it was written) and is "
                "left out",
                stacklevel=2,
            )


def is_plain(name: str) -> bool:
    """Whether a file of the copy is one that is kept whole: neither journal, trial's, nor ours."""
    own = (JOURNAL, STATE, STATE + PART, ".lock")
    return name not in own and not name.startswith(ARTIFACTS + "/") and not name.endswith(PART)


def _set_aside(folder: Path, drove: str) -> None:
    """Keeps what a driver of this machine left that another took over from: never deletes it."""
    aside = folder.with_name(f"{folder.name}-{drove[:8]}")
    aside.mkdir(exist_ok=True)
    for path in list(folder.iterdir()):
        if path.name != ".lock":
            shutil.move(str(path), str(aside / path.name))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _driven(folder: Path) -> bool:
    """Whether a process holds the copy's journal."""
    try:
        with open(folder / JOURNAL, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
    except OSError:
        return False
    return False

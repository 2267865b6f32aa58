"""The file a run is written to: one JSON object a line, each with a checksum, only ever appended.

The first line describes the run; then come ``ask`` lines (what the strategy proposed) and
``trial`` lines (what came of it) in the order in which the strategy saw them, so that reading
them back can put a strategy into the very state it was in. A line that was being written when
the process died is recognised and dropped; any other damage is an error that names the line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nas.architecture import Architecture, Scalar
from nas.budget import Cost
from nas.errors import JournalError, NasError, ResumeError
from nas.trial import Failed, Fidelity, Infeasible, Measured, Outcome, Proposal, Trial

FORMAT = 1
_FIDELITY = tuple(field.name for field in fields(Fidelity))
_NOTHING = Cost()
_CHUNK = 1 << 20
_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"}$')


class TornLine(UserWarning):
    """The last line of a journal was being written when the process died, and is dropped."""


def encode_line(event: Mapping[str, Any]) -> bytes:
    """One event as a line, its checksum inside, the newline included."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Messages of failures may hold file names that are not UTF-8; ``json.loads`` reads these back.
    body = text.encode("utf-8", "surrogatepass")
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode_line(line: bytes) -> dict[str, Any]:
    """The event of a line without its newline; raises ``ValueError`` saying what is wrong."""
    found = _CHECKSUM.search(line)
    if found is None:
        raise ValueError("it has no checksum at its end")
    body = line[: found.start()] + b"}"
    if zlib.crc32(body) != int(found.group(1), 16):
        raise ValueError("its checksum does not match its content")
    event = json.loads(body)
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError("it is not an event")
    return event


class Reader:
    """The events of a journal, one after the other, without holding the file in memory.

    Bytes behind ``length`` are a torn last line, which a ``TornLine`` warning reports. Raises
    ``JournalError`` for any other damage.

    Attributes:
        length: how many bytes hold the events that were read.
        crc: the checksum of those bytes.
        size: how many bytes were read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = self.size = self.crc = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                self.size += len(line)
                torn = not line.endswith(b"\n")
                try:
                    event = decode_line(line if torn else line[:-1])
                except ValueError as error:
                    if torn:
                        warnings.warn(
                            f"{self.path}: line {number} was cut off while it was written; "
                            "dropped (its trial will be run again)",
                            TornLine,
                            stacklevel=2,
                        )
                        return
                    raise JournalError(
                        f"{self.path}: line {number} is damaged: {error}. Restore the file from "
                        "a backup, or cut it before that line to go on from there"
                    ) from error
                # One that lacks its newline and nothing else is whole: the writer adds it.
                self.length += len(line)
                self.crc = zlib.crc32(line, self.crc)
                yield event


class JournalWriter:
    """Appends events to a journal that it holds alone, behind what a ``Reader`` read of it.

    What is appended outlives the process at once, and a loss of power as soon as the disk has
    taken it, which a thread sees to: a search does not wait for that, which takes a fraction of
    a millisecond on a disk of its own and tens of them on a shared one.

    The file is as it was until the first event is appended.

    Raises ``ResumeError`` if another process holds it, or wrote to it since it was read, and
    ``JournalError`` when the disk is full or fails; the file then ends with the last whole line.

    Attributes:
        length: how many bytes of the file hold events.
        crc: the checksum of those bytes.
    """

    def __init__(self, path: Path, read: Reader) -> None:
        self.path = path
        self.length = read.length
        self.crc = read.crc
        self._begun = False
        self._due, self._closing = threading.Event(), False
        self._syncing: threading.Thread | None = None
        self._unsynced: OSError | None = None
        try:
            # Never truncated here: another process may have made the file a moment ago.
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise ResumeError(f"{path}: another process is running this search") from error
        if os.fstat(self._fd).st_size != read.size:
            os.close(self._fd)
            raise ResumeError(f"{path}: another process wrote to it since it was read")

    def append(self, event: Mapping[str, Any], *, durable: bool) -> None:
        """Writes one event; one that is durable is sent to the disk itself."""
        try:
            if self._unsynced is not None:
                raise self._unsynced
            if not self._begun:
                os.ftruncate(self._fd, self.length)  # the torn line
                if self.length and os.pread(self._fd, 1, self.length - 1) != b"\n":
                    self._write(b"\n")
                self._begun = True
            self._write(encode_line(event))
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written: {error.strerror}. All trials finished until "
                "now are on disk; make room and resume"
            ) from error
        if durable:
            self._sync()

    def _sync(self) -> None:
        if self._syncing is None:
            self._syncing = threading.Thread(target=self._keep_synced, daemon=True)
            self._syncing.start()
        self._due.set()

    def _keep_synced(self) -> None:
        while not self._closing and self._unsynced is None:
            self._due.wait()
            self._due.clear()
            try:
                os.fsync(self._fd)
            except OSError as error:
                self._unsynced = error  # for the next to append, or to close

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.pwrite(self._fd, line[done:], self.length + done)
        except OSError:
            # If this fails as well, the torn line is dropped when the journal is read.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.length)
            raise
        self.length += len(line)
        self.crc = zlib.crc32(line, self.crc)

    def checksum(self, length: int) -> int:
        """The checksum of the first bytes: whether another file belongs to this journal."""
        found = 0
        for start in range(0, length, _CHUNK):
            found = zlib.crc32(os.pread(self._fd, min(_CHUNK, length - start), start), found)
        return found

    def read(self) -> Reader:
        """What a ``Reader`` would have read of the file as it is now, for the next writer."""
        read = Reader(self.path)
        read.length, read.crc, read.size = self.length, self.crc, os.fstat(self._fd).st_size
        return read

    def close(self) -> None:
        """Lets go of the file; raises ``JournalError`` if the disk did not take all of it."""
        self._closing = True
        if self._syncing is not None:
            self._due.set()
            self._syncing.join()
            if self._unsynced is None:
                try:
                    os.fsync(self._fd)  # what came while the thread was at its last
                except OSError as error:
                    self._unsynced = error
        os.close(self._fd)
        if self._unsynced is not None:
            raise JournalError(f"{self.path}: the disk fails: {self._unsynced.strerror}")


# ------------------------------------------------------------------ values as JSON, and back


def _cost(document: Mapping[str, Any]) -> Cost:
    trials, seconds, epochs = document["trials"], document["seconds"], document["epochs"]
    return Cost(trials, seconds, epochs) if trials or seconds or epochs else _NOTHING


# Written out: ``dataclasses.asdict`` copies deeply, which took a third of a quick trial's time.


def _cost_document(cost: Cost) -> dict[str, Any]:
    return {"trials": cost.trials, "seconds": cost.seconds, "epochs": cost.epochs}


def _fidelity_document(fidelity: Fidelity) -> dict[str, Any]:
    values = ((name, getattr(fidelity, name)) for name in _FIDELITY)
    return {name: value for name, value in values if value is not None}


def proposal_to_document(proposal: Proposal) -> dict[str, Any]:
    """A proposal as JSON values; notes, and what it continues, only where there is any."""
    document: dict[str, Any] = {
        "number": proposal.number,
        "arch": {"space": proposal.arch.space, "picks": [list(p) for p in proposal.arch.picks]},
        "seed": proposal.seed,
        "fidelity": _fidelity_document(proposal.fidelity),
        "parent": proposal.parent,
        "spent": _cost_document(proposal.spent),
    }
    if proposal.notes:
        document["notes"] = dict(proposal.notes)
    if proposal.continues is not None:
        document["continues"] = proposal.continues
    return document


def proposal_from_document(document: Mapping[str, Any], known: Known | None = None) -> Proposal:
    """What ``proposal_to_document`` wrote.

    Args:
        known: the picks of proposals read before, which this one then shares.
    """
    arch = document["arch"]
    return Proposal(
        number=document["number"],
        arch=Architecture.from_document(arch) if known is None else known.architecture(arch),
        seed=document["seed"],
        fidelity=Fidelity(**document["fidelity"]),
        parent=document["parent"],
        spent=_cost(document["spent"]),
        notes=document.get("notes", {}),
        continues=document.get("continues"),
    )


class Known:
    """Reads architectures of which many have picks in common: each pick is checked and kept once.

    A journal of 100,000 trials holds some millions of them, of a few dozen kinds.
    """

    def __init__(self) -> None:
        # With their types: 1 and 1.0 are one key otherwise.
        self._picks: dict[tuple[str, type, Scalar], tuple[str, Scalar]] = {}
        self._spaces: dict[str, str] = {}

    def architecture(self, document: Any) -> Architecture:
        """The same as ``Architecture.from_document``."""
        try:
            found = [self._picks[label, type(v), v] for label, v in document["picks"]]
            space = self._spaces[document["space"]]
        except (KeyError, TypeError, ValueError):
            arch = Architecture.from_document(document)
            space = self._spaces.setdefault(arch.space, arch.space)
            keyed = (((label, type(v), v), (label, v)) for label, v in arch.picks)
            found = [self._picks.setdefault(key, pick) for key, pick in keyed]
        if len(dict(found)) != len(found):
            return Architecture.from_document(document)  # which refuses it
        return Architecture.of_legal(space, tuple(found))


def outcome_to_document(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values, without its artifacts."""
    if isinstance(outcome, Measured):
        return {
            "kind": "measured",
            "values": dict(outcome.values),
            "notes": dict(outcome.notes),
            "cost": _cost_document(outcome.cost),
        }
    if isinstance(outcome, Infeasible):
        found = {
            "kind": "infeasible",
            "reason": outcome.reason,
            "values": dict(outcome.values),
            "cost": _cost_document(outcome.cost),
        }
        return found | ({"notes": dict(outcome.notes)} if outcome.notes else {})
    return {
        "kind": "failed",
        "cause": outcome.cause,
        "message": outcome.message,
        "traceback": outcome.traceback,
    }


def outcome_from_document(document: Mapping[str, Any]) -> Outcome:
    """What ``outcome_to_document`` wrote."""
    if document["kind"] == "measured":
        return Measured(_values(document), _cost(document["cost"]), document["notes"])
    if document["kind"] == "infeasible":
        cost, notes = _cost(document["cost"]), document.get("notes", {})
        return Infeasible(document["reason"], _values(document), cost, notes)
    return Failed(document["cause"], document["message"], document["traceback"])


def _values(document: Mapping[str, Any]) -> dict[str, float]:
    # Every line has its own copy of the metrics' names otherwise.
    return {sys.intern(name): value for name, value in document["values"].items()}


def ask_event(n: int, proposals: Sequence[Proposal]) -> dict[str, Any]:
    """The line for one call of ``ask``."""
    return {"event": "ask", "n": n, "proposals": [proposal_to_document(p) for p in proposals]}


def trial_event(trial: Trial) -> dict[str, Any]:
    """The line for one finished trial; its proposal stands in an earlier ``ask`` line."""
    return {
        "event": "trial",
        "number": trial.number,
        "outcome": outcome_to_document(trial.outcome),
        "cost": _cost_document(trial.cost),
    }


Step = tuple[int, tuple[Proposal, ...]] | Trial
"""What the strategy saw: an ``ask`` of so many and what it proposed, or a finished trial."""


def replayed(path: Path, events: Iterable[dict[str, Any]]) -> Iterator[Step]:
    """The events behind the header as values, in their order."""
    proposals: dict[int, Proposal] = {}
    known = Known()
    for line, event in enumerate(events, start=2):
        try:
            if event["event"] == "ask":
                asked = tuple(proposal_from_document(d, known) for d in event["proposals"])
                proposals |= {proposal.number: proposal for proposal in asked}
                yield event["n"], asked
            elif event["event"] == "trial":
                proposal = proposals.pop(event["number"])
                outcome = outcome_from_document(event["outcome"])
                yield Trial(proposal, outcome, _cost(event["cost"]))
            else:
                raise KeyError(event["event"])
        except (KeyError, TypeError, NasError) as error:
            raise JournalError(f"{path}: line {line} makes no sense: {error!r}") from error

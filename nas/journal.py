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
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.budget import Cost
from nas.errors import JournalError, NasError, ResumeError
from nas.trial import Failed, Fidelity, Infeasible, Measured, Outcome, Proposal, Trial

FORMAT = 1
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


def read(path: Path) -> tuple[list[dict[str, Any]], int, int]:
    """All events, the length in bytes of what holds them, and the size of the file.

    Bytes behind that length are a torn last line, which a ``TornLine`` warning reports.
    """
    content = path.read_bytes()
    events: list[dict[str, Any]] = []
    start = 0
    while start < len(content):
        end = content.find(b"\n", start)
        torn = end < 0
        line = content[start:] if torn else content[start:end]
        try:
            events.append(decode_line(line))
        except ValueError as error:
            if torn:
                warnings.warn(
                    f"{path}: line {len(events) + 1} was cut off while it was written; dropped "
                    "(its trial will be run again)",
                    TornLine,
                    stacklevel=2,
                )
                return events, start, len(content)
            raise JournalError(
                f"{path}: line {len(events) + 1} is damaged: {error}. Restore the file from a "
                "backup, or cut it before that line to go on from there"
            ) from error
        if torn:  # whole but for its newline: kept; the writer adds what is missing
            return events, len(content), len(content)
        start = end + 1
    return events, start, len(content)


class JournalWriter:
    """Appends events to a journal that it holds alone, behind its first ``length`` bytes.

    The file is as it was until the first event is appended.

    Raises ``ResumeError`` if another process holds it, or wrote to it since it was read and had
    ``size`` bytes, and ``JournalError`` when the disk is full or fails; the file then ends with
    the last whole line.

    Attributes:
        length: how many bytes of the file hold events.
    """

    def __init__(self, path: Path, length: int, size: int) -> None:
        self.path = path
        self.length = length
        self._begun = False
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
        if os.fstat(self._fd).st_size != size:
            os.close(self._fd)
            raise ResumeError(f"{path}: another process wrote to it since it was read")

    def append(self, event: Mapping[str, Any], *, durable: bool) -> None:
        """Writes one event; durable means it survives a loss of power from here on."""
        try:
            if not self._begun:
                os.ftruncate(self._fd, self.length)  # the torn line
                if self.length and os.pread(self._fd, 1, self.length - 1) != b"\n":
                    self._write(b"\n")
                self._begun = True
            self._write(encode_line(event))
            if durable:
                os.fsync(self._fd)
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written: {error.strerror}. All trials finished until "
                "now are on disk; make room and resume"
            ) from error

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

    def checksum(self, length: int) -> int:
        """The checksum of the first bytes: whether another file belongs to this journal."""
        return zlib.crc32(os.pread(self._fd, length, 0))

    def close(self) -> None:
        os.close(self._fd)


# ------------------------------------------------------------------ values as JSON, and back


def _cost(document: Mapping[str, Any]) -> Cost:
    return Cost(document["trials"], document["seconds"], document["epochs"])


def proposal_to_document(proposal: Proposal) -> dict[str, Any]:
    """A proposal as JSON values; notes, and what it continues, only where there is any."""
    document: dict[str, Any] = {
        "number": proposal.number,
        "arch": {"space": proposal.arch.space, "picks": [list(p) for p in proposal.arch.picks]},
        "seed": proposal.seed,
        "fidelity": {key: v for key, v in asdict(proposal.fidelity).items() if v is not None},
        "parent": proposal.parent,
        "spent": asdict(proposal.spent),
    }
    if proposal.notes:
        document["notes"] = dict(proposal.notes)
    if proposal.continues is not None:
        document["continues"] = proposal.continues
    return document


def proposal_from_document(document: Mapping[str, Any]) -> Proposal:
    """What ``proposal_to_document`` wrote."""
    return Proposal(
        number=document["number"],
        arch=Architecture.from_document(document["arch"]),
        seed=document["seed"],
        fidelity=Fidelity(**document["fidelity"]),
        parent=document["parent"],
        spent=_cost(document["spent"]),
        notes=document.get("notes", {}),
        continues=document.get("continues"),
    )


def outcome_to_document(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values, without its artifacts."""
    if isinstance(outcome, Measured):
        return {
            "kind": "measured",
            "values": dict(outcome.values),
            "notes": dict(outcome.notes),
            "cost": asdict(outcome.cost),
        }
    if isinstance(outcome, Infeasible):
        found = {
            "kind": "infeasible",
            "reason": outcome.reason,
            "values": dict(outcome.values),
            "cost": asdict(outcome.cost),
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
        return Measured(document["values"], _cost(document["cost"]), document["notes"])
    if document["kind"] == "infeasible":
        cost, notes = _cost(document["cost"]), document.get("notes", {})
        return Infeasible(document["reason"], document["values"], cost, notes)
    return Failed(document["cause"], document["message"], document["traceback"])


def ask_event(n: int, proposals: list[Proposal]) -> dict[str, Any]:
    """The line for one call of ``ask``."""
    return {"event": "ask", "n": n, "proposals": [proposal_to_document(p) for p in proposals]}


def trial_event(trial: Trial) -> dict[str, Any]:
    """The line for one finished trial; its proposal stands in an earlier ``ask`` line."""
    return {
        "event": "trial",
        "number": trial.number,
        "outcome": outcome_to_document(trial.outcome),
        "cost": asdict(trial.cost),
    }


def replayed(path: Path, events: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The events behind the header as values: ``("ask", (n, proposals))``, ``("trial", trial)``."""
    proposals: dict[int, Proposal] = {}
    for line, event in enumerate(events[1:], start=2):
        try:
            if event["event"] == "ask":
                asked = [proposal_from_document(document) for document in event["proposals"]]
                proposals |= {proposal.number: proposal for proposal in asked}
                yield "ask", (event["n"], asked)
            elif event["event"] == "trial":
                proposal = proposals.pop(event["number"])
                outcome = outcome_from_document(event["outcome"])
                yield "trial", Trial(proposal, outcome, _cost(event["cost"]))
            else:
                raise KeyError(event["event"])
        except (KeyError, TypeError, NasError) as error:
            raise JournalError(f"{path}: line {line} makes no sense: {error!r}") from error

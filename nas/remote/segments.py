"""A journal as numbered objects, each named by what it holds.

A name says which bytes of the journal an object has, their checksum, and the term of the driver
that wrote it. A driver's term is higher than those before it, and where its first segment
begins, what earlier drivers have behind that is void: one that was taken for dead and was not
cannot mix its trials into those of its successor. Of segments that begin alike the longest holds.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from nas.errors import JournalError

FOLDER = "journal"
_NAME = re.compile(FOLDER + r"/(\d+)-(\d+)-(\d+)-([0-9a-f]{8})\.jsonl")


@dataclass(frozen=True, slots=True)
class Segment:
    """Some bytes of a journal: from ``start`` to before ``end``."""

    term: int
    start: int
    end: int
    crc: int

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.term:06d}-{self.start:014d}-{self.end:014d}-{self.crc:08x}.jsonl"

    @classmethod
    def of(cls, term: int, start: int, content: bytes) -> Segment:
        return cls(term, start, start + len(content), zlib.crc32(content))

    @classmethod
    def named(cls, name: str) -> Segment | None:
        """The segment of an object's name; ``None`` if it is something else's."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        term, start, end, crc = found.groups()
        return cls(int(term), int(start), int(end), int(crc, 16))

    def holds(self, content: bytes) -> bool:
        """Whether that is what the name says."""
        return len(content) == self.end - self.start and zlib.crc32(content) == self.crc


def in_force(url: str, segments: Iterable[Segment]) -> list[Segment]:
    """The segments that make up the journal, in order.

    Raises:
        JournalError: one is missing; the message says which bytes.
    """
    chosen: list[Segment] = []
    ordered = sorted(segments, key=lambda s: (s.term, s.start, -s.end))
    for term, group in itertools.groupby(ordered, key=lambda s: s.term):
        begun = False
        for segment in group:
            if not begun:
                chosen = [earlier for earlier in chosen if earlier.end <= segment.start]
                begun = True
            end = chosen[-1].end if chosen else 0
            if segment.start > end:
                raise JournalError(
                    f"{url}: the journal's bytes {end} to {segment.start} are missing: a segment "
                    f"of {FOLDER}/ was lost before {segment.name} (driver {term}). Put it back, "
                    "or delete those after it to go on from there"
                )
            if segment.start == end and segment.end > segment.start:
                chosen.append(segment)
    return chosen

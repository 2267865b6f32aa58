"""Segments of a journal: what they are put together to, whoever wrote them and however often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import JournalError
from nas.remote.segments import Segment, in_force

PIECES = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=6)


@given(st.lists(PIECES, min_size=1, max_size=4), st.data())
def test_the_journal_is_what_each_driver_saw_of_those_before_it(drivers, data):
    """Each goes on from what some of its predecessors' uploads made; later ones come too late."""
    store, truth = {}, b""

    def put(term, start, content):
        segment = Segment.of(term, start, content)
        store[segment.name] = content

    for term, pieces in enumerate(drivers, start=1):
        cut = data.draw(st.integers(0, len(pieces))) if term < len(drivers) else len(pieces)
        start = len(truth)
        for index, piece in enumerate(pieces):
            put(term, start, piece)
            if index < cut:
                truth += piece
            start += len(piece)
        # It may have written several of them again as one.
        if cut and data.draw(st.booleans()):
            put(term, len(truth) - len(b"".join(pieces[:cut])), b"".join(pieces[:cut]))
    named = [Segment.named(name) for name in data.draw(st.permutations(sorted(store)))]
    made = b"".join(store[segment.name] for segment in in_force("s3://b", named))
    assert made == truth


def test_names_say_what_is_in_them():
    segment = Segment.of(3, 17, b"some lines\n")
    assert Segment.named(segment.name) == segment
    assert segment.name == "journal/000003-00000000000017-00000000000028-4c07bb9e.jsonl"
    assert segment.holds(b"some lines\n")
    assert not segment.holds(b"some limes\n")
    assert Segment.named("journal/readme") is None


@given(PIECES.filter(lambda pieces: len(pieces) > 1), st.data())
def test_a_missing_segment_is_an_error(pieces, data):
    segments, start = [], 0
    for piece in pieces:
        segments.append(Segment.of(1, start, piece))
        start += len(piece)
    lost = segments.pop(data.draw(st.integers(0, len(segments) - 2)))
    with pytest.raises(JournalError, match=f"bytes {lost.start} to {lost.end} are missing"):
        in_force("s3://b", segments)

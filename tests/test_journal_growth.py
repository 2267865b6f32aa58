"""A journal that grows: what is read and written of it does not grow with it."""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workloads import Score, proposal, run, strategy

import nas.history
from nas import journal
from nas.architecture import Architecture
from nas.budget import Budget, Cost
from nas.errors import InvalidArchitecture, JournalError
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.search import search
from nas.trial import Measured, Trial

SCALARS = st.integers(0, 2) | st.sampled_from([0.0, 1.0, 2.0, "0", "a", True, None, float("inf")])
PICKS = st.lists(st.tuples(st.sampled_from("xyz"), SCALARS), max_size=4)


@given(st.lists(PICKS, max_size=8))
def test_architectures_read_with_what_is_known_are_the_same(texts):
    """The same values of the same types, and the same is refused."""
    known = journal.Known()
    for picks in texts:
        document = {"space": "made/v1", "picks": [list(pick) for pick in picks]}
        expected, found = (
            read(document) for read in (plainly, lambda d: plainly(d, known.architecture))
        )
        assert found == expected


def plainly(document, read=Architecture.from_document):
    """Its text, which tells 1 from 1.0; or how it is refused."""
    try:
        return read(document).to_json()
    except InvalidArchitecture as error:
        return f"refused: {error}"


def test_picks_are_held_once(tmp_path):
    run("random", Score(), Serial(), 30, History(tmp_path))
    picks = [pick for trial in History(tmp_path).trials for pick in trial.arch.picks]
    assert len({id(pick) for pick in picks}) == len(set(picks)) < len(picks) / 3


def test_opening_a_run_takes_what_it_then_holds(tmp_path):
    run("random", Score(), Serial(), 2000, History(tmp_path))
    History(tmp_path)  # imports and the like
    tracemalloc.start()
    try:
        history = History(tmp_path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history.trials) == 2000
    assert peak < 1.2 * held


def test_a_snapshot_does_not_read_the_journal(tmp_path, monkeypatch):
    read = []
    real = os.pread

    def pread(fd, count, offset):
        read.append(count)
        return real(fd, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    history = History(tmp_path, snapshot_every_s=0.0)
    for _ in search(strategy("random"), Score(), Serial(), Budget(trials=20), history):
        pass
    assert sum(read) < 10


def test_a_long_snapshot_is_rarer(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(nas.history.time, "monotonic", lambda: now[0])
    saved = []

    def state_dict():
        saved.append(now[0])
        now[0] += 2.0
        return {}

    slow = strategy("random")
    slow.state_dict = state_dict
    history = History(tmp_path, snapshot_every_s=30.0)
    for _ in search(slow, Score(), Serial(), Budget(trials=60), history):
        now[0] += 10.0
    assert saved[:3] == [30.0, 132.0, 234.0]  # each took 2 s, so 100 s pass


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_the_writers_checksum_is_the_files(tmp_path, cut):
    run("random", Score(), Serial(), 6, History(tmp_path))
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[: -cut or None])
    reader = journal.Reader(path)
    if cut > 1:
        with pytest.warns(journal.TornLine):
            events = list(reader)
    else:
        events = list(reader)
    assert len(events) == (12 if cut > 1 else 13)
    writer = journal.JournalWriter(path, reader)
    writer.append({"event": "ask", "n": 1, "proposals": []}, durable=True)
    assert writer.crc == zlib.crc32(path.read_bytes()) == writer.checksum(writer.length)
    assert writer.read().size == path.stat().st_size
    writer.close()
    again = journal.Reader(path)
    assert len(list(again)) == len(events) + 1
    assert (again.crc, again.length) == (writer.crc, writer.length)


def test_a_disk_that_does_not_take_it_ends_the_search(tmp_path, monkeypatch):
    synced, fails = [], [False]

    def fsync(fd):
        synced.append(fd)
        if fails[0]:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    history = History(tmp_path)
    history.begin({"version": "1"})
    history.asked(2, [proposal(0), proposal(1)])
    history.append(Trial(proposal(0), Measured({"score": 1.0}), Cost(1)))
    fails[0] = True
    history.append(Trial(proposal(1), Measured({"score": 1.0}), Cost(1)))
    with pytest.raises(JournalError, match="the disk fails: Input/output error"):
        history.close()
    assert synced
    # It was the disk that failed and not the file: what is there is read.
    assert len(History(tmp_path).trials) == 2


def test_all_that_was_appended_is_on_the_disk_when_it_is_closed(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size))
    writer = journal.JournalWriter(tmp_path / JOURNAL, journal.Reader(tmp_path / JOURNAL))
    for _ in range(50):
        writer.append({"event": "ask", "n": 1, "proposals": []}, durable=True)
    writer.close()
    assert sizes[-1] == writer.length == (tmp_path / JOURNAL).stat().st_size

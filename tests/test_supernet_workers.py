"""Processes that do one piece of work together: what they raise, and that none is left behind."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch
import waiting_together
from waiting_together import assert_gone, recorded

from nas.errors import UnsupportedRequest, WorkerError
from nas.supernet import workers
from nas.supernet.parallel import LostRank
from nas.supernet.workers import run_workers
from nas.trial import NotFinite


@pytest.fixture
def started(monkeypatch):
    return recorded(monkeypatch)


def test_what_a_worker_raises_is_raised_here(started):
    class Odd(Exception):
        pass

    def work(group, report):  # lives in no module: it travels by value
        if group.rank == 1:
            raise Odd("the second worker's trouble")
        group.sum([torch.zeros(1)])

    with pytest.raises(WorkerError, match="Odd: the second worker's trouble") as caught:
        run_workers(work, 2)
    assert "in work" in "".join(caught.value.__notes__)
    assert_gone(started)


class Spoken:
    """A worker that has said this; then it is gone, or says no more."""

    def __init__(self, rank, said, gone):
        self.rank = rank
        self.connection, self.theirs = Pipe()
        self.process = subprocess.Popen(["sleep", "1000"])
        for message in said:
            self.theirs.send_bytes(pickle.dumps(message))
        if gone:
            self.process.kill()
            self.theirs.close()

    hear = workers._Worker.hear

    def end(self):
        self.process.kill()
        self.process.wait()


LOST = ("failed", LostRank("rank 0 of 2 lost another"))


@pytest.mark.parametrize(
    ("said", "gone", "error", "says"),
    [
        ([], True, WorkerError, r"worker 1 of 2 .* died of signal 9 \(SIGKILL\)"),
        ([("failed", KeyError("its own"))], False, KeyError, "its own"),
        ([LOST], False, LostRank, "rank 0 of 2 lost another"),
        ([], False, LostRank, "rank 0 of 2 lost another"),
        ([("done", None)], False, LostRank, "rank 0 of 2 lost another"),
    ],
    ids=["died", "raised", "lost as well", "is silent", "is done"],
)
def test_what_a_rank_died_of_is_told_rather_than_that_it_is_missed(
    monkeypatch, said, gone, error, says
):
    monkeypatch.setattr(workers, "_PATIENCE_S", 0.2)
    spoken = [Spoken(0, [LOST], False), Spoken(1, said, gone)]
    try:
        with pytest.raises(error, match=says):
            workers._listen(spoken, print)
    finally:
        for worker in spoken:
            worker.end()


def test_what_rank_0_made_counts_and_reports_come_in_order():
    heard = []
    said = [("report", 1, "a"), ("report", 2, "b"), ("done", "mine")]
    spoken = [Spoken(0, said, False), Spoken(1, [("done", "other")], False)]
    try:
        assert workers._listen(spoken, lambda *values: heard.append(values)) == "mine"
    finally:
        for worker in spoken:
            worker.end()
    assert heard == [(1, "a"), (2, "b")]


def test_errors_travel_as_they_are_where_they_can():
    error = workers.sendable(NotFinite("nan in epoch 3"))
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is NotFinite
    assert str(there) == "nan in epoch 3"
    assert "NotFinite: nan in epoch 3" in there.__notes__[0]
    assert "SystemExit: 3" in str(workers.sendable(SystemExit(3)))


def test_what_cannot_be_pickled_is_refused_before_anything_starts(started):
    class Locked:
        def __reduce__(self):
            raise TypeError("not this one")

    with pytest.raises(UnsupportedRequest, match="cannot be pickled: TypeError: not this one"):
        run_workers(functools.partial(print, Locked()), 2)
    assert not started


def test_an_interrupt_ends_the_workers(tmp_path, started):
    def interrupt(text):
        raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt, match="all are there"):
        run_workers(functools.partial(waiting_together.waiting, tmp_path), 2, on_report=interrupt)
    assert_gone(started)


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    script = Path(waiting_together.__file__)
    path = os.pathsep.join([str(script.parent), str(script.parents[1])])
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    )
    with parent:
        assert parent.stdout.readline() == b"all are there\n"
        pids = [int((tmp_path / str(rank)).read_text()) for rank in range(2)]
        assert all(map(_runs, pids))
        parent.kill()
    deadline = time.monotonic() + 60
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, pids))


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

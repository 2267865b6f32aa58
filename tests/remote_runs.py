"""What the tests of runs at URLs share: quick times, machines of their own, a store that fails."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from nas.remote import mirror
from nas.remote.lease import Times

QUICK = Times(upload=0.02, again=0.0, beat=0.05, silent=0.4, settle=0.0, patience=0.6)


def gist(trials):
    """All of the trials that does not depend on the clock."""
    return [(t.proposal, t.outcome, replace(t.cost, seconds=0.0)) for t in trials]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(mirror, "TIMES", QUICK)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Call it with a name to go on as that machine, with a cache of its own."""

    def go(name):
        monkeypatch.setenv("NASFORGE_CACHE", str(tmp_path / "machines" / name))

    go("one")
    return go


@pytest.fixture
def memory():
    """A URL in memory that holds nothing yet."""
    yield "memory://bucket/run"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@contextmanager
def failing(monkeypatch, *methods):
    """The store in memory refuses these methods; yields the list of what was asked of it."""
    asked = []
    with monkeypatch.context() as patched:
        for method in methods:

            def refuse(self, path, *args, name=method, **kwargs):
                asked.append((name, path))
                raise ConnectionError("503 slow down")

            patched.setattr(MemoryFileSystem, method, refuse)
        yield asked

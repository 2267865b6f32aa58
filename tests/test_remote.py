"""Runs at a URL: the same searches as in a folder, on whatever machine they are gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from remote_runs import QUICK, failing, gist, machine, memory, quick
from typer.testing import CliRunner
from workloads import MAIN, Score, driver, proposal, run, strategy, wait_until

from nas.budget import Budget, Cost
from nas.cli import app
from nas.errors import ConfigError, JournalError, ResumeError
from nas.execution.serial import Serial
from nas.history import JOURNAL, SNAPSHOT, History
from nas.remote import lease, url_of, working_copy
from nas.remote.lease import Watching
from nas.remote.mirror import StoreTrouble
from nas.remote.store import Store
from nas.search import search
from nas.trial import CHECKPOINT, Measured, Trial

__all__ = ["machine", "memory", "quick"]  # fixtures

pytestmark = pytest.mark.usefixtures("quick", "machine")


def whole(trials=14, name="random"):
    return gist(run(name, Score(), Serial(), trials))


def content(url):
    """The files at a URL, by name."""
    fs, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root + "/"): fs.cat_file(path) for path in fs.find(root)}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/a/run", "s3://bucket/a/run"),
        ("s3://bucket/a/run/", "s3://bucket/a/run"),
        ("file:///var/run", "file:///var/run"),
        ("memory://x", "memory://x"),
        ("runs/a", None),
        ("/runs/a:b", None),
        ("C:/runs", None),
    ],
)
def test_what_a_url_is_and_that_it_outlives_a_path(text, url):
    assert url_of(text) == url_of(Path(text)) == url


@pytest.mark.parametrize("name", ["random", "regularized_evolution"])
def test_a_search_at_a_url_is_the_one_in_a_folder(name, memory, machine):
    assert gist(run(name, Score(), Serial(), 14, History(memory))) == whole(14, name)
    machine("two")
    there = History(memory)
    assert gist(there.trials) == whole(14, name)
    assert (there.place, there.folder) == (memory, working_copy(memory))
    machine("three")
    # Another machine goes on with it, from the snapshot: what came before is not told again.
    told, continued = [], strategy(name)
    tell = continued.tell
    continued.tell = lambda trial: (told.append(trial.number), tell(trial))
    history = History(memory)
    list(search(continued, Score(), Serial(), Budget(trials=20), history))
    assert gist(history.trials) == whole(20, name)
    assert told == list(range(14, 20))
    machine("two")  # whose copy is old by now
    assert gist(History(memory).trials) == whole(20, name)
    machine("one")  # which drove once, and was followed by another
    assert gist(History(memory).trials) == whole(20, name)


def test_files_of_a_search_are_at_the_url(tmp_path, machine):
    url = f"file://{tmp_path}/store/run"
    history = History(url)
    history.begin({"version": "1"})
    weights, checkpoint = bytes(range(256)) * 300, b"half-trained"
    trials = []
    for number in range(3):
        outcome = Measured({"score": 1.0}, artifacts={"weights": weights, CHECKPOINT: checkpoint})
        trials.append(Trial(proposal(number), outcome, Cost(1, 0.1, 2.0)))
        history.asked(1, [trials[-1].proposal])
        history.append(trials[-1])
    (history.folder / "supernet" / "part").mkdir(parents=True)
    (history.folder / "supernet" / "part" / "state").write_bytes(b"shared")
    assert wait_until(lambda: f"trials/2/{CHECKPOINT}" in content(url))
    history.checkpoints.keep([2])
    history.close()
    history.write("front.png", b"picture")
    assert not [name for name in content(url) if name.endswith(".part")]
    found = [name for name in content(url) if name.endswith(CHECKPOINT)]
    assert found == [f"trials/2/{CHECKPOINT}"]
    machine("two")
    there = History(url)
    assert there.artifact(there.trial(1), "weights") == weights
    assert there.artifact(there.trial(0), CHECKPOINT) is None
    assert (there.folder / "supernet" / "part" / "state").read_bytes() == b"shared"
    assert (there.folder / "front.png").read_bytes() == b"picture"
    # Who goes on with it has what trials may be continued from.
    there.begin({"version": "1"})
    continued = replace(proposal(3), continues=2)
    assert there.earlier(continued).outcome.artifacts[CHECKPOINT] == checkpoint
    there.close()


QUICKLY = (
    f"from nas.remote import mirror; import remote_runs; mirror.TIMES = remote_runs.QUICK; {MAIN}"
)


def test_a_killed_driver_is_followed(tmp_path, machine):
    url = f"file://{tmp_path}/store/run"
    machine("one")
    first = os.environ["NASFORGE_CACHE"]
    with driver(QUICKLY, "serial", url, "random", "400", "0.05", NASFORGE_CACHE=first) as process:
        assert wait_until(lambda: any(name.startswith("journal/") for name in content(url)), 60)
        with pytest.raises(ResumeError, match="another process is running this search"):
            run("random", Score(0.05), Serial(), 20, History(url))
        machine("two")
        with (
            pytest.warns(Watching, match=rf"process {process.pid} on .* has not said that it"),
            pytest.raises(ResumeError, match=rf"process {process.pid} on .* is running this"),
        ):
            run("random", Score(0.05), Serial(), 20, History(url))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    there = len(History(url).trials)
    machine("one")
    here = len(History(url).trials)
    assert 0 < there <= here
    expected = gist(run("random", Score(), Serial(), here + 5))
    keep = tmp_path / "kept"
    shutil.copytree(tmp_path / "store", keep)
    # On the machine where it was killed nothing at all is lost; elsewhere what had not come yet.
    for name, place, known in (("one", tmp_path / "store", here), ("two", keep, there)):
        machine(name)
        if name == "two":
            shutil.rmtree(tmp_path / "store")
            shutil.copytree(place, tmp_path / "store")
        history = History(url)
        assert len(history.trials) == known
        assert gist(run("random", Score(0.05), Serial(), here + 5, history)) == expected


def test_a_store_that_fails_for_a_while(memory, machine, monkeypatch):
    steps = search(strategy("random"), Score(0.02), Serial(), Budget(trials=60), History(memory))
    next(steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with failing(monkeypatch, "pipe_file", "cat_file") as asked:
            for trial in steps:
                if trial.number == 30:
                    break
        assert asked
        assert len(list(steps)) == 60 - 31
    assert [w.category for w in caught] == [StoreTrouble]
    assert "503 slow down" in str(caught[0].message)
    machine("two")
    assert gist(History(memory).trials) == gist(run("random", Score(), Serial(), 60))


def test_a_store_that_fails_to_the_end(memory, machine, monkeypatch):
    history = History(memory)
    steps = search(strategy("random"), Score(), Serial(), Budget(trials=14), history)
    next(steps)
    assert wait_until(lambda: any(name.startswith("journal/") for name in content(memory)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreTrouble)
        says = r"not there: \d+ bytes of the journal.*strategy\.pt.*'nas resume memory://bucket"
        with failing(monkeypatch, "pipe_file"), pytest.raises(JournalError, match=says):
            list(steps)
    machine("two")
    assert len(History(memory).trials) < 14
    machine("one")
    assert gist(History(memory).trials) == whole()
    assert run("random", Score(), Serial(), 14, History(memory)) != []
    machine("two")
    assert gist(History(memory).trials) == whole()


def elsewhere(last, beat=0):
    """A driver on another machine."""
    return lease.Driver(last.term + 1, "an id of its own", "host-b", 77, "then", beat)


def test_a_silent_driver_is_followed_and_a_living_one_is_not(memory, machine):
    run("random", Score(), Serial(), 3, History(memory))
    store = Store(memory)
    other = elsewhere(lease.read(store))
    lease.say(store, other)
    end = threading.Event()

    def live():
        beat = 0
        while not end.wait(QUICK.beat):
            beat += 1
            lease.say(store, replace(other, beat=beat))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with (
            pytest.warns(Watching, match="process 77 on host-b has not said"),
            pytest.raises(ResumeError, match="process 77 on host-b is running this search"),
        ):
            run("random", Score(), Serial(), 5, History(memory))
    finally:
        end.set()
        thread.join()
    with pytest.warns(Watching):
        assert len(run("random", Score(), Serial(), 5, History(memory))) == 5


def test_a_driver_that_was_taken_for_dead_is_told_and_leaves_no_trace(memory, machine):
    first = History(memory)
    steps = search(strategy("random"), Score(0.01), Serial(), Budget(trials=2000), first)
    next(steps)
    assert wait_until(lambda: any(name.startswith("journal/") for name in content(memory)))
    store = Store(memory)
    other = replace(elsewhere(lease.read(store)), released=True)

    def stands():
        lease.say(store, other)
        time.sleep(3 * QUICK.beat)  # a sign of life that was on its way may come after it
        return lease.read(store) == other

    assert wait_until(stands)
    machine("two")
    second = History(memory)
    seen = len(second.trials)
    second.begin(second.header)
    with pytest.raises(ResumeError, match=r"runs this search now: it took process \d+ on"):
        list(steps)
    second.close()
    machine("three")
    found = run("random", Score(0.01), Serial(), seen + 4, History(memory))
    assert gist(found) == whole(seen + 4)
    # What the first had found by then is kept where it was found.
    machine("one")
    History(memory)
    aside = [p for p in working_copy(memory).parent.iterdir() if p != working_copy(memory)]
    assert len(History(aside[0]).trials) >= seen


def test_what_was_written_since_it_was_opened_is_not_overwritten(memory, machine):
    run("random", Score(), Serial(), 2, History(memory))
    machine("two")
    late = History(memory)
    machine("one")
    run("random", Score(), Serial(), 5, History(memory))
    machine("two")
    before = content(memory)
    with pytest.raises(ResumeError, match="another process wrote to it since it was read"):
        run("random", Score(), Serial(), 7, late)
    changed = {name for name, value in content(memory).items() if before.get(name) != value}
    assert changed == {lease.FILE}


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_a_lost_or_damaged_segment_is_named(damage, memory, machine):
    for trials in (3, 6, 9):
        run("random", Score(), Serial(), trials, History(memory))
    names = sorted(name for name in content(memory) if name.startswith("journal/"))
    victim = f"/bucket/run/{names[1]}"
    held = MemoryFileSystem().cat_file(victim)
    machine("two")
    if damage == "gone":
        MemoryFileSystem().rm_file(victim)
        says = r"the journal's bytes \d+ to \d+ are missing: a segment of journal/ was lost"
    else:
        changed = held[:-5] if damage == "cut" else bytes([held[0] ^ 1]) + held[1:]
        MemoryFileSystem().pipe_file(victim, changed)
        says = rf"{names[1]} is damaged: expected {len(held)} bytes"
    with pytest.raises(JournalError, match=says):
        History(memory)


def test_a_file_that_is_not_whole_is_left_out(memory, machine):
    run("random", Score(), Serial(), 5, History(memory))
    MemoryFileSystem().pipe_file(f"/bucket/run/{SNAPSHOT}", b"half")
    machine("two")
    with pytest.warns(UserWarning, match=rf"{SNAPSHOT} is not whole"):
        history = History(memory)
    assert gist(run("random", Score(), Serial(), 9, history)) == whole(9)


def test_many_segments_become_few(memory, machine):
    history = History(memory)
    for _ in search(strategy("random"), Score(), Serial(), Budget(trials=120), history):
        time.sleep(1.2 * QUICK.upload)
    names = [name for name in content(memory) if name.startswith("journal/")]
    assert 1 < len(names) < 34
    machine("two")
    assert (History(memory).folder / JOURNAL).read_bytes() == (
        history.folder / JOURNAL
    ).read_bytes()


def test_places_that_cannot_be_reached():
    with pytest.raises(ConfigError, match="nope://a/b is no place that fsspec knows"):
        History("nope://a/b")
    with pytest.raises(ConfigError, match=r"abfs://a/b cannot be reached: .*nstall"):
        History("abfs://a/b")


def test_a_store_with_something_else_in_it_is_refused(memory):
    MemoryFileSystem().pipe_file(f"/bucket/run/{lease.FILE}", b'{"format": 9}')
    with pytest.raises(JournalError, match=r"driver.json is not a run's"):
        History(memory)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../b", "trials/0/weights"])
def test_a_list_that_names_files_of_others_is_refused(name, memory, machine):
    run("random", Score(), Serial(), 2, History(memory))
    document = {"format": 1, "files": {name: {"size": 1, "crc": 1}}}
    MemoryFileSystem().pipe_file("/bucket/run/files.json", json.dumps(document).encode())
    machine("two")
    with pytest.raises(JournalError, match=r"files.json is not a run's.*not the run's"):
        History(memory)


CONFIG = """
space: nasbench201
strategy: random
evaluator: cost
objectives: [minimize macs]
budget: {trials: 3}
"""


def test_the_commands_take_a_url(memory, machine, tmp_path):
    (tmp_path / "search.yaml").write_text(CONFIG.replace("minimize macs", "{minimize: macs}"))
    nas = CliRunner()
    done = nas.invoke(app, ["search", str(tmp_path / "search.yaml"), "--out", memory, "--json"])
    assert done.exit_code == 0, done.output
    assert "front.png" in content(memory)
    machine("two")
    shown = nas.invoke(app, ["show", memory, "--json"])
    assert json.loads(shown.stdout)["trials"] == 3
    more = nas.invoke(app, ["resume", memory, "--set", "budget.trials=5", "--json"])
    assert more.exit_code == 0, more.output
    assert json.loads(more.stdout)["folder"] == memory
    machine("three")
    assert len(History(memory).trials) == 5
    page = tmp_path / "page.html"
    reported = nas.invoke(app, ["report", memory, "--out", str(page)])
    assert reported.exit_code == 0, reported.output
    assert page.exists()
    for command in (["report", memory], ["export", memory, "--trial", "0"]):
        refused = nas.invoke(app, command)
        assert isinstance(refused.exception, ConfigError)
        assert "say with --out where to write" in str(refused.exception)
    refused = nas.invoke(app, ["show", "memory://bucket/none"])
    assert refused.exit_code != 0
    assert "memory://bucket/none is not a run folder" in str(refused.exception or refused.output)

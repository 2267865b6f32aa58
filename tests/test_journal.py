"""The journal under damage: torn lines, flipped bytes, a full disk, and resuming with the wrong
thing. What was finished is never lost, and never found twice.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from workloads import MAIN, Line, Score, driver, proposal, run, strategy, wait_until

import nas.search
from nas import journal
from nas.budget import Budget, Cost
from nas.errors import JournalError, ResumeError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.history import JOURNAL, SNAPSHOT, History
from nas.journal import TornLine
from nas.objective import maximize, minimize
from nas.search import search
from nas.trial import Failed, Infeasible, Measured, Trial
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

STRATEGIES = ("random", "regularized_evolution")


def gist(trials):
    """All of the trials that does not depend on the clock."""
    return [(t.proposal, t.outcome, replace(t.cost, seconds=0.0)) for t in trials]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.fixture(scope="module", params=STRATEGIES)
def finished(request, tmp_path_factory):
    """The name of a strategy, and the journal of a search of 14 trials with it."""
    folder = tmp_path_factory.mktemp("finished")
    run(request.param, Score(), Serial(), 14, History(folder))
    return request.param, (folder / JOURNAL).read_bytes()


@pytest.fixture(scope="module")
def fast():
    """A folder in memory where there is one: hundreds of searches would wait for the disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


# ------------------------------------------------------------------------------ torn lines


def test_a_journal_cut_anywhere_in_its_last_lines_is_resumed(finished, fast):
    name, content = finished
    lines = content.splitlines(keepends=True)
    expected = gist(run(name, Score(), Serial(), 14))
    for cut in range(len(content) - sum(map(len, lines[-2:])), len(content) + 1):
        folder = fast / f"{name}-{cut}"
        folder.mkdir()
        (folder / JOURNAL).write_bytes(content[:cut])
        rest = content[:cut].splitlines(keepends=True)
        # A line that lacks its newline and nothing else is whole.
        whole = [line for line in rest if line.rstrip(b"\n") + b"\n" in lines]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = History(folder)
        assert [w.category for w in caught] == [TornLine] * (len(rest) - len(whole)), cut
        if caught:
            assert f"line {len(rest)} was cut off" in str(caught[0].message)
        count = sum(b'"event":"trial"' in line for line in whole)
        assert gist(history.trials) == expected[:count], cut
        assert gist(run(name, Score(), Serial(), 14, history)) == expected, cut
        after = (folder / JOURNAL).read_bytes()
        assert after.startswith(b"".join(whole)), cut
        assert events(after) == events(content), cut
        shutil.rmtree(folder)


def events(content):
    """A journal's events without the seconds, which differ from run to run."""
    found = []
    for line in content.splitlines():
        event = journal.decode_line(line)
        if event["event"] == "trial":
            event["cost"]["seconds"] = 0
        found.append(event)
    return found


def test_a_journal_cut_within_its_first_line_begins_anew(finished, fast):
    name, content = finished
    end = content.index(b"\n")
    for cut in (0, 1, end // 2, end - 1):
        folder = fast / f"{name}-first-{cut}"
        folder.mkdir()
        (folder / JOURNAL).write_bytes(content[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TornLine)
            history = History(folder)
        assert history.header is None
        run(name, Score(), Serial(), 14, history)
        assert events((folder / JOURNAL).read_bytes()) == events(content)


def test_zeros_a_crash_left_at_the_end_are_dropped(finished, fast):
    name, content = finished
    folder = fast / f"{name}-zeros"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(content + bytes(300))
    with pytest.warns(TornLine):
        assert len(History(folder).trials) == 14


# ---------------------------------------------------------------------------------- damage


def test_any_other_damage_names_its_line(finished, fast):
    name, content = finished
    lines = content.splitlines(keepends=True)[:6]
    path = fast / f"{name}-damaged" / JOURNAL
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    start = 0
    for number, line in enumerate(lines, start=1):
        for position in range(start, start + len(line)):
            damaged = bytearray(content)
            damaged[position] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            with pytest.raises(JournalError, match=f"line {number} is damaged"):
                History(path.parent)
        start += len(line)


def test_a_lost_line_is_found(finished, fast):
    name, content = finished
    lines = content.splitlines(keepends=True)
    asked = next(i for i, line in enumerate(lines) if b'"event":"ask"' in line)
    path = fast / f"{name}-lost" / JOURNAL
    path.parent.mkdir()
    path.write_bytes(b"".join(lines[:asked] + lines[asked + 1 :]))
    with pytest.raises(JournalError, match=f"line {asked + 1} makes no sense"):
        History(path.parent)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / JOURNAL).write_bytes(journal.encode_line({"event": "run", "format": 99}))
    with pytest.raises(JournalError, match=r"format 1, got 'run' in format 99"):
        History(tmp_path)


# -------------------------------------------------------------------------------- contents


@pytest.mark.parametrize(
    "outcome",
    [
        Measured({"score": 0.1 + 0.2}, Cost(seconds=1.5, epochs=0.25), {"curve": [1e-300, -0.0]}),
        Infeasible("macs is 9, must be at most 5", {"macs": 9.0}, Cost(epochs=1.0)),
        Infeasible("macs is 9, must be at most 5", {"macs": 9.0}, notes={"stages": [1]}),
        Failed("exception", "OSError: no file '\udcff\ud800'", 'Traceback …\n  "é\u2028"\n'),
    ],
)
def test_outcomes_are_read_back_as_they_were(outcome, tmp_path):
    trial = Trial(proposal(), outcome, Cost(1, 0.1, 2.0))
    history = History(tmp_path)
    history.begin({"version": "1"})
    history.asked(1, [trial.proposal])
    history.append(trial)
    history.close()
    assert History(tmp_path).trials == [trial]


def test_proposals_out_of_number_are_not_recorded(tmp_path):
    history = History(tmp_path)
    history.begin({"version": "1"})
    history.asked(2, [proposal(0), proposal(1)])
    before = files(tmp_path)
    with pytest.raises(UnsupportedRequest, match="numbers a proposal 0 where 2 is next"):
        history.asked(1, [proposal(0)])
    assert files(tmp_path) == before
    history.close()


# --------------------------------------------------------------------------- who writes it


def test_a_second_process_is_refused(tmp_path):
    with driver(MAIN, "serial", str(tmp_path), "random", "3", "3600"):
        path = tmp_path / JOURNAL
        assert wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
        before = files(tmp_path)
        with pytest.raises(ResumeError, match="another process is running this search"):
            run("random", Score(3600), Serial(), 3, History(tmp_path))
        assert files(tmp_path) == before
    # Killed, it holds the journal no more.
    history = History(tmp_path)
    history.begin(history.header)
    history.close()


def test_what_was_written_since_the_journal_was_read_is_not_overwritten(tmp_path):
    run("random", Score(), Serial(), 2, History(tmp_path))
    late = History(tmp_path)
    run("random", Score(), Serial(), 5, History(tmp_path))
    before = files(tmp_path)
    with pytest.raises(ResumeError, match="wrote to it since"):
        run("random", Score(), Serial(), 7, late)
    assert files(tmp_path) == before
    assert len(run("random", Score(), Serial(), 7, History(tmp_path))) == 7


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_history_may_serve_a_second_search(name, tmp_path):
    expected = gist(run(name, Score(), Serial(), 20))
    for folder in (None, tmp_path):
        history = History(folder)
        run(name, Score(), Serial(), 5, history)
        assert gist(run(name, Score(), Serial(), 12, history)) == expected[:12]  # another strategy
        same = strategy(name)
        for trials in (15, 20):
            list(search(same, Score(), Serial(), Budget(trials=trials), history))
        assert gist(history.trials) == expected
    assert gist(History(tmp_path).trials) == expected


def test_a_history_goes_on_after_a_full_disk(tmp_path, monkeypatch):
    """Nothing is in memory that is not in the file: another strategy goes on from there."""
    history = History(tmp_path)
    real = os.pwrite
    left = [7]

    def pwrite(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for _ in range(3):
        with pytest.raises(JournalError, match="No space left on device"):
            run("random", Score(), Serial(), 14, history)
        left[0] = 4
        assert gist(History(tmp_path).trials) == gist(history.trials)
    monkeypatch.undo()
    expected = gist(run("random", Score(), Serial(), 14))
    assert gist(run("random", Score(), Serial(), 14, history)) == expected
    assert gist(History(tmp_path).trials) == expected


# ------------------------------------------------------------------------------- full disk

FULL = """
import json, resource, sys
from pathlib import Path
from workloads import Score, run
from nas.errors import JournalError
from nas.execution.serial import Serial
from nas.history import History

def stop(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

folder, name, sizes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
for size in sizes:
    history = History(folder / str(size))
    stop(size)
    try:
        run(name, Score(), Serial(), 14, history)
        message = ""
    except JournalError as error:
        message = str(error)
    stop(resource.RLIM_INFINITY)
    told = len(history.trials)
    again = History(folder / str(size))
    found = len(again.trials)
    end = run(name, Score(), Serial(), 14, again)
    print(json.dumps([size, message, told, found, [[t.number, dict(t.values)] for t in end]]))
"""


def test_a_full_disk_stops_the_search_with_all_that_was_finished(finished, tmp_path):
    name, content = finished
    expected = [[t.number, dict(t.values)] for t in run(name, Score(), Serial(), 14)]
    lines = content.splitlines(keepends=True)
    first = len(lines[0])
    after = first + len(lines[1]) + len(lines[2])
    # In the header, at the end of a line, within an ask and within a trial.
    sizes = [1, first, first + 1, first + len(lines[1]) + 20, after, after + 9, len(content) // 2]
    with driver(FULL, str(tmp_path), name, json.dumps(sizes)) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Warning" not in errors  # the torn end was cut off by the search that met it
    reports = [json.loads(line) for line in out.splitlines()]
    assert [report[0] for report in reports] == sizes
    for size, message, told, found, end in reports:
        assert "cannot be written: File too large" in message, size
        assert "make room and resume" in message
        assert found == told
        assert end == expected, size
        assert events((tmp_path / str(size) / JOURNAL).read_bytes()) == events(content)
    assert [report[2] for report in reports][:4] == [0] * 4
    assert 0 < reports[-1][2] < 14


def test_a_snapshot_that_cannot_be_written_stops_the_search(tmp_path):
    in_its_way = tmp_path / (SNAPSHOT + ".part")
    in_its_way.mkdir()
    with pytest.raises(JournalError, match=r"strategy\.pt: cannot be written: Is a directory"):
        run("random", Score(), Serial(), 5, History(tmp_path))
    assert len(History(tmp_path).trials) == 5
    in_its_way.rmdir()
    assert gist(run("random", Score(), Serial(), 8, History(tmp_path))) == gist(
        run("random", Score(), Serial(), 8)
    )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file/run cannot be made: Not a directory"):
        run("random", Score(), Serial(), 5, History(tmp_path / "file" / "run"))


# ---------------------------------------------------------------- resuming with another run


class Other(Score):
    pass


OTHERS = {
    "space": (
        lambda: RegularizedEvolution(Line("line/v2"), (maximize("score"),), 0, 8, 4),
        Score(),
    ),
    "seed": (lambda: strategy("regularized_evolution", 1), Score()),
    "population_size": (
        lambda: RegularizedEvolution(Line(), (maximize("score"),), 0, 9, 4),
        Score(),
    ),
    "objectives": (lambda: RegularizedEvolution(Line(), (minimize("score"),), 0, 8, 4), Score()),
    "strategy.name": (lambda: RandomSearch(Line(), (maximize("score"),), 0), Score()),
    "evaluator.delay_s": (lambda: strategy("regularized_evolution"), Score(0.5)),
    "evaluator.name": (lambda: strategy("regularized_evolution"), Other()),
}


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("what", [*OTHERS, "version"])
def test_a_resume_with_something_else_is_refused(what, torn, tmp_path, monkeypatch):
    run("regularized_evolution", Score(), Serial(), 12, History(tmp_path))
    if torn:
        path = tmp_path / JOURNAL
        path.write_bytes(path.read_bytes()[:-10])
    before = files(tmp_path)
    make, evaluator = OTHERS.get(what, OTHERS["seed"])
    if what == "version":
        monkeypatch.setattr(nas.search, "__version__", "99.0")
        make, evaluator = lambda: strategy("regularized_evolution"), Score()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TornLine)
        history = History(tmp_path)
    with pytest.raises(ResumeError, match=f"holds another run: .*{what}.* in the journal"):
        list(search(make(), evaluator, Serial(), Budget(trials=20), history))
    assert files(tmp_path) == before


@pytest.mark.parametrize("torn", [False, True])
def test_a_strategy_that_changed_is_refused(torn, tmp_path, monkeypatch):
    run("random", Score(), Serial(), 5, History(tmp_path))
    (tmp_path / SNAPSHOT).unlink()
    if torn:
        path = tmp_path / JOURNAL
        path.write_bytes(path.read_bytes()[:-10])
    before = files(tmp_path)
    monkeypatch.setattr("strategies.random_search.proposal_seed", lambda seed, number: 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TornLine)
        history = History(tmp_path)
    with pytest.raises(ResumeError, match=r"the strategy now proposes #0 .* its code or"):
        list(search(strategy("random"), Score(), Serial(), Budget(trials=9), history))
    assert files(tmp_path) == before


def test_a_resume_may_spend_more_and_elsewhere(tmp_path):
    run("regularized_evolution", Score(), Serial(), 12, History(tmp_path))
    more = run("regularized_evolution", Score(), Serial(time_limit_s=60), 20, History(tmp_path))
    assert gist(more) == gist(run("regularized_evolution", Score(), Serial(), 20))


# ------------------------------------------------------------------------------- snapshots


def stopped(folder, name, trials=11, every_s=0.0):
    """The folder of a search that was left after so many of 20 trials."""
    history = History(folder, snapshot_every_s=every_s)
    steps = search(strategy(name), Score(), Serial(), Budget(trials=20), history)
    for trial in steps:
        if trial.number == trials - 1:
            break
    steps.close()
    return folder


def resumed(folder, name):
    """The trials of the continued search, and how often its strategy was told of one."""
    told = []
    continued = strategy(name)
    tell = continued.tell
    continued.tell = lambda trial: (told.append(trial.number), tell(trial))
    history = History(folder)
    list(search(continued, Score(), Serial(), Budget(trials=20), history))
    return gist(history.trials), len(told)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_snapshot_and_a_replay_go_on_alike(name, tmp_path):
    expected = gist(run(name, Score(), Serial(), 20))
    assert resumed(stopped(tmp_path / "snapshot", name), name) == (expected, 20 - 11)
    assert resumed(stopped(tmp_path / "replay", name, every_s=1e9), name) == (expected, 20)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_old_snapshot_is_caught_up_with(name, tmp_path):
    folder = stopped(tmp_path, name, 6)
    old = (folder / SNAPSHOT).read_bytes()
    shutil.rmtree(folder)
    stopped(folder, name, 11)
    (folder / SNAPSHOT).write_bytes(old)
    expected = gist(run(name, Score(), Serial(), 20))
    # The seconds differ in the two journals, so that the old snapshot is of another run.
    assert resumed(folder, name) == (expected, 20)
    # In one journal it is of use: 11 trials, a snapshot after 6 of them.
    shutil.rmtree(folder)
    stopped(folder, name, 6)
    old = (folder / SNAPSHOT).read_bytes()
    history = History(folder, snapshot_every_s=1e9)
    for trial in search(strategy(name), Score(), Serial(), Budget(trials=20), history):
        if trial.number == 10:
            break
    assert (folder / SNAPSHOT).read_bytes() == old
    assert resumed(folder, name) == (expected, 20 - 6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_corrupt_snapshot_is_replaced_by_a_replay(damage, tmp_path):
    folder = stopped(tmp_path, "regularized_evolution")
    path = folder / SNAPSHOT
    content = path.read_bytes()
    # Flipped in its directory; a byte of the values is for the file format to find.
    flipped = bytes([*content[:-30], *(byte ^ 0xFF for byte in content[-30:])])
    path.write_bytes(
        {"cut": content[:200], "flipped": flipped, "empty": b"", "text": b"hello"}[damage]
    )
    expected = gist(run("regularized_evolution", Score(), Serial(), 20))
    with pytest.warns(UserWarning, match=r"cannot be read \(.*\); replaying the whole journal"):
        assert resumed(folder, "regularized_evolution") == (expected, 20)


def test_a_snapshot_of_a_longer_journal_is_not_used(tmp_path):
    """Damage is repaired by cutting the journal: what comes after must not meet the old state."""
    folder = stopped(tmp_path, "regularized_evolution", 15)
    path = folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: 1 + 2 * 5]))
    history = History(folder, snapshot_every_s=1e9)
    for trial in search(
        strategy("regularized_evolution"), Score(), Serial(), Budget(trials=20), history
    ):
        if trial.number == 16:
            break
    expected = gist(run("regularized_evolution", Score(), Serial(), 20))
    assert resumed(folder, "regularized_evolution") == (expected, 20)


def test_nothing_of_this_needs_torch_until_a_snapshot_is_due():
    code = "import sys, workloads; print('torch' in sys.modules, 'ray' in sys.modules)"
    with driver(code) as process:
        out, errors = process.communicate(timeout=60)
    assert out.split() == ["False", "False"], errors

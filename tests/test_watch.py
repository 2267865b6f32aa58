"""Watching a search that another process runs."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import re
import signal
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner
from workloads import MAIN, driver, wait_until

from nas.budget import Budget
from nas.cli import app
from nas.errors import ConfigError, JournalError
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.journal import decode_line, encode_line
from nas.objective import maximize, minimize
from nas.search import search
from nas.sweep.files import Sweep, SweepSearch, held, mark_done, write_sweep
from nas.testing.toys import FlatSpace, ToyEvaluator
from nas.trial import Infeasible
from nas.watching.following import Following
from nas.watching.liveness import holder
from nas.watching.loop import follow
from nas.watching.rate import Rate, duration
from nas.watching.run import WatchedRun
from nas.watching.sweep import WatchedSweep
from nas.watching.textplot import progress_plot
from strategies.random_search import RandomSearch

SPACE = FlatSpace()
OBJECTIVES = (maximize("score"), minimize("cost", limit=8.0))


class Mixed(ToyEvaluator):
    """Fails in trials 2 and 4, finds trial 5 infeasible."""

    def evaluate(self, proposal):
        if proposal.number in (2, 4):
            raise LookupError(f"the cable {proposal.number} is loose")
        if proposal.number == 5:
            return Infeasible("too large by far")
        return super().evaluate(proposal)


def run(folder, trials=12):
    history = History(folder)
    strategy = RandomSearch(SPACE, OBJECTIVES)
    list(search(strategy, Mixed(SPACE), Serial(), Budget(trials=trials), history))
    return history


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def compared(following, history):
    """Everything that both know."""
    assert following.header == history.header
    assert following.done == len(history.trials)
    assert following.spent == history.spent
    assert following.failed == len(history.failures())
    assert following.front.trials() == history.front(OBJECTIVES)
    kept = [t for t in history.trials if t.values.get("cost", math.inf) <= 8.0]
    assert following.best[-1] == max(trial.values["score"] for trial in kept)
    assert following.values == [trial.values.get("score") for trial in history.trials]


def test_a_finished_run_is_what_its_history_is(whole):
    following = Following(whole)
    assert following.look()
    assert not following.look()
    compared(following, History(whole))
    assert following.causes == {"exception": 2}
    assert following.messages == {"exception": (4, "LookupError: the cable 4 is loose")}
    assert (following.infeasible, following.reason) == (1, "too large by far")
    assert following.flying == ()
    assert following.exhausted


@given(cuts=st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=30, deadline=None)
def test_however_the_journal_grows_only_whole_lines_count(cuts, whole, tmp_path_factory):
    content = (whole / JOURNAL).read_bytes()
    folder = tmp_path_factory.mktemp("growing")
    following = Following(folder)
    assert not following.look()
    for cut in [*sorted(cut % len(content) for cut in cuts), len(content)]:
        with open(folder / JOURNAL, "ab") as file:
            file.write(content[file.tell() : cut])
        following.look()
        lines = content[:cut].split(b"\n")[:-1]
        events = [decode_line(line)["event"] for line in lines]
        assert following.done == events.count("trial")
        assert (following.header is None) == (not lines)
    compared(following, History(whole))


def test_a_torn_line_that_a_resumed_search_replaces(tmp_path):
    run(tmp_path, 5)
    following = Following(tmp_path)
    following.look()
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(b'{"event":"ask","n":1,"prop')
    assert not following.look()
    with pytest.warns(UserWarning, match="was cut off"):
        history = run(tmp_path, 9)
    assert following.look()
    compared(following, history)
    watched = WatchedRun(tmp_path)
    watched.look()
    assert watched.line().startswith("10 done · 2 failed")  # nine were not the header's budget


def test_a_journal_put_in_its_place_is_read_from_the_start(tmp_path, whole):
    run(tmp_path, 4)
    following = Following(tmp_path)
    following.look()
    other = tmp_path / "other"
    other.write_bytes((whole / JOURNAL).read_bytes())
    os.replace(other, tmp_path / JOURNAL)
    following.look()
    compared(following, History(whole))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [*lines[:3], lines[3][:-9] + b"\n", *lines[4:]], "line 4 is damaged"),
        (lambda lines: [lines[0], lines[2], *lines[1:]], "line 2 makes no sense"),
        (lambda lines: lines[1:], "line 1 must describe a run"),
        (lambda lines: [encode_line({"event": "run", "format": 9})], "in format 9"),
        (lambda lines: [*lines, encode_line({"event": "dance"})], "makes no sense"),
    ],
)
def test_a_damaged_journal_is_an_error_that_names_the_line(damage, message, whole, tmp_path):
    lines = (whole / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join(damage(lines)))
    with pytest.raises(JournalError, match=message):
        Following(tmp_path).look()


def test_nothing_is_touched(whole):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in whole.rglob("*")}
    watched = WatchedRun(whole)
    watched.look()
    watched.view(80)
    with open(whole / JOURNAL, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # is free
        watched.look()
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in whole.rglob("*")}
    assert after == before


# ------------------------------------------------------------------------------- the end


def test_the_process_that_holds_the_journal_is_seen(tmp_path):
    path = tmp_path / JOURNAL
    assert holder(path) is None
    with open(path, "w") as file, open(path) as another:
        assert holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(path) == os.getpid()
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.flock(another, fcntl.LOCK_SH)
        assert holder(path) == os.getpid()
    assert holder(path) is None


def watch(folder, patience_s=600.0):
    """Follows a run to its end, off a terminal: why it ended, and what was shown."""
    shown = io.StringIO()
    why = follow(WatchedRun(folder, patience_s), Console(file=shown, width=120), 0.05)
    return why, shown.getvalue().splitlines()


def test_a_live_run_is_followed_to_its_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with driver(MAIN, "serial", str(folder), "random", "20", "0.1") as process:
        watched = WatchedRun(folder)
        assert wait_until(lambda: watched.look() or watched.process == process.pid)
        assert wait_until(lambda: watched.look() or watched.now.done >= 2)
        assert watched.ended() is None
        assert f"process {process.pid} of this machine runs it" in watched.pace()
        assert watched.now.flying
        why, lines = watch(folder)
    assert why == "the budget is spent"
    assert lines[-1].startswith("20 of 20 done · 0 failed · best score ")


def test_a_killed_run_has_ended(tmp_path):
    folder = tmp_path / "run"
    with driver(MAIN, "serial", str(folder), "random", "1000", "0.1") as process:
        watched = WatchedRun(folder)
        assert wait_until(lambda: watched.look() or watched.now.done >= 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: watched.look() or watched.ended() is not None, 10)
        assert watched.ended() == "its process has stopped"
    # Whoever comes later has not seen it run, and waits for a word of it.
    later = WatchedRun(folder)
    later.look()
    assert later.ended() is None
    assert "no process of this machine runs it" in later.pace()
    past = time.time() - 1000
    os.utime(folder / JOURNAL, (past, past))
    why, _ = watch(folder)
    assert why.startswith("no process of it is seen, and nothing was written for 17 min")


def test_a_run_that_has_not_begun_is_waited_for(tmp_path):
    watched = WatchedRun(tmp_path, patience_s=0.0)
    watched.look()
    assert watched.ended() is None
    assert watched.line() == "waiting for the run to begin"
    assert "waiting" in drawn(watched)
    run(tmp_path)
    assert watch(tmp_path)[0] == "the budget is spent"


# ---------------------------------------------------------------------------- what is shown


def drawn(watched, width=120, height=60):
    shown = io.StringIO()
    console = Console(file=shown, width=width, force_terminal=True, color_system=None)
    console.print(watched.view(width, height))
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())


def test_a_terminal_shows_all_of_it(whole):
    watched = WatchedRun(whole)
    watched.look()
    text = drawn(watched)
    history = History(whole)
    best = history.front(OBJECTIVES)[0]
    for part in (
        "random on flat/v1",
        "100 % of the budget",
        "done · 2 failed · 1 infeasible · best score",
        f"(#{best.number})",
        "Pareto front: maximize score, minimize cost ≤ 8",
        "failed, exception: 2 (trial 4: LookupError: the cable 4 is loose)",
        "infeasible: 1 (such as: too large by far)",
        f"latest: #{history.trials[-1].number}",
        f"score by trial, 1 to {len(history.trials)}",
        "of work a trial",
    ):
        assert part in text, part
    assert any("\u2801" <= letter <= "\u28ff" for letter in text)
    assert re.search(
        rf"^ +{best.number} +[\d.]+ +\d+ +width=\d kernel=\d", text, flags=re.MULTILINE
    )
    narrow = drawn(watched, width=50)
    assert max(map(len, narrow.splitlines())) <= 50
    assert re.search(rf"^ +{best.number} +[\d.]+ +\d+ +width=\d k", narrow, flags=re.MULTILINE)


def test_live_on_a_terminal(whole):
    shown = io.StringIO()
    console = Console(file=shown, width=100, height=50, force_terminal=True)
    assert follow(WatchedRun(whole), console, 0.01) == "the budget is spent"
    assert "Pareto front" in shown.getvalue()


def test_the_rate_is_of_what_was_seen():
    rate = Rate()
    rate.saw(100.0, 7, 0.2)
    assert rate.trials(101.0) is None
    assert rate.left(101.0) is None
    rate.saw(110.0, 27, 0.4)
    assert rate.trials(110.0) == pytest.approx(2.0)
    assert rate.left(110.0) == pytest.approx(30.0)
    assert rate.left(115.0) == pytest.approx(25.0)
    rate.saw(115.0, 27, 0.4)  # no news
    assert rate.trials(120.0) == pytest.approx(1.0)
    rate.saw(800.0, 30, 1.0)
    assert rate.left(800.0) is None
    rate.saw(1500.0, 31, 1.0)
    assert rate.trials(1500.0) == pytest.approx(1 / 700)  # the first is too long ago


def test_durations():
    seconds = (0.4, 89, 90, 5000, 5400, 30000, 200000)
    assert [duration(s) for s in seconds] == [
        "0 s", "89 s", "2 min", "83 min", "1 h 30 min", "8 h 20 min", "2 d 7 h"
    ]  # fmt: skip


def test_a_plot_of_known_dots():
    plot = progress_plot([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], 2, 1)
    assert (plot.lines, plot.low, plot.high) == (("⡠⠊",), 0.0, 3.0)
    flat = progress_plot([1.0, None], [1.0, 1.0], 1, 1)
    assert flat.lines == ("⠤",)
    assert progress_plot([], [], 5, 2) is None
    assert progress_plot([None], [None], 5, 2) is None
    outlier = progress_plot([0.9, 0.91, 0.92, 0.93, -1e9], [0.9, 0.91, 0.92, 0.93, 0.93], 10, 4)
    assert outlier.low == 0.9


@given(
    values=st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=200),
    width=st.integers(1, 60),
    height=st.integers(1, 9),
)
def test_a_plot_has_the_size_asked_for_and_shows_the_best(values, width, height):
    best, found = [], None
    for value in values:
        found = value if found is None or (value is not None and value > found) else found
        best.append(found)
    plot = progress_plot(values, best, width, height)
    if found is None:
        assert plot is None
        return
    assert [len(line) for line in plot.lines] == [width] * height
    assert plot.low <= found == plot.high
    assert plot.lines[0 if plot.high > plot.low else height // 2][-1] != "\u2800"


# ------------------------------------------------------------------------------- a sweep


def sweep(folder):
    """Three searches: one done, one stopped in the middle, one that has not begun."""
    searches = tuple(
        SweepSearch(
            f"runs/random/{seed}", {"strategy": "random", "seed": str(seed)}, {"seed": seed}
        )
        for seed in range(3)
    )
    objectives = ({"maximize": "score"}, {"minimize": "cost", "limit": 8.0})
    axes = {"strategy": ("random",), "seed": ("0", "1", "2")}
    write_sweep(folder, Sweep("toys", axes, searches, objectives))
    run(folder / "runs/random/0", 8)
    mark_done(folder / "runs/random/0", {"seed": 0})
    run(folder / "runs/random/1", 3)
    journal = folder / "runs/random/1" / JOURNAL
    header, *rest = journal.read_bytes().splitlines(keepends=True)
    document = decode_line(header[:-1])
    journal.write_bytes(encode_line({**document, "budget": {"trials": 6}}) + b"".join(rest))


def test_a_sweep_is_its_totals_and_a_line_a_search(tmp_path):
    sweep(tmp_path)
    watched = WatchedSweep(tmp_path, patience_s=600.0)
    watched.look()
    assert watched.ended() is None
    assert watched.used == pytest.approx(0.5)
    text = drawn(watched)
    assert "1 of 3 searches done · 1 running · 1 waiting · 12 trials · 3 failed" in text
    assert re.search(r"random/0 +done +100 % +best score", text)
    assert re.search(r"random/1 +running +50 % +best score", text)
    assert re.search(r"random/2 +waiting +0 %", text)
    past = time.time() - 1000
    for journal in tmp_path.rglob(JOURNAL):
        os.utime(journal, (past, past))
    watched.look()
    assert "1 of 3 searches done · 1 waiting · 1 stopped" in watched.line()
    assert watched.ended().startswith("no process of it is seen")
    for seed in (1, 2):
        (tmp_path / f"runs/random/{seed}").mkdir(exist_ok=True)
        (tmp_path / f"runs/random/{seed}" / JOURNAL).touch()
        mark_done(tmp_path / f"runs/random/{seed}", {"seed": seed})
    watched.look()
    assert watched.ended() == "all its searches are done"
    assert watched.used == 1.0


def test_a_sweep_that_its_process_leaves_has_ended(tmp_path):
    sweep(tmp_path)
    watched = WatchedSweep(tmp_path)
    with held(tmp_path):
        watched.look()
        assert watched.process == os.getpid()
        assert watched.ended() is None
    watched.look()
    assert watched.ended() == "its process has stopped"


def test_a_damaged_search_does_not_hide_the_others(tmp_path):
    sweep(tmp_path)
    (tmp_path / "runs/random/1" / JOURNAL).write_bytes(b"nonsense\n")
    watched = WatchedSweep(tmp_path)
    watched.look()
    watched.look()
    assert "1 damaged" in watched.line()
    assert "line 1 is damaged" in drawn(watched, width=200)


# ----------------------------------------------------------------------- the command line


def test_the_command_shows_once_and_as_json(whole, tmp_path):
    shown = CliRunner().invoke(app, ["watch", str(whole), "--once"])
    assert shown.exit_code == 0
    assert "Pareto front" in shown.output
    document = json.loads(CliRunner().invoke(app, ["watch", str(whole), "--json"]).output)
    history = History(whole)
    assert document["trials"] == len(history.trials)
    assert [one["number"] for one in document["front"]] == [
        trial.number for trial in history.front(OBJECTIVES)
    ]
    assert document["failures"]["exception"]["times"] == 2
    sweep(tmp_path)
    found = json.loads(CliRunner().invoke(app, ["watch", str(tmp_path), "--json"]).output)
    assert [one["state"] for one in found["searches"]] == ["done", "running", "waiting"]


def test_the_command_follows_and_says_why_it_ends(whole):
    shown = CliRunner().invoke(app, ["watch", str(whole), "--every", "0.1"])
    assert shown.exit_code == 0
    assert shown.output.splitlines()[-1] == "ended: the budget is spent"


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        CliRunner().invoke(app, ["watch", str(tmp_path / "none")], catch_exceptions=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"has no journal\.jsonl, but notes\.txt"):
        CliRunner().invoke(app, ["watch", str(tmp_path)], catch_exceptions=False)

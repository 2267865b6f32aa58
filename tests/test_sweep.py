"""Sweeps without a cluster: the same searches as alone, what is told, and going on."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml
from sweeping import Watcher, document, journals, start, sweep, trials, troubled

from nas import cli
from nas.budget import Budget
from nas.errors import ConfigError, DataError, ResumeError
from nas.objective import maximize, minimize
from nas.sweep.files import read_sweep
from nas.sweep.following import Following
from nas.sweep.grid import planned
from nas.sweep.one import check_shared
from nas.sweep.running import run_searches


@pytest.fixture
def nas(monkeypatch):
    """Runs ``nas …`` in this process; gives the exit code."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nas", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
        return 0

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep's folder, and its table."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, sweep(folder)


def test_each_search_is_the_one_that_runs_alone(finished, tmp_path, nas):
    folder, _ = finished
    found = read_sweep(folder)
    assert len(found.searches) == 4
    for number, one in enumerate(found.searches):
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(dict(one.config)))
        file, out = str(tmp_path / "search.yaml"), str(tmp_path / str(number))
        assert nas("search", file, "--out", out) == 0
        alone = journals(tmp_path / str(number))["."]
        assert journals(folder / one.folder)["."] == alone
        assert sum(event["event"] == "trial" for event in alone) == 25
        assert (folder / one.folder / "front.png").exists()


def test_a_sweep_that_is_stopped_goes_on_and_ends_alike(finished, tmp_path):
    for stop_after in (3, 40, 30):
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path, Watcher(stop_after))
        assert not (tmp_path / "table.json").exists()
    watcher = Watcher()
    sweep(tmp_path, watcher)
    assert watcher.done_before == 2
    assert (tmp_path / "table.json").read_bytes() == (finished[0] / "table.json").read_bytes()
    assert (tmp_path / "table.md").read_bytes() == (finished[0] / "table.md").read_bytes()
    assert journals(tmp_path) == journals(finished[0])


def test_what_is_done_is_not_run_again_and_more_may_be_added(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    text = document()
    text["axes"]["seed"] = [0, 1, 2]
    watcher = Watcher()
    table = sweep(tmp_path, watcher, axes=text["axes"])
    assert watcher.names == ["random/2", "evolution/2"]
    assert [row["ended"] for row in table["rows"]] == [3, 3]

    text["search"]["budget"] = {"trials": 30}
    watcher = Watcher()
    table = sweep(tmp_path, watcher, search=text["search"], axes=text["axes"])
    assert len(watcher.names) == 6
    assert [row["trials"] for row in table["rows"]] == [90, 90]
    first = journals(finished[0])
    for run, events in journals(tmp_path).items():
        assert sum(event["event"] == "trial" for event in events) == 30
        if run in first:  # goes on where it ended
            assert events[1 : len(first[run])] == first[run][1:]


def test_one_search_that_fails_is_told_of_and_the_others_go_on(tmp_path):
    watcher = Watcher()
    table = sweep(tmp_path, watcher, search=troubled(fails=[1]))
    told = "RuntimeError: the cable is loose"
    assert watcher.errors == {
        "random/0": None,
        "random/1": told,
        "evolution/0": None,
        "evolution/1": told,
    }
    assert [row["ended"] for row in table["rows"]] == [1, 1]
    assert [row["best"]["accuracy"]["n"] for row in table["rows"]] == [1, 1]
    assert table["unfinished"] == [
        {"folder": "runs/random/1", "error": told},
        {"folder": "runs/evolution/1", "error": told},
    ]
    assert "in fit" in (tmp_path / "runs/random/1/error.txt").read_text()
    assert f"Not finished: random/1: {told}" in (tmp_path / "table.md").read_text()

    changed = pytest.raises(ResumeError, match=r"evaluator.fails was \[1\] and is \[\]")
    with changed:  # mended, but that is another search
        sweep(tmp_path, search=troubled(fails=[]))


# ------------------------------------------------------------------------- the command


def test_the_command(tmp_path, monkeypatch, nas, capfd):
    (tmp_path / "own").mkdir()
    text = document(search=troubled(fails=[1]), executor="ray")
    (tmp_path / "own" / "beside.py").write_text("from sweeping import Troubled\n")
    text["search"]["evaluator"]["name"] = "beside:Troubled"
    (tmp_path / "own" / "four.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    trials = ["--set", "search.budget.trials=12", "axes.strategy={random: {strategy: random}}"]
    arguments = ["sweep", "own/four.yaml", "--executor", "serial", *trials]
    assert nas(*arguments, "--json") == 2
    printed = capfd.readouterr()
    table = json.loads(printed.out)
    assert table == json.loads((tmp_path / "runs/four/table.json").read_text())
    assert [row["trials"] for row in table["rows"]] == [12]
    assert "done: random/0: 12 trials · best accuracy 0." in printed.err
    assert "failed: runs/four/runs/random/1: RuntimeError: the cable is loose" in printed.err
    assert "1 of 2 searches done · 0 running · 0 waiting · 1 failed" in printed.err
    assert (tmp_path / "runs/four/curves.png").read_bytes().startswith(b"\x89PNG")

    assert nas(*arguments) == 2
    printed = capfd.readouterr()
    assert "best accuracy" in printed.out
    assert "picture: runs/four/curves.png" in printed.out


def test_a_mistake_is_one_message_before_anything_is_written(tmp_path, monkeypatch, nas, capfd):
    monkeypatch.chdir(tmp_path)
    text = document()
    text["axes"]["strategy"]["evolution"]["strategy"]["sample_size"] = 9
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    assert nas("sweep", "a.yaml") == 2
    assert capfd.readouterr().err.startswith("error: search evolution/0: strategy: sample_size")
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_terminated_it_says_how_to_go_on(tmp_path):
    text = document(search=troubled(seconds=0.1))
    process = start(tmp_path, text, "--out", "a folder")
    while trials(tmp_path) < 3 and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Go on with: nas sweep sweep.yaml --out 'a folder'" in err
    assert not out
    assert trials(tmp_path) >= 3


# ---------------------------------------------------------------------- following a run


def test_a_journal_is_followed_line_by_line(finished, tmp_path):
    content = (finished[0] / "runs/random/0/journal.jsonl").read_bytes()
    objectives = [maximize("accuracy"), minimize("macs", limit=120_000)]
    following = Following(tmp_path, objectives, Budget(trials=25))
    following.look()
    assert (following.trials, following.best, following.used) == (0, None, 0)
    journal = tmp_path / "journal.jsonl"
    for end in range(0, len(content), 997):
        journal.write_bytes(content[:end])
        following.look()
        assert following.trials == content[: content.rfind(b"\n", 0, end) + 1].count(b'"trial"')
    # A torn line is cut off and written again by whoever goes on.
    journal.write_bytes(content)
    following.look()
    assert (following.trials, following.failed, following.used) == (25, 0, 1)
    table = json.loads((finished[0] / "table.json").read_text())
    assert following.best == table["rows"][0]["best"]["accuracy"]["values"][0]


def test_a_folder_that_is_another_here_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} is not to be seen from .* put it on storage"):
        check_shared(tmp_path, "one")
    (tmp_path / "sweep.token").write_text("other")
    with pytest.raises(DataError, match="set the searches' executor to ray"):
        check_shared(tmp_path, "one")
    check_shared(tmp_path, "other")


def test_a_folder_that_is_a_url_is_refused():
    with pytest.raises(ConfigError, match="memory://x/y: a sweep's folder must be a path"):
        run_searches(planned(document(), "small"), Path("memory://x/y"), Watcher())


def test_a_finished_sweep_runs_nothing(finished):
    watcher = Watcher()
    assert run_searches(planned(document(), "small"), finished[0], watcher) == {}
    assert (watcher.done_before, watcher.names) == (4, [])

"""Sweeps on a Ray cluster of this machine: the same table, workers that die, trials as tasks."""

from __future__ import annotations

import os
import signal
import time

import pytest
from sweeping import TABULAR, Watcher, document, journals, sweep, troubled

from nas.errors import ConfigError, DataError
from nas.execution.ray_sweep import JobLost, RayJobs
from nas.sweep.grid import planned
from nas.sweep.one import run_in_worker
from nas.sweep.running import run_searches

ONE_TABLE = {"table": {"digits": {}}}
STRATEGIES = document()["axes"]["strategy"]


pytestmark = pytest.mark.usefixtures("local_ray")


def test_the_table_and_the_journals_are_those_of_one_process(tmp_path):
    axes = {"strategy": STRATEGIES, **ONE_TABLE, "seed": [0, 1]}
    watcher = Watcher()
    table = sweep(tmp_path / "ray", watcher, axes=axes, executor="ray")
    assert watcher.errors == dict.fromkeys(
        ["random/digits/0", "random/digits/1", "evolution/digits/0", "evolution/digits/1"]
    )
    assert watcher.most == 2
    alone = sweep(tmp_path / "serial", axes=axes)
    assert table == alone
    assert journals(tmp_path / "ray") == journals(tmp_path / "serial")


def test_a_search_whose_worker_died_goes_on_from_its_journal(tmp_path):
    trouble = troubled(dies_at=[5, 17], notes=str(tmp_path))
    watcher = Watcher()
    axes = {"strategy": STRATEGIES}
    # Died twice, but never twice in a row without a trial between.
    table = sweep(tmp_path / "ray", watcher, search=trouble, axes=axes, executor={"retries": 1})
    assert watcher.errors == {"random": None, "evolution": None}
    notes = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert notes == {"0-5", "0-17"}
    quiet = sweep(tmp_path / "serial", axes=axes)
    assert table["rows"] == quiet["rows"]


@pytest.mark.slow
def test_a_search_that_keeps_dying_is_given_up(tmp_path):
    search = troubled(dies_at=[2])
    watcher = Watcher()
    axes = {"strategy": {"random": STRATEGIES["random"]}, "evaluator.dies_at": [[2], []]}
    table = sweep(tmp_path, watcher, search=search, axes=axes, executor={"retries": 1})
    (error,) = [one["error"] for one in table["unfinished"]]
    assert error.startswith("its process died 2 times in a row: ")
    assert [row["ended"] for row in table["rows"]] == [0, 1]


@pytest.mark.slow
def test_trials_may_be_the_tasks_and_searches_share_the_places(tmp_path):
    text = document()
    text["search"]["executor"] = "ray"
    text["search"]["budget"] = {"trials": 12}
    watcher = Watcher()
    table = sweep(tmp_path, watcher, search=text["search"], executor="ray")
    assert table["unfinished"] == []
    assert watcher.most == 2
    headers = [events[0]["executor"] for events in journals(tmp_path).values()]
    # The last has both places for itself, unless the one before it was faster.
    assert {header["name"] for header in headers} == {"ray"}
    assert sorted(header["workers"] for header in headers)[:3] == [1, 1, 1]
    assert [row["trials"] for row in table["rows"]] == [24, 24]


def test_workers_that_are_given_are_kept(tmp_path):
    text = document()
    text["search"]["executor"] = {"name": "ray", "workers": 2}
    text["search"]["budget"] = {"trials": 4}
    axes = {"strategy": {"random": STRATEGIES["random"]}, "seed": [0, 1]}
    watcher = Watcher()
    sweep(tmp_path, watcher, search=text["search"], axes=axes, executor="ray", parallel=1)
    assert watcher.most == 1
    assert [e[0]["executor"]["workers"] for e in journals(tmp_path).values()] == [2, 2]


def test_no_more_searches_at_a_time_than_asked_for(tmp_path):
    watcher = Watcher()
    sweep(tmp_path, watcher, executor="ray", parallel=1, search=troubled(seconds=0.01))
    assert watcher.most == 1


def test_a_search_that_no_machine_can_hold_is_refused(tmp_path):
    plan = planned(document(executor={"cpus": 3}), "small")
    with pytest.raises(ConfigError, match=r"a search needs 3 CPUs.*it has 2 CPUs"):
        run_searches(plan, tmp_path, Watcher())


def test_a_machine_that_sees_another_folder_ends_the_sweep(tmp_path):
    jobs = RayJobs()
    jobs.start("a", run_in_worker, str(tmp_path), "token", "runs/a", {}, "serial", cpus=1, gpus=0)
    ended = jobs.wait(60)
    jobs.close()
    assert [one.key for one in ended] == ["a"]
    assert isinstance(ended[0].error, DataError)
    assert f"the sweep's folder {tmp_path} is not to be seen from" in str(ended[0].error)


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(error):
    raise error


def test_what_may_come_of_a_job():
    jobs = RayJobs()
    jobs.start("sum", sum, [1, 2, 3], cpus=1, gpus=0)
    jobs.start("kill", _kill, cpus=0.5, gpus=0)
    jobs.start("raise", _raise, KeyError("x"), cpus=0.5, gpus=0)
    jobs.start_here("here", os.getcwd)
    ended = {}
    while len(ended) < 4:
        ended |= {one.key: one for one in jobs.wait(30)}
    jobs.close()
    assert (ended["sum"].result, ended["sum"].error) == (6, None)
    assert isinstance(ended["kill"].error, JobLost)
    assert isinstance(ended["raise"].error, KeyError)
    assert ended["here"].result == os.getcwd()


def finished_two(journal):
    return journal.read_bytes().count(b'"event":"trial"') >= 2


@pytest.mark.slow
def test_an_interrupt_ends_what_runs(tmp_path):
    search = {**troubled(seconds=0.1), "strategy": "random"}
    axes = {"seed": [0, 1]}
    under_way = Watcher(stop_when=lambda: any(map(finished_two, tmp_path.rglob("journal.jsonl"))))
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, under_way, search=search, axes=axes, executor="ray")
    before = journals(tmp_path)
    time.sleep(1.0)  # what still ran would write
    assert journals(tmp_path) == before
    assert max(map(len, before.values())) < 50
    table = sweep(tmp_path, search=search, axes=axes, executor="ray")
    quiet = sweep(tmp_path / "quiet", search=search | {"evaluator": TABULAR}, axes=axes)
    assert table["rows"] == quiet["rows"]

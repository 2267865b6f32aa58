"""A sweep on a cluster of three machines, killed half-way: the same table as uninterrupted."""

from __future__ import annotations

import os
import signal
import time

import pytest
import ray
from clusters import machines
from sweeping import Watcher, document, journals, start, sweep, trials, troubled
from workloads import wait_until

from nas.sweep.files import is_done, read_sweep

pytestmark = pytest.mark.slow

STRATEGIES = {
    **document()["axes"]["strategy"],
    "local search": {"strategy": "local_search"},
    "NSGA-II": {"strategy": {"name": "nsga2", "population_size": 8}},
}


def ended(folder):
    """How many searches of the sweep in a folder have ended."""
    if not (folder / "sweep.json").exists():
        return 0
    searches = read_sweep(folder).searches
    return sum(is_done(folder / one.folder, one.config) for one in searches)


def test_four_strategies_two_tables_five_seeds_killed_half_way(tmp_path, benchmark_data):
    """40 searches from one file, their driver killed twice, a machine killed once."""
    tables = {
        "digits": {},
        "CIFAR-10": {
            "space": {"name": "nasbench201"},
            "evaluator": {"table": str(benchmark_data("nb201.npz")), "dataset": "cifar10"},
        },
    }
    text = document(axes={"strategy": STRATEGIES, "table": tables, "seed": [0, 1, 2, 3, 4]})
    text["search"]["objectives"] = [{"maximize": "accuracy"}, {"minimize": "macs"}]
    quiet = sweep(tmp_path / "quiet", search=text["search"], axes=text["axes"])
    assert sum(row["ended"] for row in quiet["rows"]) == 40

    folder = tmp_path / "sweep"
    with machines(46) as cluster:
        lost, *_ = [cluster.add() for _ in range(3)]
        arguments = ("--executor", "ray", "--address", cluster.address, "--out", str(folder))
        for half in (5, 20):
            process = start(tmp_path, text, *arguments)
            assert wait_until(lambda half=half: ended(folder) >= half, 150), process.communicate()
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            assert not (folder / "table.json").exists()
        assert ended(folder) < 40
        process = start(tmp_path, text, *arguments)
        before = trials(folder)
        assert wait_until(lambda: trials(folder) > before, 60)
        cluster.lose(lost)
        out, err = process.communicate(timeout=150)
        assert process.returncode == 0, err
    assert "40 of 40 searches done · 0 running · 0 waiting · 0 failed" in err
    assert "hypervolume" in out
    assert (folder / "table.json").read_bytes() == (tmp_path / "quiet/table.json").read_bytes()
    assert journals(folder) == journals(tmp_path / "quiet")


def test_a_search_whose_machine_is_lost_goes_on_elsewhere(tmp_path):
    axes = {"strategy": {"random": {"strategy": "random"}}, "seed": [0, 1]}
    with machines(47) as cluster:
        lost, _ = cluster.add(), cluster.add()
        slow = document(search=troubled(seconds=0.2), axes=axes)
        process = start(
            tmp_path, slow, "--executor", "ray", "--address", cluster.address, "--out", "s"
        )
        folder = tmp_path / "s"
        runs = [folder / f"runs/random/{seed}" for seed in (0, 1)]
        assert wait_until(lambda: min(map(trials, runs)) > 2, 60)
        cluster.lose(lost)
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        found = journals(folder)
    sweep(tmp_path / "quiet", axes=axes)
    for run, events in journals(tmp_path / "quiet").items():
        assert found[run][1:] == events[1:]


def test_machines_that_come_are_used(tmp_path):
    with machines(48) as cluster:
        cluster.add()
        ray.init(cluster.address, log_to_driver=False)
        watcher = Adding(cluster)
        axes = {"strategy": {"random": {"strategy": "random"}}, "seed": [0, 1, 2, 3]}
        table = sweep(tmp_path, watcher, search=troubled(seconds=0.1), axes=axes, executor="ray")
        assert table["rows"][0]["ended"] == 4
        assert watcher.most == 2


class Adding(Watcher):
    """Adds a machine once a search runs."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster = cluster

    def looked(self):
        super().looked()
        if self.looks == 1:
            self.cluster.add()
            time.sleep(1.5)  # until the sweep looks for machines again

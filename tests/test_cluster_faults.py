"""Real faults on a real cluster, the slow ones: drivers killed, machines cut off, spot machines."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
import ray
from clusters import Where, machines
from workloads import Score, alive, driver, family, run, wait_until

from nas.execution.ray import RayExecutor
from nas.execution.serial import Serial
from nas.history import JOURNAL, History

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with machines(43) as made:
        yield made


@pytest.fixture
def joined(cluster):
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()


def same_as_in_one_process(trials):
    found = sorted(trials, key=lambda trial: trial.number)
    expected = run("random", Score(), Serial(), len(found))
    assert [(t.proposal, t.outcome) for t in found] == [(t.proposal, t.outcome) for t in expected]


DRIVER = """
import sys
import ray
import workloads
from clusters import Where
from nas.execution.ray import RayExecutor
from nas.history import History

folder, address, machine, trials = sys.argv[1:]
if machine:
    ray.init(address=address, _node_ip_address=machine, log_to_driver=False)
    print(ray.get_runtime_context().get_node_id())
evaluator = Where(folder, held=(5,), delay_s=0.1)
executor = RayExecutor(address=address)
workloads.run("random", evaluator, executor, int(trials), History(folder + "/run"))
print("done")
"""


def test_a_killed_driver_is_followed_by_one_on_another_machine(cluster, tmp_path):
    second = cluster.add(2)
    evaluator = Where(str(tmp_path))
    arguments = (DRIVER, str(tmp_path), cluster.address)
    path = tmp_path / "run" / JOURNAL
    with driver(*arguments, "", "20") as process:
        assert wait_until(
            lambda: (
                process.poll() is not None
                or (evaluator.attempts(5) and path.exists() and path.read_bytes().count(b"\n") > 12)
            )
        )
        assert process.poll() is None, process.communicate()
        outside = {member[0] for member in family(process)}
        ((worker, _),) = evaluator.attempts(5)
        assert worker not in outside, "it is of the cluster, not of the driver"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: not alive(worker), 30), "the trial of the killed goes on"
    before = path.read_bytes()
    before = before[: before.rindex(b"\n") + 1]
    evaluator.go()
    with driver(*arguments, second.node_ip_address, "20") as process:
        out, errors = process.communicate(timeout=120)
    assert out.split() == [second.node_id, "done"], errors
    assert path.read_bytes().startswith(before)
    trials = History(tmp_path / "run").trials
    assert len(trials) == 20
    same_as_in_one_process(trials)
    assert len(evaluator.attempts(5)) == 2
    cluster.lose(second)


def test_a_machine_that_is_cut_off_is_given_up(joined, tmp_path):
    """It neither answers nor closes its connections: the driver would wait for ever."""
    evaluator = Where(str(tmp_path), held=(0,))
    executor = RayExecutor(cpus=0, resources={"quiet": 1}, retries=0, wait_s=60)
    lost = joined.add(resources={"quiet": 1})
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(run("random", evaluator, executor, 1)), daemon=True
    )
    thread.start()
    assert wait_until(lambda: evaluator.attempts(0))
    ((worker, _),) = evaluator.attempts(0)
    raylet = lost.all_processes["raylet"][0].process.pid
    for pid in (raylet, worker):
        os.kill(pid, signal.SIGSTOP)
    other = joined.add(resources={"quiet": 1})
    assert wait_until(lambda: evaluator.machines(0) == {lost.node_id, other.node_id})
    evaluator.go()
    thread.join(60)
    same_as_in_one_process(found)
    os.kill(worker, signal.SIGKILL)
    os.kill(raylet, signal.SIGCONT)
    joined.lose(lost)
    joined.lose(other)


def test_a_search_on_machines_that_come_and_go(joined, tmp_path):
    """Machines are taken and given and workers killed at random; nothing is lost or repeated."""
    rng = random.Random(0)
    evaluator = Where(str(tmp_path), delay_s=0.3)
    executor = RayExecutor(cpus=0, resources={"spot": 1}, retries=10, wait_s=60)
    history = History(tmp_path / "run")
    there = [joined.add(resources={"spot": 2}) for _ in range(2)]
    thread = threading.Thread(
        target=run, args=("random", evaluator, executor, 150, history), daemon=True
    )
    thread.start()
    for turn in range(4):
        done = len(history.trials)
        assert wait_until(lambda done=done: len(history.trials) > done + 8)
        time.sleep(rng.uniform(0, 0.3))
        if turn % 2:
            _kill_a_worker(evaluator, rng)
        joined.lose(there.pop(rng.randrange(len(there))))
        there.append(joined.add(resources={"spot": 2}))
    assert thread.is_alive(), "the search was over too soon to be disturbed"
    thread.join(120)
    assert len(history.trials) == 150
    same_as_in_one_process(history.trials)
    assert [t.number for t in History(tmp_path / "run").trials] == [
        t.number for t in history.trials
    ]
    repeated = [number for number in range(150) if len(evaluator.attempts(number)) > 1]
    assert repeated, "nothing was lost on the way"
    for machine in there:
        joined.lose(machine)


def _kill_a_worker(evaluator, rng):
    """One that runs trials: the files of the latest attempts tell."""
    workers = {worker for number in range(150) for worker, _ in evaluator.attempts(number)}
    running = sorted(worker for worker in workers if alive(worker))
    os.kill(rng.choice(running), signal.SIGKILL)

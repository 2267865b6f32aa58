"""A cluster of several machines: what a trial needs of them, how they come, go and are lost."""

from __future__ import annotations

import os
import re
import threading
import warnings

import pytest
import ray
from clusters import Where, machines
from workloads import FaultAt, Score, alive, proposal, run, wait_until

from nas.errors import ConfigError
from nas.execution.ray import RayExecutor
from nas.execution.serial import Serial
from nas.trial import Measured, Proposal


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, one machine of two, and one for placement; joined by this process."""
    with machines(41) as made:
        made.add(0, wait=False, resources={"both": 4})
        made.add(2, num_gpus=1, resources={"phone": 2, "both": 4})
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made


# -------------------------------------------------------------------------- what a trial needs


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        ({}, 2),
        ({"resources": {"phone": 1}, "cpus": 0}, 2),
        ({"resources": {"phone": 2}}, 1),
        ({"resources": {"phone": 0.5}, "cpus": 0.25}, 4),
        ({"gpus": 0.25, "cpus": 0.1}, 4),
        ({"gpus": 1, "workers": 3}, 3),
    ],
)
def test_as_many_places_as_the_machines_hold(cluster, arguments, places):
    executor = RayExecutor(**arguments)
    assert executor.free == places
    executor.close()


class Devices(Score):
    def evaluate(self, proposal):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
        granted = ray.get_runtime_context().get_assigned_resources()
        return Measured({"score": float(granted["GPU"]) + 10 * granted["phone"]})


def test_a_trial_is_given_its_share_of_a_gpu_and_other_resources(cluster):
    executor = RayExecutor(cpus=0, gpus=0.5, resources={"phone": 1})
    trials = run("random", Devices(), executor, 2)
    assert [trial.values for trial in trials] == [{"score": 10.5}] * 2, trials


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resources": {"phone": 3}}, "0 GPUs, 3 of 'phone' .* no machine .* 1 GPUs, 2 of 'phone'"),
        ({"resources": {"watch": 1}}, "1 of 'watch' and .* 0 of 'watch'"),
        ({"gpus": 2}, "needs 1 CPUs, 2 GPUs .* 2 CPUs, 1 GPUs"),
    ],
)
def test_what_no_machine_has_is_refused_by_name(cluster, arguments, message):
    with pytest.raises(ConfigError, match=message):
        _ = RayExecutor(**arguments).free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resources": {"GPU": 1}}, "resources: GPU of a trial is given as gpus"),
        ({"resources": {"phone": -1}}, r"resources\.phone must be zero or more, got -1"),
        ({"resources": {"phone": 1.5}}, r"resources\.phone must be a whole number .* got 1\.5"),
        ({"resources": {"phone": 0}, "cpus": 0}, "or other resources; got none"),
        ({"placement": "spread"}, "no placement 'spread': did you mean 'SPREAD'"),
        ({"code": "all"}, "code must be one of auto, none, got 'all'"),
        ({"wait_s": -1}, "wait_s must be zero or more, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RayExecutor(**arguments)


@pytest.mark.parametrize(
    ("how", "cause"),
    [("hang in C", "timeout"), ("memory: numpy", "memory"), ("die", "worker died")],
)
def test_limits_hold_on_another_machine(cluster, how, cause, tmp_path):
    """The driver is on the head, which has no CPUs: every trial is elsewhere."""
    evaluator = FaultAt(how, str(tmp_path), number=1)
    limits = {"time_limit_s": 1.0 if cause == "timeout" else 60.0, "memory_bytes": 300 * 2**20}
    trials = {t.number: t for t in run("random", evaluator, RayExecutor(retries=1, **limits), 3)}
    assert trials.pop(1).outcome.cause == cause
    assert all(isinstance(trial.outcome, Measured) for trial in trials.values())
    assert len(evaluator.attempts()) == (2 if how == "die" else 1)
    assert wait_until(lambda: not any(map(alive, evaluator.attempts())) or cause == "memory", 10)


# --------------------------------------------------------------------- machines come and go


def test_machines_come_and_are_lost_while_a_search_runs(cluster, tmp_path):
    """With no retries: what the loss of machines costs is repeated all the same."""
    evaluator = Where(str(tmp_path), held=(0, 1, 2))
    executor = RayExecutor(cpus=0, resources={"spot": 1}, retries=0, wait_s=120)
    found = []
    thread = threading.Thread(
        target=lambda: found.extend(run("random", evaluator, executor, 6)), daemon=True
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        thread.start()
        assert wait_until(lambda: said or not thread.is_alive())
        missing = "waiting for room on the cluster: a trial needs .* 1 of 'spot' .* 0 of 'spot'"
        assert re.search(missing, str(said[0].message))
        first = cluster.add(resources={"spot": 1})
        assert wait_until(lambda: evaluator.machines(0) == {first.node_id})
        assert not evaluator.machines(1)
        # No trial ends, and yet the machine that joins is used.
        second = cluster.add(resources={"spot": 2})
        assert wait_until(lambda: evaluator.machines(1) == evaluator.machines(2) != set())
        assert evaluator.machines(2) == {second.node_id}
        cluster.lose(second)
        cluster.lose(first)
        third = cluster.add(resources={"spot": 3})
        lost = [first.node_id, second.node_id, second.node_id]
        for number, machine in enumerate(lost):
            both = {machine, third.node_id}
            assert wait_until(lambda n=number, both=both: evaluator.machines(n) == both)
        evaluator.go()
        thread.join(60)
    trials = sorted(found, key=lambda trial: trial.number)
    expected = run("random", Score(), Serial(), 6)
    assert [(t.proposal, t.outcome) for t in trials] == [(t.proposal, t.outcome) for t in expected]
    assert [len(evaluator.attempts(n)) for n in range(6)] == [2, 2, 2, 1, 1, 1]
    cluster.lose(third)


def test_where_no_machine_comes_in_time_the_search_ends(cluster):
    executor = RayExecutor(resources={"never": 1}, wait_s=0.5)
    executor.submit(Score(), proposal())
    with pytest.raises(ConfigError, match=r"1 of 'never' .* \(waited 0\.5 s\)"):
        executor.next()
    executor.close()


@pytest.mark.parametrize(("placement", "count"), [("DEFAULT", 1), ("SPREAD", 2)])
def test_trials_are_placed_as_asked(cluster, placement, count, tmp_path):
    """Two trials fit either machine, and fill it to the half at most."""
    evaluator = Where(str(tmp_path), held=(0, 1))
    executor = RayExecutor(cpus=0, resources={"both": 1}, placement=placement)
    for number in range(2):
        executor.submit(evaluator, Proposal(number, proposal().arch))
    assert wait_until(lambda: evaluator.machines(0) and evaluator.machines(1))
    assert len(evaluator.machines(0) | evaluator.machines(1)) == count
    executor.close()

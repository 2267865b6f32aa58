"""Processes of a Ray cluster that train together: faults, and the same as elsewhere."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading

import gradient_together
import pytest
import torch
import training_together
from ray_together import counting, failing, starts

from evaluators.one_shot import OneShot
from nas.data import digits
from nas.errors import ConfigError, UnsupportedRequest, WorkerError
from nas.execution import ray_train
from nas.supernet.training import PathSettings
from nas.supernet.workers import Workers, run_resumable

TWO = Workers(2, on="ray")
BEGUN = b"[0, 0.0]"


pytestmark = pytest.mark.usefixtures("local_ray")


def same_bits(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_work_goes_on_after_a_worker_was_killed(tmp_path):
    told = []

    def on_kept(content, step):
        told.append(step)
        if step == 2 and len(starts(tmp_path, 1)) == 1:
            os.kill(starts(tmp_path, 1)[0][0], signal.SIGKILL)

    steps = 200  # more than it takes until the signal is there
    work = functools.partial(counting, tmp_path, steps)
    found = run_resumable(work, BEGUN, TWO, on_kept=on_kept)
    assert found == [steps, 11.0 * steps * (steps + 1) / 2, 2, 1]
    assert told == list(range(1, steps + 1))  # each step was made once
    for rank in range(2):
        (first, begun), (second, resumed) = starts(tmp_path, rank)
        assert first != second
        assert begun == 0
        assert 2 <= resumed < steps


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        (Workers(3, on="ray"), r"3 want 1 CPUs and 0 GPUs each, and the cluster has room for 2"),
        (Workers(2, on="ray", gpus=1), r"2 want 1 CPUs and 1 GPUs each.* room for 0"),
    ],
)
def test_a_cluster_without_room_is_refused(workers, says):
    with pytest.raises(ConfigError, match=says):
        run_resumable(functools.partial(counting, None, 1), BEGUN, workers)


def test_what_cannot_be_pickled_is_refused():
    with pytest.raises(UnsupportedRequest, match="cannot be pickled"):
        run_resumable(functools.partial(counting, threading.Lock(), 1), BEGUN, TWO)


@pytest.mark.slow
def test_what_a_worker_raises_is_raised_here_and_not_tried_again(tmp_path):
    with pytest.raises(KeyError, match="the second worker's trouble") as caught:
        run_resumable(functools.partial(failing, tmp_path), b"", TWO)
    assert "in failing" in "".join(caught.value.__notes__)
    assert len(starts(tmp_path, 1)) == 1


@pytest.mark.slow
def test_workers_that_die_again_and_again_are_an_error(tmp_path):
    killed = itertools.count()

    def on_kept(content, step):
        os.kill(starts(tmp_path, 1)[-1][0], signal.SIGKILL)
        next(killed)

    work = functools.partial(counting, tmp_path, 10**6)
    says = "2 workers on Ray were started 2 times, and one died or was lost each time: rank"
    with pytest.raises(WorkerError, match=says):
        run_resumable(work, BEGUN, Workers(2, on="ray", retries=1), on_kept=on_kept)
    assert len(starts(tmp_path, 0)) == 2


@pytest.mark.slow
def test_an_interrupt_ends_the_workers(tmp_path):
    def on_kept(content, step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_resumable(functools.partial(counting, tmp_path, 10**9), BEGUN, TWO, on_kept=on_kept)
    # Their places are free again.
    assert run_resumable(functools.partial(counting, tmp_path, 2), BEGUN, TWO)[0] == 2
    for rank in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(starts(tmp_path, rank)[0][0], 0)


@pytest.mark.slow
def test_shared_weights_are_trained_as_by_processes_of_this_machine(tmp_path):
    settings = PathSettings(epochs=3, batch_size=128, learning_rate=0.1)
    given = {"settings": settings, "recalibration_batches": 2, "device": "cpu"}
    here = OneShot(training_together.SLOTS, digits(), workers=2, **given)
    here.fit()
    path = tmp_path / "supernet.safetensors"
    stopped = OneShot(training_together.SLOTS, digits(), path, workers=TWO, **given)

    def stop(epoch, loss):
        raise InterruptedError(f"after epoch {epoch}")

    with pytest.raises(InterruptedError, match="after epoch 1"):
        stopped.fit(on_epoch=stop)
    assert path.exists()
    epochs = []
    cost = stopped.fit(on_epoch=lambda epoch, loss: epochs.append(epoch))
    assert epochs == [2, 3]  # from the checkpoint here
    assert cost.epochs == pytest.approx(3)
    same_bits(here._weights, stopped._weights)
    read = OneShot(training_together.SLOTS, digits(), path, workers=TWO, **given)
    assert read.fit() == cost


@pytest.mark.slow
def test_a_search_by_gradients_is_the_same_as_by_processes_of_this_machine():
    states = []
    for workers in (2, TWO):
        search = gradient_together.strategy("gdas", workers=workers, propose_every=3)
        (proposal,) = search.ask(1)
        states.append((proposal, search._run.search.state_dict()))
    (one, first), (two, second) = states
    assert one == two
    same_bits(first["supernet"], second["supernet"])
    same_bits(first["parameters"], second["parameters"])


def test_without_a_cluster_one_is_started_and_ended(monkeypatch):
    called = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_train.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_train, "start_local", lambda: called.append("started"))
    monkeypatch.setattr(ray_train, "connect", lambda address: called.append(address))
    monkeypatch.setattr(ray_train.ray, "shutdown", lambda: called.append("ended"))
    for address, first in ((None, "started"), ("10.0.0.1:6379", "10.0.0.1:6379")):
        with ray_train._cluster(address):
            assert called == [first]
        assert called == [first, "ended"]
        called.clear()

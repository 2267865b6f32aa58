"""Searches by gradients on several processes: the same steps, gates and bits as on one."""

from __future__ import annotations

import copy
import functools
import json
import signal

import gradient_together as together
import pytest
import torch
from waiting_together import assert_gone, recorded

from nas.components import create, describe
from nas.errors import ConfigError, WorkerError
from nas.supernet.parallel import ALONE, mean, mean_gradients, whole_loss
from nas.supernet.workers import Workers, as_workers, run_resumable, run_workers
from strategies import differentiable

ROUNDING = 1e-6


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks came to."""
    folder = tmp_path_factory.mktemp("ranks")
    run_workers(functools.partial(together.all_kinds, folder), 2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def distance(one, other, kind):
    """The largest difference in any tensor, but for counts of batches."""
    assert one[kind].keys() == other[kind].keys()
    names = [name for name in one[kind] if not name.endswith("num_batches_tracked")]
    return max(float((one[kind][name] - other[kind][name]).abs().max()) for name in names)


def flat(state):
    """All that is in a state, by its place."""
    if isinstance(state, dict):
        return {f"{k}/{n}": v for k, part in state.items() for n, v in flat(part).items()}
    if isinstance(state, list | tuple):
        return flat(dict(enumerate(state)))
    return {"": state}


def assert_same(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        assert same, name


PLAIN = [kind for kind in together.KINDS if kind != "batch norms"]


@pytest.mark.parametrize("kind", PLAIN)
def test_two_workers_search_as_one_process_does(ranks, kind):
    one, two = together.trained(kind), ranks[0][kind]
    begun = together.strategy(kind)._run.search.state_dict()
    for part in ("supernet", "parameters"):
        assert distance(one, two, part) < ROUNDING
        assert distance(one, begun, part) > 0.01
    losses = [[point["train_loss"] for point in state["curve"]] for state in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=ROUNDING)
    assert one["examples"] == two["examples"]


def test_with_synchronised_batch_norms_too(ranks):
    one, two = together.trained("batch norms", synchronise=True), ranks[0]["synchronised"]
    assert distance(one, two, "supernet") < ROUNDING
    assert distance(one, two, "parameters") < 5 * ROUNDING
    # And what is written out there is a batch norm.
    norms = together.trained("batch norms")
    assert distance(one, norms, "parameters") < 5 * ROUNDING


def test_otherwise_batch_norms_see_each_workers_own_rows(ranks):
    one, two = together.trained("batch norms"), ranks[0]["batch norms"]
    assert distance(one, two, "parameters") > 1e-3
    moved = [n for n, t in two["supernet"].items() if n.endswith("running_mean") and t.any()]
    assert len(moved) > 5


@pytest.mark.parametrize("kind", [*together.KINDS, "synchronised", "guarded"])
def test_all_workers_come_to_the_same_bits(ranks, kind):
    assert_same(ranks[0][kind], ranks[1][kind])


def test_guards_see_what_they_see_in_one_process(ranks):
    one, two = together.guarded(ALONE), ranks[0]["guarded"]
    assert one["made"] == two["made"]
    assert one["watch"]["kept"] == two["watch"]["kept"]
    assert len(one["watch"]["eigenvalues"]) == together.EPOCHS
    assert one["watch"]["eigenvalues"] == pytest.approx(two["watch"]["eigenvalues"], rel=1e-3)


def test_parameters_that_have_come_apart_are_an_error_on_every_rank(ranks):
    for rank in ranks:
        assert "the parameters after epoch 1 of rank 1 are not those of rank 0" in rank["apart"]


# ------------------------------------------------------------------------------- the strategy


@pytest.mark.slow
def test_a_search_goes_on_after_a_worker_was_killed(ranks, monkeypatch, capfd):
    started = recorded(monkeypatch)
    search = together.strategy("darts", workers=2, propose_every=2)
    before = copy.deepcopy(search.state_dict())
    with monkeypatch.context() as patched:
        kill = functools.partial(
            run_resumable, on_kept=lambda kept, epoch: started[1].send_signal(signal.SIGKILL)
        )
        patched.setattr(differentiable, "run_resumable", kill)
        with pytest.raises(WorkerError, match=r"worker 1 of 2 \(process \d+\) died of signal 9"):
            search.ask(1)
    assert_gone(started)
    assert_same(search.state_dict(), before)
    # Another that goes on from its state: two epochs, then the third.
    other = together.strategy("darts", workers=2, propose_every=2)
    (first,) = search.ask(1)
    other.load_state_dict(copy.deepcopy(search.state_dict()))
    (second,) = other.ask(1)
    assert other.ask(1) == []
    assert_gone(started, 6)
    assert [one.number for one in (first, second)] == [0, 1]
    assert [one.spent.epochs for one in (first, second)] == [2.0, 1.0]
    assert_same(other._run.search.state_dict(), ranks[0]["darts"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        (0, "workers must be at least 1, got 0"),
        (4, "workers must be at most 3, got 4: batches of 7 from 27 examples"),
    ],
)
def test_numbers_of_workers_out_of_range_are_refused(workers, says):
    with pytest.raises(ConfigError, match=says):
        together.strategy("darts", workers=workers)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"on": "rays"}, "there is no 'rays'.*'ray'"),
        ({"on": "ray", "gpus": -1.0}, "gpus must be zero or more, got -1.0"),
        ({"on": "ray", "retries": -1}, "retries must be zero or more, got -1"),
        ({"gpus": 1.0}, "gpus and address are of workers on Ray; say on: ray"),
        ({"address": "auto"}, "gpus and address are of workers on Ray; say on: ray"),
    ],
)
def test_workers_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Workers(2, **arguments)


@pytest.mark.parametrize("workers", [2, {"count": 2, "on": "ray", "gpus": 0.5}])
def test_workers_are_written_down_and_read(workers):
    description = {**describe(together.strategy("darts")), "workers": workers}
    read = create("strategies", json.loads(json.dumps(description)), "strategy")
    assert as_workers(read.workers).count == 2
    again = create("strategies", json.loads(json.dumps(describe(read))), "strategy")
    assert again.workers == read.workers
    assert isinstance(read.workers, int) == isinstance(workers, int)


def test_mistakes_in_workers_are_named():
    description = describe(together.strategy("darts"))
    for workers, says in (
        ({"count": 2, "om": "ray"}, "workers has no 'om'.*'on'"),
        ({"count": "two"}, "workers.count: .*valid integer"),
        ("two", "workers: .*got 'two'"),
    ):
        with pytest.raises(ConfigError, match=says):
            create("strategies", {**description, "workers": workers}, "strategy")


# ------------------------------------------------------------------------------ the reductions


class Three:
    """A group whose other two ranks have twice and three times as much."""

    rank, size = 0, 3

    def sum(self, tensors):
        return [tensor * 6 for tensor in tensors]


def test_what_depends_on_rows_counts_once_and_so_does_what_does_not():
    weight = torch.nn.Parameter(torch.tensor(2.0))
    loss = whole_loss(Three(), weight * 4.0, 0.25)
    assert loss.item() == 2.0 * 6  # 0.25 · 4 · weight on this rank
    (loss * weight + 10 * weight).backward()
    # Of the rows: weight · d loss; each rank's gradient is three times its own, then averaged.
    rows, direct = 2.0 * 3 * 1.0, 12.0 + 10.0
    assert float(weight.grad) == rows + direct
    assert whole_loss(ALONE, weight, 0.5).item() == 2.0  # alone there is nothing to scale


def test_means_over_ranks():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    mean_gradients(Three(), parameters)
    assert parameters[0].grad.tolist() == [2.0, 4.0]
    assert parameters[1].grad is None
    (found,) = mean(Three(), [torch.tensor([1.0])])
    assert found.tolist() == [2.0]
    given = [torch.ones(1)]
    assert mean(ALONE, given)[0] is given[0]

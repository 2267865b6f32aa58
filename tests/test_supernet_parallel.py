"""Shared weights trained by several processes: the same steps and bits, nothing left behind."""

from __future__ import annotations

import functools
import itertools
import signal

import pytest
import torch
import training_together as together
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting_together import assert_gone, recorded

from evaluators.one_shot import OneShot
from nas.components import create, describe
from nas.data import digits
from nas.errors import ConfigError, WorkerError
from nas.supernet.parallel import (
    ALONE,
    Distributed,
    average_statistics,
    check_same,
    check_shares,
    own_randomness,
    share,
)
from nas.supernet.training import PathSettings
from nas.supernet.workers import run_workers
from nas.training import augmented

DIGITS = functools.cache(digits)
SHORT = {"validation_fraction": 0.7}
"""Of a training whose epochs are short."""


def flat(state):
    """All tensors of a training's state, by name."""
    return {
        f"{kind}/{name}": tensor
        for kind in ("supernet", "optimiser", "teacher")
        for name, tensor in state[kind].items()
    }


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert one
    for name in one:
        assert torch.equal(one[name], other[name]), name


def distance(one, other):
    """The largest difference in any shared tensor, but for counts of batches."""
    assert one.keys() == other.keys()
    names = [name for name in one if not name.endswith("num_batches_tracked")]
    return max(float((one[n] - other[n]).abs().max()) for n in names)


@pytest.fixture
def started(monkeypatch):
    return recorded(monkeypatch)


# --------------------------------------------------------------- two ranks against one process


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks came to."""
    folder, reported = tmp_path_factory.mktemp("ranks"), []
    work = functools.partial(together.all_kinds, one_shot(**SHORT, workers=2), folder)
    run_workers(work, 2, on_report=lambda *values: reported.append(values))
    assert [epoch for epoch, _ in reported] == [1, 2, 3, 4]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@functools.cache
def alone(kind):
    trained = together.training(kind, DIGITS())
    while not trained.done:
        trained.advance()
    return trained.state_dict()


@pytest.mark.parametrize("kind", ["layer norms", "phases"])
def test_without_batch_norms_two_workers_train_as_one_process_does(ranks, kind):
    one, two = alone(kind), ranks[0][kind]
    assert distance(one["supernet"], two["supernet"]) < 1e-6
    assert two["curve"] == pytest.approx(one["curve"], rel=1e-6)
    assert (two["epoch"], two["passes"], two["phase"]) == (
        one["epoch"],
        one["passes"],
        one["phase"],
    )
    begun = together.training(kind, DIGITS()).state_dict()["supernet"]
    assert distance(one["supernet"], begun) > 1e-2


@pytest.mark.parametrize("kind", ["slots", "sizes"])
def test_batch_norms_see_each_workers_own_rows(ranks, kind):
    expected = together.by_shares(kind, DIGITS(), 2).supernet.state_dict()
    two = ranks[0][kind]["supernet"]
    assert distance(expected, two) < 3e-4  # batch norms of 16 rows make rounding larger
    assert distance(alone(kind)["supernet"], two) > 1e-3
    moved = [name for name in two if name.endswith("running_mean") and two[name].any()]
    assert len(moved) > 5


@pytest.mark.parametrize("kind", list(together.KINDS))
def test_all_workers_come_to_the_same_bits(ranks, kind):
    one, other = (rank[kind] for rank in ranks)
    assert_same_bits(flat(one), flat(other))
    assert one["curve"] == other["curve"]


def test_what_has_no_gradient_on_any_rank_stays_without(ranks):
    for rank in ranks:
        loss, (both, second, none) = rank["gradients"]
        assert loss == 2.0
        assert both.tolist() == [2.0, 10.0]
        assert second.tolist() == [3.0, 4.0]
        assert none is None


def test_weights_that_have_come_apart_are_an_error_on_every_rank(ranks):
    for rank in ranks:
        assert "the weights after epoch 1 of rank 1 are not those of rank 0" in rank["apart"]


class Two:
    """A group whose other rank has what it is told."""

    rank, size = 0, 2

    def __init__(self, other):
        self.other = other

    def sum(self, tensors):
        (told,) = tensors
        return [told + torch.tensor([0, self.other])]


def digest_of(state):
    told = []

    class Telling(Two):
        def sum(self, tensors):
            told.append(int(tensors[0][0]))
            return [tensors[0].repeat_interleave(2)[:2]]

    check_same(Telling(0), state, torch.device("cpu"), "it")
    return told[0]


def test_the_comparison_sees_everything():
    state = {"epoch": 1, "supernet": {"a": torch.zeros(2), "b": torch.tensor(1.0)}}
    others = [
        {**state, "epoch": 2},
        {**state, "supernet": {"a": torch.zeros(2), "b": torch.tensor(1.0 + 1e-7)}},
        {**state, "supernet": {"a": torch.tensor([0.0, -0.0]), "b": torch.tensor(1.0)}},
        {**state, "supernet": {"a": torch.zeros(2), "c": torch.tensor(1.0)}},
    ]
    digests = [digest_of(state), *map(digest_of, others)]
    assert len(set(digests)) == len(digests)
    check_same(Two(digests[0]), state, torch.device("cpu"), "it")
    with pytest.raises(WorkerError, match="it of rank 1"):
        check_same(Two(digests[1]), state, torch.device("cpu"), "it")


class Alike:
    """A group whose ranks all have the same."""

    rank, size = 0, 3

    def sum(self, tensors):
        return [tensor * 3 for tensor in tensors]


def test_what_is_the_same_on_all_ranks_is_not_moved_by_averaging():
    norm = torch.nn.BatchNorm1d(1000)
    norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    before = norm.running_mean.clone()
    assert not torch.equal(before * 3 / 3, before)  # rounding would move it
    average_statistics(Alike(), [norm])
    assert torch.equal(norm.running_mean, before)


# ------------------------------------------------------------------------------------- shares


class Place:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@given(st.integers(1, 12), st.integers(1, 500))
def test_shares_are_a_partition_into_nearly_equal_parts(size, rows):
    parts = [list(range(rows))[share(Place(rank, size), rows)] for rank in range(size)]
    assert list(itertools.chain(*parts)) == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_draw_numbers_of_their_own_and_go_on_alike():
    drawn, after = [], []
    for group in (Place(0, 2), Place(1, 2), Place(1, 2), ALONE):
        torch.manual_seed(1)
        with own_randomness(group, (5, 0, 3), 1):
            drawn.append(torch.rand(4).tolist())
        after.append(torch.rand(4).tolist())
    assert drawn[1] == drawn[2]
    assert len({tuple(numbers) for numbers in drawn}) == 3
    torch.manual_seed(1)
    assert drawn[3] == after[0] == after[1] == torch.rand(4).tolist()  # one goes on as it was


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_how_images_are_augmented_does_not_depend_on_the_shares(rows, size, padding, flip):
    images = torch.arange(rows * 32.0).reshape(rows, 2, 4, 4)
    parts = []
    for rank in range(size):
        part = share(Place(rank, size), rows)
        torch.manual_seed(7)
        parts.append(augmented(images[part], padding, flip, (rows, part)))
        after = torch.rand(1)
        torch.manual_seed(7)
        whole = augmented(images, padding, flip)
        assert len(images[part]) == 0 or torch.equal(after, torch.rand(1))
    assert torch.equal(torch.cat(parts), whole)


@given(st.integers(4, 400), st.integers(2, 70), st.integers(1, 9))
def test_no_worker_is_left_with_less_than_two_rows(examples, batch_size, size):
    steps = -(-examples // batch_size)
    batches = torch.arange(examples).tensor_split(steps)
    rows = [
        len(batch[share(Place(rank, size), len(batch))])
        for batch in batches
        for rank in range(size)
    ]
    if size == 1 or min(rows) >= 2:
        check_shares(examples, batch_size, size)
    else:
        with pytest.raises(ConfigError, match=f"got {size}"):
            check_shares(examples, batch_size, size)


def one_shot(path=None, **arguments):
    quick = PathSettings(epochs=4, batch_size=128, learning_rate=0.1)
    given = {"settings": quick, "recalibration_batches": 2, "device": "cpu", **arguments}
    return OneShot(together.SLOTS, DIGITS(), path, **given)


@pytest.mark.parametrize(
    ("count", "says"),
    [(0, "workers must be at least 1, got 0"), (65, "workers must be at most 63, got 65")],
)
def test_numbers_of_workers_out_of_range_are_refused(count, says):
    with pytest.raises(ConfigError, match=says):
        one_shot(workers=count)


def test_more_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    one_shot(workers=2)
    with pytest.raises(ConfigError, match="2 want a GPU each and there are 1"):
        one_shot(workers=2, device="auto")


def test_the_number_of_workers_is_written_down():
    description = describe(one_shot(workers=2))
    assert description["workers"] == 2
    del description["data"]
    again = create("evaluators", description, "evaluator", {"data": DIGITS()})
    assert again.workers == 2


def test_without_torchs_group_there_is_none():
    with pytest.raises(ConfigError, match="not initialised"):
        Distributed()
    assert (ALONE.rank, ALONE.size) == (0, 1)


# ------------------------------------------------------------------------------- the processes


@pytest.mark.slow
def test_training_goes_on_after_a_worker_was_killed(ranks, tmp_path, started, capfd):
    path = tmp_path / "supernet.safetensors"
    killed = one_shot(path, **SHORT, workers=2)
    with pytest.raises(WorkerError, match=r"worker 1 of 2 \(process \d+\) died of signal 9"):
        killed.fit(on_epoch=lambda epoch, loss: started[1].send_signal(signal.SIGKILL))
    assert_gone(started)
    epochs = []
    cost = killed.fit(on_epoch=lambda epoch, loss: epochs.append(epoch))
    assert_gone(started, 4)
    assert epochs[-1] == 4
    assert 1 <= len(epochs) <= 3
    assert cost.epochs == pytest.approx(4)
    assert_same_bits(ranks[0]["one-shot"], killed._weights)
    # What is trained already starts nobody.
    read = one_shot(path, **SHORT, workers=2)
    assert read.fit() == cost
    assert_same_bits(killed._weights, read._weights)
    assert len(started) == 4
    assert capfd.readouterr() == ("", "")

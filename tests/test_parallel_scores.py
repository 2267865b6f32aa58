"""A population scored by several workers over one copy of the weights: the same, to the bit."""

from __future__ import annotations

import copy
import itertools
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from elastic import DIGITS, elastic, one_shot
from test_cli import nas  # noqa: F401  (a fixture)

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from nas.data import Images
from nas.errors import WorkerError
from nas.execution import ray_sharing
from nas.execution.ray import RayExecutor
from nas.execution.ray_sharing import packed, unpacked
from nas.execution.serial import Serial
from nas.objective import maximize
from nas.shared import Shared, own
from nas.specialize import Inherited, score, spread_over_costs
from nas.specialize.inherited import ScoresInherited
from nas.supernet.files import load_supernet, share
from nas.trial import Failed, Measured, Proposal

SPACE = elastic()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained supernet's file, and the evaluator."""
    path = tmp_path_factory.mktemp("trained") / "supernet.safetensors"
    evaluator = one_shot(path)
    evaluator.fit()
    share(path)
    return path, evaluator


@pytest.fixture
def everything_shared(monkeypatch):
    """Tensors of any size; statistics of batch norms too, which are small."""
    monkeypatch.setattr(ray_sharing, "LEAST_BYTES", 1)


def proposals(count):
    drawn = itertools.islice(spread_over_costs(SPACE), count)
    return [Proposal(number, arch, 0) for number, arch in enumerate(drawn)]


def inherited_of(trained):
    return Inherited(load_supernet(trained[0]), DIGITS(), recalibration_batches=2)


# ------------------------------------------------------------------------------------ in pieces


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 5, 2),
        torch.arange(6, dtype=torch.int64),
        torch.tensor(7.0),
        torch.zeros(0, 3),
        torch.randn(4).bfloat16(),
        torch.tensor([True, False]),
        torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 6)[:, ::2],
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}",
)
def test_what_is_put_together_again_is_what_was_taken_apart(everything_shared, tensor):
    found = unpacked(packed({"a": Shared(tensor), "twice": [Shared(tensor)], "own": tensor}))
    for again in (found["a"], found["twice"][0], found["own"]):
        assert type(again) is type(tensor)
        assert again.dtype == tensor.dtype
        assert again.stride() == tensor.stride()
        assert torch.equal(again, tensor)


def test_shared_memory_is_read_where_it_is_and_sent_once(everything_shared):
    tensor = torch.arange(10.0)
    pieces = packed([Shared(tensor), Shared(tensor), tensor.clone()])
    assert len(pieces.tensors) == 1
    held = pieces.tensors[0].copy()
    held.flags.writeable = False  # as Ray gives it
    first, second, another = unpacked(ray_sharing.Packed(pieces.content, (held,)))
    assert first.data_ptr() == second.data_ptr() == held.ctypes.data
    assert another.data_ptr() != held.ctypes.data
    assert torch.equal(first, tensor)


def test_small_tensors_are_copied():
    edge = ray_sharing.LEAST_BYTES
    small, large = (torch.zeros(size, dtype=torch.uint8) for size in (edge - 1, edge))
    assert len(packed([Shared(small), Shared(large)]).tensors) == 1


def test_what_lives_in_a_script_goes_along():
    script = types.ModuleType("__main__")
    exec("class Own:\n    def __init__(self, tensor):\n        self.tensor = tensor", vars(script))
    script.Own.__module__ = "__main__"
    found = unpacked(packed(script.Own(Shared(torch.zeros(5000)))))
    assert type(found).__name__ == "Own"
    assert found.tensor.shape == (5000,)


def test_otherwise_shared_tensors_are_pickled_and_copied_as_all_are(trained):
    tensor = torch.randn(3)
    assert torch.equal(pickle.loads(pickle.dumps(Shared(tensor))), tensor)
    assert own(tensor) is own(Shared(tensor)) is tensor
    images = Images(
        torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4), 255.0, *[tensor] * 2
    )
    for again in (copy.copy(images), copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
        assert type(again.pixels) is torch.Tensor
        assert torch.equal(again.pixels, images.pixels)
    assert copy.copy(images).pixels is images.pixels
    for again in (copy.copy(trained[1]), pickle.loads(pickle.dumps(trained[1]))):
        weights = again._weights
        assert weights.keys() == trained[1]._weights.keys()
        assert all(type(tensor) is torch.Tensor for tensor in weights.values())
    assert one_shot(None).__getstate__()["_weights"] is None
    assert copy.copy(one_shot(None))._weights is None


# ------------------------------------------------------------------------- nothing is written


@pytest.mark.parametrize("kind", ["one_shot", "inherited"])
def test_scoring_writes_into_nothing_that_is_shared(everything_shared, trained, kind):
    evaluator = trained[1] if kind == "one_shot" else ScoresInherited(inherited_of(trained))
    pieces = packed(evaluator)
    size = sum(tensor.nbytes for tensor in trained[1]._weights.values())
    assert sum(array.nbytes for array in pieces.tensors) > size  # and the images
    assert len(pieces.content) < size
    held = tuple(array.copy() for array in pieces.tensors)
    for array in held:
        array.flags.writeable = False
    other = unpacked(ray_sharing.Packed(pieces.content, held))
    for proposal in proposals(4):
        assert other.evaluate(proposal) == evaluator.evaluate(proposal)
    supernet = other._supernet()[0] if kind == "one_shot" else other.inherited.shared.supernet
    places = {array.ctypes.data for array in held}
    assert all(tensor.data_ptr() in places for tensor in supernet.state_dict().values())
    for array, before in zip(held, pieces.tensors, strict=True):
        assert np.array_equal(array, before)


# -------------------------------------------------------------------------------------- on Ray


class Where:
    """Measures what memory its tensor lies in."""

    metrics = ()

    def __init__(self, tensor):
        self.tensor = tensor

    def __getstate__(self):
        return {"tensor": Shared(self.tensor)}

    def evaluate(self, proposal):
        place = self.tensor.data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            low, high = (int(edge, 16) for edge in words[0].split("-"))
            if low <= place < high:
                return Measured({}, notes={"sum": float(self.tensor.sum()), "map": line})
        return Measured({})

    def planned_epochs(self, fidelity):
        return 0.0


def test_workers_read_the_object_store_itself(local_ray):
    executor = RayExecutor()
    executor.submit(Where(torch.ones(100_000)), proposals(1)[0])
    outcome = executor.next().outcome
    executor.close()
    assert outcome.notes["sum"] == 100_000
    assert "plasma" in outcome.notes["map"] or "/dev/shm" in outcome.notes["map"]


def test_a_search_measures_the_same_to_the_bit(local_ray, everything_shared, trained):
    evaluator = Staged([CostEvaluator(SPACE), trained[1]], (maximize("accuracy"),))
    executor, here = RayExecutor(2), Serial()
    given, found = proposals(6), {}
    while given or not executor.idle:
        if given and executor.free:
            executor.submit(evaluator, given.pop(0))
        else:
            trial = executor.next()
            found[trial.number] = trial
    executor.close()
    assert len(found) == 6
    for proposal in proposals(6):
        here.submit(evaluator, proposal)
        assert found[proposal.number].outcome.values == here.next().outcome.values


def test_scores_are_the_same_rows_in_the_same_order(local_ray, trained, tmp_path):
    expected = score(inherited_of(trained), tmp_path / "one.jsonl", 9)
    inherited, executor = inherited_of(trained), RayExecutor(2)
    told = []
    assert score(inherited, tmp_path / "two.jsonl", 4, executor=executor) == expected[:4]
    found = score(
        inherited,
        tmp_path / "two.jsonl",
        9,
        on_row=lambda count, row: told.append((count, row)),
        executor=executor,
    )
    executor.close()
    assert found == expected
    assert told == list(enumerate(expected, start=1))[4:]
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


class Late:
    """An executor that ends trials in the wrong order, and one of them badly."""

    idle = False

    def __init__(self, bad=None):
        self.bad = bad
        self.waiting = []

    @property
    def free(self):
        return 3 - len(self.waiting)

    def submit(self, evaluator, proposal, earlier=None):
        assert self.free
        self.waiting.append((evaluator, proposal))

    def next(self):
        evaluator, proposal = self.waiting.pop()
        here = Serial()
        here.submit(evaluator, proposal)
        trial = here.next()
        if proposal.number == self.bad:
            return types.SimpleNamespace(
                number=proposal.number, outcome=Failed("memory", "there is none")
            )
        return trial


def test_rows_are_written_in_order_however_they_come(trained, tmp_path):
    expected = score(inherited_of(trained), tmp_path / "one.jsonl", 6)
    assert score(inherited_of(trained), tmp_path / "two.jsonl", 6, executor=Late()) == expected
    with pytest.raises(WorkerError, match=r"was not scored: .*there is none"):
        score(inherited_of(trained), tmp_path / "three.jsonl", 6, executor=Late(bad=4))
    whole = (tmp_path / "one.jsonl").read_bytes()
    assert whole.startswith((tmp_path / "three.jsonl").read_bytes())
    assert score(inherited_of(trained), tmp_path / "three.jsonl", 6) == expected


def test_the_command_scores_with_several_workers(local_ray, trained, tmp_path, nas):  # noqa: F811
    files = [str(tmp_path / name) for name in ("one.jsonl", "two.jsonl")]
    words = ["supernet", "score", str(trained[0]), "--rows", "10", "--recalibration", "2"]
    for file, workers in zip(files, ("1", "2"), strict=True):
        done = nas(*words, "--out", file, "--workers", workers, "--json")
        assert done.code == 0, done.err
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()
    refused = nas(*words, "--workers", "0")
    assert refused.code == 2

"""NAS-Bench-201's published values: the real table, and files that are not quite one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluators.tabular import TabularEvaluator
from nas.architecture import Architecture
from nas.budget import Cost
from nas.encoding import paths
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.evaluator import planned_epochs
from nas.space import enumerate_architectures
from nas.tables import load
from nas.testing import EvaluatorContract
from nas.trial import Fidelity, Infeasible, Measured, Proposal, Trial
from search_spaces.nasbench201 import OPERATIONS, NasBench201

SPACE = NasBench201()
LABELS = [choice.label for choice in SPACE.choices]


def architecture(row):
    picks = tuple((label, OPERATIONS[i]) for label, i in zip(LABELS, row, strict=True))
    return Architecture(SPACE.name, picks)


def small(**changes):
    """The arrays of such a file for 40 cells of made-up values."""
    rng = np.random.default_rng(0)
    ops = np.array(
        [[OPERATIONS.index(o) for _, o in arch.picks] for arch in enumerate_architectures(SPACE)]
    )[rng.permutation(15625)[:40]]
    ops[0] = [0, 0, 0, 0, 3, 3]  # leads nowhere: edges 1→3 and 2→3 of nodes that are zero
    arrays = {
        "ops": ops.astype(np.uint8),
        "op_names": np.array(OPERATIONS),
        "datasets": np.array(["cifar10", "cifar100"]),
        "val_acc_12": rng.uniform(10, 90, (40, 2)).astype(np.float32),
        "test_acc_12": rng.uniform(10, 90, (40, 2)).astype(np.float32),
        "test_acc_200": rng.uniform(10, 90, (40, 2)).astype(np.float32),
        "train_s_per_epoch_c10valid": rng.uniform(5, 10, 40).astype(np.float32),
        "params": rng.integers(7 * 10**4, 10**6, (40, 2)).astype(np.int32),
        "flops_m": rng.uniform(7, 200, (40, 2)).astype(np.float32),
        "latency_devices": np.array(["one", "two", "three"]),
        "latency_ms": rng.uniform(1, 9, (40, 3)).astype(np.float32),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def written(path, **changes):
    np.savez_compressed(path, **small(**changes))
    return str(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("tables") / "small.npz")


class TestPublished(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def _file(self, file):
        self.file = file

    def space(self):
        return SPACE

    def evaluator(self):
        return TabularEvaluator(SPACE, self.file, "cifar10", device="two")

    def proposals(self):
        return [
            Proposal(number, architecture(row), number)
            for number, row in enumerate(small()["ops"][:12])
        ]

    def test_a_continued_trial_measures_what_one_at_once_does(self):
        evaluator = TabularEvaluator(SPACE, self.file, "cifar10", report={"a": "test_accuracy"})
        arch = self.proposals()[1].arch
        first = Proposal(0, arch, 0, Fidelity(12))
        second = Proposal(1, arch, 0, Fidelity(200), continues=0)
        trial = Trial(first, evaluator.evaluate(first), Cost(1))
        outcome = evaluator.evaluate_from(second, trial)
        self._assert_same(outcome, evaluator.evaluate(second))
        # 12 and 200 epochs are trainings of their own: nothing was saved.
        assert outcome.cost == evaluator.evaluate(second).cost
        assert outcome.cost.epochs == 200
        assert planned_epochs(evaluator, Fidelity(200), Fidelity(12)) == 200
        assert "restarted" in outcome.notes


@pytest.mark.parametrize(("dataset", "column"), [("cifar10", 0), ("cifar100", 1)])
def test_values_and_seconds_are_the_arrays(file, dataset, column):
    arrays = small()
    validated = TabularEvaluator(SPACE, file, dataset)
    assert validated.planned_epochs(Fidelity()) == 12
    tested = TabularEvaluator(
        SPACE, file, dataset, report={"accuracy": "test_accuracy"}, device="three"
    )
    assert tested.planned_epochs(Fidelity()) == 200
    infeasible = []
    for index, row in enumerate(arrays["ops"]):
        proposal = Proposal(0, architecture(row))
        outcome = validated.evaluate(proposal)
        assert outcome.values["accuracy"] == arrays["val_acc_12"][index, column].item() / 100
        seconds = arrays["train_s_per_epoch_c10valid"][index].item()
        assert outcome.cost == Cost(0, 12 * (2 * seconds), 12)
        outcome = tested.evaluate(proposal)
        if isinstance(outcome, Infeasible):
            infeasible.append(index)
            continue
        test = arrays["test_acc_200"][index, column].item() / 100
        assert outcome.values["accuracy"] == test
        assert outcome.values["error"] == 1 - test
        assert outcome.values["parameters"] == arrays["params"][index, column]
        assert outcome.values["macs"] == round(1e6 * arrays["flops_m"][index, column].item())
        assert outcome.values["latency_ms"] == arrays["latency_ms"][index, 2].item()
        assert outcome.cost == Cost(0, 200 * (2 * seconds), 200)
        short = tested.evaluate(Proposal(0, proposal.arch, fidelity=Fidelity(12)))
        assert short.values["accuracy"] == arrays["test_acc_12"][index, column].item() / 100
    graphs = [SPACE.graphs(architecture(row))["cell"] for row in arrays["ops"]]
    assert infeasible == [index for index, graph in enumerate(graphs) if not paths(graph)]
    assert infeasible[0] == 0


def test_an_epoch_on_half_of_the_images_costs_half(tmp_path):
    names = np.array(["cifar10-valid", "ImageNet16-120"])
    path = written(tmp_path / "t.npz", datasets=names)
    seconds = load(path).seconds_per_epoch[:, :, 0]
    single = small()["train_s_per_epoch_c10valid"]
    assert seconds[0] == pytest.approx(single)
    assert seconds[1] == pytest.approx(single * 1.517, rel=1e-6)


def test_other_epochs_are_refused(file):
    with pytest.raises(ConfigError, match="after 100 epochs; the nearest is 12"):
        TabularEvaluator(SPACE, file, "cifar10", epochs=100)
    evaluator = TabularEvaluator(SPACE, file, "cifar10")
    arch = architecture(small()["ops"][1])
    with pytest.raises(UnsupportedRequest, match="after 200 epochs; the nearest is 12"):
        evaluator.evaluate(Proposal(0, arch, fidelity=Fidelity(200)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"datasets": np.array(["cifar10", "cifar11"])}, "'datasets' names 'cifar11'"),
        ({"datasets": None}, "no array 'datasets'"),
        ({"val_acc_12": None, "test_acc_12": None, "test_acc_200": None}, "no accuracies"),
        ({"val_acc_12": np.zeros((40, 3))}, r"'val_acc_12' has the shape \(40, 3\)"),
        ({"test_acc_200": np.full((40, 2), 101.0)}, "test_accuracy of row 0 is not from 0 to 100"),
        ({"test_acc_12": np.full((40, 2), math.nan)}, "test_accuracy of row 0 is not from 0"),
        ({"ops": np.full((40, 6), 5)}, "'picks' of '0->1'"),
        ({"ops": np.zeros((40, 6), int)}, "twice"),
        ({"ops": np.zeros((40, 5), int)}, r"'ops' has the shape \(40, 5\), expected \(N, 6\)"),
        ({"train_s_per_epoch_c10valid": None}, "no array 'train_s_per_epoch_c10valid'"),
        ({"params": np.zeros((39, 2), int)}, r"'params'.*expected \(40, 2\)"),
        ({"latency_devices": None}, "no array 'latency_devices'"),
        ({"latency_ms": np.zeros((40, 2))}, r"'latency_ms'.*expected \(40, 3\)"),
    ],
)
def test_files_that_are_not_quite_one_are_named(tmp_path, changes, says):
    path = written(tmp_path / "t.npz", **changes)
    with pytest.raises(DataError, match=says) as error:
        load(path)
    assert str(error.value).startswith(path)


# ---------------------------------------------------------------------------- the real table


@pytest.fixture(scope="module")
def real(benchmark_data):
    return str(benchmark_data("nb201.npz"))


def test_the_real_tables_optima_are_the_known_ones(real):
    every = list(enumerate_architectures(SPACE))
    for dataset, column, best, row in (("cifar10", 0, 94.373, 6111), ("cifar100", 1, 73.513, 9930)):
        evaluator = TabularEvaluator(SPACE, real, dataset, report={"accuracy": "test_accuracy"})
        with np.load(real) as arrays:
            ops, test = arrays["ops"], arrays["test_acc_200"][:, column]
        found = [evaluator.evaluate(Proposal(0, arch)).values["accuracy"] for arch in every]
        index = int(np.argmax(found))
        assert 100 * found[index] == pytest.approx(best, abs=1e-3)
        assert found[every.index(architecture(ops[row]))] == found[index]
        rows = {tuple(line): i for i, line in enumerate(ops.tolist())}
        for arch, accuracy in zip(every[::501], found[::501], strict=True):
            key = tuple(OPERATIONS.index(option) for _, option in arch.picks)
            assert accuracy == float(test[rows[key]]) / 100


def test_cells_that_lead_nowhere_are_infeasible_where_latency_counts(real):
    evaluator = TabularEvaluator(
        SPACE, real, "cifar10", report={"accuracy": "test_accuracy"}, device="pixel3"
    )
    without = TabularEvaluator(SPACE, real, "cifar10", report={"accuracy": "test_accuracy"})
    masked, latencies = 0, []
    for arch in enumerate_architectures(SPACE):
        outcome = evaluator.evaluate(Proposal(0, arch))
        if isinstance(outcome, Measured):
            latencies.append(outcome.values["latency_ms"])
            continue
        masked += 1
        assert without.evaluate(Proposal(0, arch)).values["accuracy"] == pytest.approx(0.1)
    assert masked == 341
    assert min(latencies) > 1  # the masked ones go down to 0.003 ms

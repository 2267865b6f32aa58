"""The ranking report: its statistics against brute force, its sources of truth, its command."""

from __future__ import annotations

import functools
import itertools
import json
import math

import numpy as np
import pytest

from evaluators.cost import CostEvaluator
from evaluators.one_shot import CHECKPOINT, OneShot
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas.budget import Budget
from nas.cli.rank import rank
from nas.cost import architecture_cost
from nas.data import digits
from nas.errors import ConfigError, DataError, NasError
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.ranking import (
    by_evaluator,
    by_table,
    paired,
    rank_agreement,
    ranking_png,
    top_recall,
)
from nas.search import search
from nas.space import enumerate_architectures, sample
from nas.supernet.training import PathSettings
from nas.testing.toys import FlatSpace, ToyEvaluator, toy_values
from nas.trial import Fidelity
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

DIGITS = functools.cache(digits)
SPACE = NasBench201(channels=2, cells=1, input=(1, 8, 8))
NAMES = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]


def noisy(count, noise, seed=0):
    rng = np.random.default_rng(seed)
    truths = rng.normal(size=count)
    return truths + noise * rng.normal(size=count), truths


# ------------------------------------------------------------------------------- statistics


def brute_kendall(x, y):
    """Kendall's τ-b of pairs counted one by one."""
    sign = [
        (np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    agreeing = sum(a * b for a, b in sign)
    return agreeing / math.sqrt(sum(a != 0 for a, _ in sign) * sum(b != 0 for _, b in sign))


def brute_spearman(x, y):
    """The correlation of ranks, equals having the mean of theirs."""
    ranks = [[sum(w < v for w in z) + (sum(w == v for w in z) - 1) / 2 for v in z] for z in (x, y)]
    return np.corrcoef(*ranks)[0, 1]


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_counted_by_hand(ties):
    scores, truths = noisy(40, 0.7, seed=1)
    if ties:
        scores, truths = np.round(scores), np.round(truths * 2)
    found = rank_agreement(scores.tolist(), truths.tolist(), resamples=20)
    assert found.kendall.value == pytest.approx(brute_kendall(scores, truths))
    assert found.spearman.value == pytest.approx(brute_spearman(scores, truths))
    assert 0.3 < found.kendall.value < found.spearman.value < 1


def test_recall_of_equals_is_the_mean_over_all_ways_to_break_ties():
    scores, truths = [1, 2, 2, 2, 3], [5, 4, 4, 1, 4]
    for k in (1, 2, 3, 4):
        found = []
        for a, b in itertools.product(itertools.permutations(range(5)), repeat=2):
            best = sorted(range(5), key=lambda i: (-scores[i], a[i]))[:k]
            true = sorted(range(5), key=lambda i: (-truths[i], b[i]))[:k]
            found.append(len(set(best) & set(true)) / k)
        assert top_recall(scores, truths, k) == pytest.approx(np.mean(found))
    assert top_recall([1, 2, 3, 4], [1, 2, 4, 3], 2) == 1.0
    assert top_recall([1, 2, 3, 4], [4, 3, 2, 1], 2) == 0.0


def test_perfect_and_reversed_rankings():
    truths = list(range(30))
    same = rank_agreement([10 * t for t in truths], truths, resamples=50)
    for found in (same.kendall, same.spearman):
        assert [found.value, found.low, found.high] == pytest.approx([1, 1, 1])
    assert {k: r.value for k, r in same.recall.items()} == {5: 1, 10: 1, 20: 1}
    turned = rank_agreement([-t for t in truths], truths, resamples=50)
    assert turned.kendall.value == pytest.approx(-1)
    assert turned.recall[10].value == 0


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    # Of a normal pair with correlation r, Kendall's τ is 2/π·asin r.
    noise = 0.8
    truth = 2 / math.pi * math.asin(1 / math.sqrt(1 + noise**2))
    held = 0
    for seed in range(60):
        found = rank_agreement(*map(list, noisy(60, noise, seed)), resamples=150, confidence=0.8)
        held += found.kendall.low <= truth <= found.kendall.high
    assert 36 <= held <= 58  # 48 expected; beyond four standard deviations otherwise


def test_more_pairs_make_narrower_intervals_and_a_seed_the_same():
    few, many = (
        rank_agreement(*map(list, noisy(count, 0.8)), resamples=200) for count in (25, 400)
    )
    widths = [found.kendall.high - found.kendall.low for found in (few, many)]
    assert widths[1] < widths[0] / 2.5
    again = rank_agreement(*map(list, noisy(25, 0.8)), resamples=200)
    assert again == few
    assert rank_agreement(*map(list, noisy(25, 0.8)), resamples=200, seed=1) != few
    assert set(few.recall) == {5, 10, 20}
    assert set(rank_agreement([1, 2, 3, 5], [1, 2, 3, 4], top=(1, 3, 4)).recall) == {1, 3}


@pytest.mark.parametrize(
    ("scores", "truths", "arguments", "error", "says"),
    [
        ([1, 2, 3], [1, 2], {}, ConfigError, "3 scores and 2 truths"),
        ([1, 2], [1, 2], {}, ConfigError, "three pairs"),
        ([1, 2, float("nan")], [1, 2, 3], {}, ConfigError, "pair 2 is not finite"),
        ([0.1] * 4, [1, 2, 3, 4], {}, NasError, "all 4 scores are 0.1"),
        ([1, 2, 3, 4], [7] * 4, {}, NasError, "all 4 truths are 7"),
        ([1, 2, 3], [1, 2, 3], {"confidence": 1.0}, ConfigError, "confidence"),
        ([1, 2, 3], [1, 2, 3], {"top": (0,)}, ConfigError, "k"),
        ([1, 2, 3], [1, 2, 3], {"resamples": 0}, ConfigError, "resamples"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, truths, arguments, error, says):
    with pytest.raises(error, match=says):
        rank_agreement(scores, truths, **arguments)


# --------------------------------------------------------------------------- scores, truths


def test_an_evaluators_metric_is_a_value_higher_being_better():
    space = FlatSpace()
    evaluator = ToyEvaluator(space)
    arch = sample(space, np.random.default_rng(3))
    assert by_evaluator(evaluator)(arch) == toy_values(space, arch)["score"]
    assert by_evaluator(evaluator, "cost")(arch) == -toy_values(space, arch)["cost"]
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        by_evaluator(evaluator, "scores")


def test_standalone_training_at_a_fidelity_is_a_truth():
    evaluator = TrainingEvaluator(SPACE, DIGITS(), data_fraction=0.1, keep_weights=False)
    arch = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    value = by_evaluator(evaluator, fidelity=Fidelity(epochs=1))
    assert 0 <= value(arch) <= 1
    assert value(arch) == value(arch)


def test_random_pairs_are_different_networks():
    space = FlatSpace()
    pairs = list(paired(space, lambda a: 1.0, lambda a: 2.0, 40, seed=1))
    assert len({space.canonical(pair.arch) for pair in pairs}) == 40
    assert all((pair.score, pair.truth) == (1.0, 2.0) for pair in pairs)
    again = list(paired(space, lambda a: 1.0, lambda a: 2.0, 10, seed=1))
    assert again == pairs[:10]
    assert list(paired(space, lambda a: 1.0, lambda a: 2.0, 10, seed=2)) != again
    with pytest.raises(ConfigError, match="48 architectures, asked for 49"):
        list(paired(space, lambda a: 1.0, lambda a: 2.0, 49))


def made_up_table(path, **changes):
    forms = {SPACE.canonical(arch): arch for arch in list(enumerate_architectures(SPACE))[::97]}
    archs = list(forms.values())
    content = {
        "ops": np.array([[NAMES.index(o) for _, o in a.picks] for a in archs], np.uint8),
        "op_names": np.array(NAMES),
        "datasets": np.array(["cifar10", "cifar100"]),
        "acc": np.arange(2.0 * len(archs)).reshape(-1, 2),
        "params": np.arange(len(archs)),
        "runs": np.zeros((len(archs), 3)),
        **changes,
    }
    np.savez(path, **{key: value for key, value in content.items() if value is not None})
    return archs


def test_tables_are_read_by_architecture(tmp_path):
    path = tmp_path / "t.npz"
    archs = made_up_table(path)
    value = by_table(path, SPACE, "acc", "cifar100")
    assert [value(arch) for arch in archs] == [2.0 * i + 1 for i in range(len(archs))]
    assert by_table(path, SPACE, "params")(archs[3]) == 3.0
    with pytest.raises(DataError, match="does not hold"):
        value(next(a for a in enumerate_architectures(SPACE) if a not in archs))
    text = tmp_path / "t.json"
    text.write_text(json.dumps({SPACE.format(arch): i for i, arch in enumerate(archs)}))
    assert by_table(text, SPACE)(archs[5]) == 5.0
    with pytest.raises(DataError, match="does not hold"):
        by_table(text, SPACE)(sample(SPACE, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("column", "dataset", "changes", "says"),
    [
        ("accc", "cifar10", {}, "did you mean 'acc'"),
        ("acc", "cifar1000", {}, "did you mean 'cifar100'"),
        ("runs", "cifar10", {}, "not one value a row"),
        ("acc", "cifar10", {"ops": None}, "has no 'ops'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, column, dataset, changes, says):
    path = tmp_path / "t.npz"
    made_up_table(path, **changes)
    with pytest.raises(DataError, match=says):
        by_table(path, SPACE, column, dataset)


@pytest.mark.parametrize(
    ("name", "content"), [("t.json", "[1]"), ("t.json", '{"x": 1}'), ("t.npz", "no"), ("t.npz", "")]
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, name, content):
    path = tmp_path / name
    with pytest.raises(DataError, match=r"t\.(json|npz)"):
        by_table(path, SPACE)
    path.write_text(content)
    with pytest.raises(DataError, match=r"t\.(json|npz)"):
        by_table(path, SPACE)


def test_parameters_rank_the_benchmark_as_is_known(benchmark_data):
    path = benchmark_data("nb201.npz")
    space = NasBench201()
    worth = by_table(path, space)
    assert worth(next(iter(enumerate_architectures(space)))) == pytest.approx(10.0, abs=0.5)
    counted = by_table(path, space, "params")
    arch = sample(space, np.random.default_rng(0))
    assert counted(arch) == architecture_cost(space, arch).parameters
    pairs = list(paired(space, counted, worth, 300))
    found = rank_agreement([p.score for p in pairs], [p.truth for p in pairs], resamples=50)
    # Published for parameter counts over the space: ρ about 0.75.
    assert 0.65 < found.spearman.value < 0.85


# ------------------------------------------------------------------------- report, command


def test_the_picture_is_a_png():
    pairs = list(paired(FlatSpace(), by_evaluator(ToyEvaluator(FlatSpace())), lambda a: 1.0, 10))
    agreement = rank_agreement(range(10), range(10), resamples=10)
    assert ranking_png(pairs, agreement, "score", "truth").startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of random search on a one-shot evaluator, behind a stage that costs."""
    folder = tmp_path_factory.mktemp("run")
    settings = PathSettings(epochs=2, batch_size=128, learning_rate=0.1)
    one_shot = OneShot(SPACE, DIGITS(), settings=settings, recalibration_batches=1, device="cpu")
    objectives = (maximize("accuracy"),)
    staged = Staged((CostEvaluator(SPACE), one_shot), objectives)
    strategy = RandomSearch(SPACE, objectives)
    list(search(strategy, staged, Serial(), Budget(trials=1), History(folder)))
    return folder


def settings_of(tmp_path, **changes):
    defaults = {
        "truth": None,
        "train": None,
        "column": "test_acc_200",
        "dataset": "cifar10",
        "count": 12,
        "seed": 0,
        "out": tmp_path / "out",
        "as_json": False,
    }
    return {**defaults, **changes}


def test_the_command_ranks_a_run_against_a_table(run, tmp_path, capfd):
    table = tmp_path / "macs.json"
    archs = [pair.arch for pair in paired(SPACE, lambda a: 0.0, lambda a: 0.0, 12, seed=4)]
    macs = {SPACE.format(arch): architecture_cost(SPACE, arch).macs for arch in archs}
    table.write_text(json.dumps(macs))
    checkpoint = (run / CHECKPOINT).read_bytes()
    rank(run, **settings_of(tmp_path, truth=table, seed=4))
    assert (run / CHECKPOINT).read_bytes() == checkpoint
    printed = capfd.readouterr().out
    assert "Kendall τ" in printed
    assert "12 random architectures" in printed
    document = json.loads((tmp_path / "out" / "ranking.json").read_text())
    assert document["count"] == len(document["pairs"]) == 12
    scores = [pair["score"] for pair in document["pairs"]]
    truths = [pair["truth"] for pair in document["pairs"]]
    assert document["kendall_tau"]["value"] == pytest.approx(brute_kendall(scores, truths))
    assert truths == list(map(float, macs.values()))
    assert (tmp_path / "out" / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_ranks_a_configuration_against_training_alone(tmp_path, capfd):
    config = tmp_path / "search.yaml"
    settings = {"epochs": 2, "batch_size": 128, "learning_rate": 0.1}
    document = {
        "data": "digits",
        "space": {"name": "nasbench201", "channels": 2, "cells": 1},
        "strategy": "random",
        "evaluator": {
            "name": "evaluators.one_shot:OneShot",
            "settings": settings,
            "checkpoint": str(tmp_path / "shared.safetensors"),
        },
        "objectives": ["maximize accuracy"],
        "budget": {"trials": 1},
    }
    config.write_text(json.dumps(document))
    rank(config, **settings_of(tmp_path, train=1, count=4, as_json=True))
    found = json.loads(capfd.readouterr().out)
    assert found["truth"] == "accuracy, trained alone for 1 epochs"
    assert found["count"] == 4
    assert -1 <= found["kendall_tau"]["value"] <= 1
    assert (tmp_path / "shared.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "says"), [({}, "give --truth FILE, or --train"), ({"train": 1, "truth": 1}, "give")]
)
def test_the_command_wants_one_truth(run, tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        rank(run, **settings_of(tmp_path, **changes))


def test_the_command_refuses_what_has_no_shared_weights(tmp_path):
    config = tmp_path / "search.yaml"
    document = {
        "space": "nasbench201",
        "strategy": "random",
        "evaluator": "cost",
        "objectives": ["minimize macs"],
        "budget": {"trials": 1},
    }
    config.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"\(cost\) has no shared weights"):
        rank(config, **settings_of(tmp_path, train=1))
    with pytest.raises(ConfigError, match="is not a run folder"):
        rank(tmp_path, **settings_of(tmp_path, train=1))

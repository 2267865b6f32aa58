"""LA-MCTS holds the strategy contract, and it is the algorithm that it says it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.svm import SVC

from nas.budget import Cost
from nas.encoding import one_hot, tokens
from nas.errors import ConfigError
from nas.objective import maximize
from nas.space import count as count_of
from nas.space import enumerate_architectures, sample
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, NestedSpace
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.la_mcts import SPLITS, LaMcts, LinearSplit, Node, linear_split, svm_split
from strategies.random_search import RandomSearch

SCORE = (maximize("score"),)


class TestLaNas(StrategyContract):
    trials = 24

    def strategy(self, space, objectives, seed):
        return LaMcts(space, objectives, seed, initial=5, rebuild_every=4, leaf_size=2)


@pytest.mark.slow
class TestLaMctsUnlisted(StrategyContract):
    trials = 12

    def spaces(self):
        return (NestedSpace(),)

    def strategy(self, space, objectives, seed):
        settings = {"initial": 4, "rebuild_every": 4, "leaf_size": 3, "enumerate_up_to": 0}
        return LaMcts(space, objectives, seed, split="svm", **settings)


# --------------------------------------------------------------------------------- splits


def encoded(space, archs):
    return np.array([one_hot(space, arch) for arch in archs], dtype=np.float64)


@pytest.mark.parametrize(
    ("make", "count"), [(linear_split, 15), (linear_split, 200), (svm_split, 60), (svm_split, 200)]
)
def test_a_split_puts_the_good_in_the_good_part(make, count):
    # The score is the sum of the picked positions: 12 on average, with a deviation of 3.5.
    space = NasBench201()
    rng = np.random.default_rng(0)
    train, test = ([sample(space, rng) for _ in range(n)] for n in (count, 300))
    values = np.array([score(space, arch) for arch in train])
    split = make(encoded(space, train), values / values.max(), 0)
    good = [split.good(tokens(space, arch)) for arch in test]
    unseen = np.array([score(space, arch) for arch in test])
    assert 0.1 < np.mean(good) < 0.9
    inside = np.array(good)
    assert unseen[inside].mean() > unseen[~inside].mean() + (2.0 if count == 200 else 1.0)


def score(space, arch):
    by_label = {choice.label: choice for choice in space.choices}
    return float(sum(by_label[label].index(option) for label, option in arch.picks))


def test_the_linear_split_is_ridge_regression_cut_at_the_mean():
    space = FlatSpace()
    rng = np.random.default_rng(1)
    for count in (6, 50):  # fewer trials than columns, and more: both systems give one solution
        archs = [sample(space, rng) for _ in range(count)]
        values = rng.random(count)
        model = Ridge(alpha=1.0).fit(encoded(space, archs), values)
        split = linear_split(encoded(space, archs), values, 0)
        every = list(enumerate_architectures(space))
        predicted = model.predict(encoded(space, every))
        clear = np.abs(predicted - values.mean()) > 1e-9
        assert clear.sum() > 50
        for arch, value in zip(every, predicted, strict=True):
            if abs(value - values.mean()) > 1e-9:
                assert split.good(tokens(space, arch)) == (value > values.mean())


def test_the_svm_split_decides_as_scikit_learns_machine_does():
    space = NasBench201()
    rng = np.random.default_rng(2)
    archs = [sample(space, rng) for _ in range(60)]
    rows, values = encoded(space, archs), np.array([score(space, arch) for arch in archs])
    split = svm_split(rows, values, 7)
    spread = np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean()) / values.std()
    labels = KMeans(2, n_init=10, random_state=7).fit_predict(np.c_[rows, spread * values])
    machine = SVC(kernel="rbf", gamma="auto", random_state=7).fit(rows, labels)
    others = [sample(space, rng) for _ in range(100)]
    expected = machine.decision_function(encoded(space, others))
    found = [split.decision(tokens(space, arch)) for arch in others]
    assert found == pytest.approx(expected, abs=1e-9)
    better = int(values[labels == 1].mean() > values[labels == 0].mean())
    good = [split.good(tokens(space, arch)) for arch in others]
    assert good == [bool(label == better) for label in machine.predict(encoded(space, others))]


@pytest.mark.parametrize("make", SPLITS.values(), ids=SPLITS)
def test_equal_values_are_not_split(make):
    space = FlatSpace()
    archs = list(enumerate_architectures(space))[::3]
    assert make(encoded(space, archs), np.full(len(archs), 0.5), 0) is None


# ------------------------------------------------------------------------------- the tree


def test_uct_by_hand():
    node = Node([], visits=8, measured=5, total=3.0)
    assert node.uct(20, 0.1) == pytest.approx(0.6 + 2 * 0.1 * math.sqrt(2 * math.log(20) / 8))
    assert node.uct(20, 0.0) == 0.6
    # The less visited of two with one mean comes first, its better child before the other.
    cut = LinearSplit([0.0], 1.0)
    rare = Node([], 5, 5, 2.5, cut, [Node([], 3, 3, 1.0), Node([], 2, 2, 1.5)])
    often = Node([], 15, 15, 7.5)
    root = Node([], 20, 20, 10.0, cut, [often, rare])
    leaves = list(root.leaves(0.1))
    assert [id(leaf) for leaf in leaves] == [id(rare.children[1]), id(rare.children[0]), id(often)]
    assert next(root.leaves(0.1)) is rare.children[1]


def grown(enumerate_up_to=0, split="linear", count=60, **settings):
    """A strategy whose tree has just been grown, and its space."""
    space = NasBench201()
    strategy = LaMcts(
        space, SCORE, 0, split=split, initial=count, enumerate_up_to=enumerate_up_to, **settings
    )
    for proposal in strategy.ask(count):
        value = {"score": score(space, proposal.arch)}
        strategy.tell(Trial(proposal, Measured(value), Cost(trials=1)))
    return strategy, space


@pytest.mark.parametrize("split", SPLITS)
def test_proposals_lie_in_the_leaf_that_uct_walks_to(split):
    strategy, space = grown(split=split, leaf_size=8)
    root = strategy._root
    assert len(list(root.nodes())) > 6
    for _ in range(40):
        leaf = root
        while leaf.children:
            leaf = max(leaf.children, key=lambda c, parent=leaf: c.uct(parent.visits, 0.1))
        before = leaf.visits
        (proposal,) = strategy.ask(1)
        assert list(root.path(tokens(space, proposal.arch)))[-1] is leaf
        assert leaf.visits == before + 1
    assert root.visits == 100


def test_a_node_is_what_was_measured_in_it():
    strategy, space = grown(leaf_size=8)
    root = strategy._root
    for node in root.nodes():
        values = [strategy._rank(strategy._trials[i][1]) for i in node.trials]
        assert (node.visits, node.measured) == (len(values), len(values))
        assert node.total == pytest.approx(sum(values))
        if node.children:
            good, bad = node.children
            assert sorted(good.trials + bad.trials) == sorted(node.trials)
    first, second, third = strategy.ask(3)
    path = list(root.path(tokens(space, first.arch)))
    before = [(node.measured, node.total) for node in path]
    strategy.tell(Trial(second, Failed("not finite", "score is nan"), Cost(trials=1)))
    strategy.tell(Trial(third, Infeasible("too big", {"score": 99.0}), Cost(trials=1)))
    assert [(node.measured, node.total) for node in path] == before
    strategy.tell(Trial(first, Measured({"score": 24.5}), Cost(trials=1)))
    assert [node.measured for node in path] == [measured + 1 for measured, _ in before]
    assert path[0].total == pytest.approx(before[0][1] + 1.0)  # above all: rank 1


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace()], ids=lambda space: space.name)
@pytest.mark.parametrize("enumerate_up_to", [0, 100])
def test_every_architecture_is_proposed_once(space, enumerate_up_to):
    settings = {"initial": 5, "rebuild_every": 6, "leaf_size": 3}
    strategy = LaMcts(space, SCORE, 1, enumerate_up_to=enumerate_up_to, **settings)
    proposals = []
    while asked := strategy.ask(4):
        for proposal in asked:
            proposals.append(proposal.arch)
            value = {"score": score(space, proposal.arch)} if proposal.number % 3 else None
            outcome = Measured(value) if value else Failed("memory", "none left")
            strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
    assert len(proposals) == count_of(space)
    assert set(proposals) == set(enumerate_architectures(space))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "svn"}, "did you mean 'svm'"),
        ({"exploration": -0.1}, "exploration must be zero or more, got -0.1"),
        ({"exploration": math.nan}, "got nan"),
        ({"leaf_size": 0}, "leaf_size must be at least 1, got 0"),
        ({"enumerate_up_to": -1}, "enumerate_up_to must be at least 0, got -1"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        LaMcts(FlatSpace(), SCORE, **arguments)


# ------------------------------------------------------------------------- on a real table


def test_it_beats_random_search_on_nasbench201(benchmark_data):
    # CIFAR-10, validation accuracy after 12 epochs, 10 seeds of 150; three of ten trials fail.
    space = NasBench201()
    with np.load(benchmark_data("nb201.npz")) as table:
        rows = {tuple(row): index for index, row in enumerate(table["ops"].tolist())}
        accuracy = table["val_acc_12"][:, 0]
    late, best = [], []
    for seed in range(10):
        runs = []
        for strategy in (LaMcts(space, SCORE, seed), RandomSearch(space, SCORE, seed)):
            found = []
            for _ in range(150):
                (proposal,) = strategy.ask(1)
                picks = tuple(choice.index(proposal.arch[choice.label]) for choice in space.choices)
                found.append(float(accuracy[rows[picks]]))
                failed = proposal.number % 10 in (2, 5, 7)
                outcome = (
                    Failed("not finite", "score is nan")
                    if failed
                    else Measured({"score": found[-1]})
                )
                strategy.tell(Trial(proposal, outcome, Cost(trials=1)))
            runs.append(found)
        late.append(np.subtract(*(np.median(run[75:]) for run in runs)))
        best.append(np.subtract(*map(max, runs)))
    # Measured: 5.6 (the median of the second half) and 0.27 (the best).
    assert np.mean(late) > 3
    assert np.mean(best) > 0.1

"""PNAS holds the contract, and on its own space its levels are those of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from nas.budget import Cost
from nas.errors import ConfigError
from nas.objective import maximize
from nas.space import enumerate_architectures, validate
from nas.testing import StrategyContract
from nas.testing.driving import drive
from nas.testing.toys import FlatSpace, NestedSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from search_spaces.pnas import Pnas as PnasSpace
from strategies.pnas import Pnas
from strategies.random_search import RandomSearch

SCORE = (maximize("score"),)
SMALL = {"members": 2, "units": 8, "epochs": 3}


class TestPnas(StrategyContract):
    trials = 14

    def strategy(self, space, objectives, seed):
        return Pnas(space, objectives, seed, beam=3, **SMALL)


def tell(strategy, proposal, score):
    outcome = Failed("exception", "no") if score is None else Measured({"score": score})
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def by_level(strategy, score):
    levels = {}
    while proposals := strategy.ask(10_000):
        for proposal in proposals:
            levels.setdefault(proposal.notes["level"], []).append(proposal)
            tell(strategy, proposal, score(proposal.arch))
    return levels


def blocks(arch):
    """Each block as the set of its two sides."""
    picks = list(arch.as_dict().values())
    return [
        tuple(sorted([(left, one), (right, other)]))
        for left, right, one, other in zip(*[iter(picks)] * 4, strict=True)
    ]


def worth(arch):
    """The longer the names of the operations the better, and a little noise."""
    noise = int(arch.digest()[:6], 16) / 16**6
    return noise + sum(len(operation) for block in blocks(arch) for _, operation in block)


@pytest.fixture(scope="module")
def search():
    """Three levels, and what the predictor said of all it ranked on each."""
    strategy = Pnas(PnasSpace(blocks=3), SCORE, beam=7, **SMALL)
    ranked = []
    predict = strategy._predict

    def spy(prefixes):
        said = predict(prefixes)
        ranked.append(dict(zip(prefixes, said.tolist(), strict=True)))
        return said

    strategy._predict = spy
    return by_level(strategy, worth), ranked


@pytest.fixture(scope="module")
def levels(search):
    return search[0]


def test_the_first_level_is_all_136_cells_of_one_block(levels):
    first = [proposal.arch for proposal in levels[1]]
    assert len(first) == 136
    assert len({tuple(blocks(arch)) for arch in first}) == 136
    assert set(first) == set(enumerate_architectures(PnasSpace(blocks=1)))


def test_each_later_level_is_a_beam_of_cells_grown_by_one_block(levels):
    assert [len(levels[level]) for level in sorted(levels)] == [136, 7, 7]
    for level in (2, 3):
        before = {tuple(blocks(proposal.arch)) for proposal in levels[level - 1]}
        for proposal in levels[level]:
            validate(PnasSpace(blocks=level), proposal.arch)
            assert tuple(blocks(proposal.arch)[:-1]) in before


def test_what_is_measured_is_what_the_predictor_ranks_first(search):
    levels, ranked = search
    # All 136 cells grow by every one of 300 blocks, the seven best by every one of 528.
    assert [len(said) for said in ranked] == [136 * 300, 7 * 528]
    for level, said in zip((2, 3), ranked, strict=True):
        chosen = [said[proposal.arch.picks] for proposal in levels[level]]
        assert chosen == sorted(said.values(), reverse=True)[:7]
        assert [proposal.notes["predicted"] for proposal in levels[level]] == chosen


def test_notes_tell_how_well_the_last_level_was_ranked(levels):
    assert all("rank_correlation" not in proposal.notes for proposal in levels[1] + levels[2])
    told = {proposal.notes["rank_correlation"] for proposal in levels[3]}
    assert len(told) == 1
    predicted = [proposal.notes["predicted"] for proposal in levels[2]]
    measured = [worth(proposal.arch) for proposal in levels[2]]
    spearman = pytest.importorskip("scipy.stats").spearmanr(predicted, measured).statistic
    assert told.pop() == pytest.approx(spearman)


def test_levels_wait_for_all_trials():
    strategy = Pnas(PnasSpace(blocks=2), SCORE, beam=4, most=500, **SMALL)
    first = strategy.ask(1000)
    assert len(first) == 136
    for proposal in first[:-1]:
        assert strategy.ask(5) == []
        tell(strategy, proposal, worth(proposal.arch))
    tell(strategy, first[-1], None)
    grown = strategy.ask(1000)
    assert len(grown) == 4
    # A cell that failed is not grown.
    assert first[-1].arch.picks not in [proposal.arch.picks[:4] for proposal in grown]


@pytest.mark.parametrize("space", [FlatSpace(), NestedSpace(), NasBench201()], ids=lambda s: s.name)
def test_elsewhere_prefixes_are_completed_and_nothing_is_asked_twice(space):
    strategy = Pnas(space, SCORE, seed=3, beam=4, **SMALL)
    made = []
    while len(made) < 90 and (proposals := strategy.ask(100)):
        for proposal in proposals:
            validate(space, proposal.arch)
            made.append(proposal)
            tell(strategy, proposal, toy_values(space, proposal.arch)["score"])
    archs = [proposal.arch for proposal in made]
    assert len(set(archs)) == len(archs) > 10
    # The first level holds every option of the first choice, and one completion of all of them.
    first = [proposal.arch for proposal in made if proposal.number < len(space.choices[0].options)]
    label = space.choices[0].label
    assert {arch[label] for arch in first} == set(space.choices[0].options)


def test_failed_trials_teach_nothing():
    space = NestedSpace()

    def score(proposal):
        values = toy_values(space, proposal.arch)["score"]
        if proposal.number % 3:
            return Measured({"score": values})
        return (
            Failed("not finite", "score is nan")
            if proposal.number % 2
            else Infeasible("cost is 9", {"score": 1e9})
        )

    strategy = Pnas(space, SCORE, beam=4, **SMALL)
    drive(strategy, 24, score)
    assert strategy._measured
    for _, arch, value in strategy._measured:
        assert value == toy_values(space, arch)["score"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"beam": 0}, "beam.*0"), ({"reader": "gru"}, "gru"), ({"step": 0}, "step.*0")],
)
def test_nonsense_is_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        Pnas(FlatSpace(), SCORE, **arguments)


def test_beats_random_search_on_the_real_table(benchmark_data):
    with np.load(benchmark_data("nb201.npz")) as table:
        accuracy = table["test_acc_200"][:, list(table["datasets"]).index("cifar100")]
        names, operations = [str(name) for name in table["op_names"]], table["ops"]
    space = NasBench201()
    labels = [choice.label for choice in space.choices]
    known = {
        tuple(zip(labels, (names[op] for op in row), strict=True)): float(value)
        for row, value in zip(operations, accuracy, strict=True)
    }

    def best_of_100(strategy):
        best = 0.0
        for _ in range(100):
            for proposal in strategy.ask(1):
                best = max(best, known[proposal.arch.picks])
                tell(strategy, proposal, known[proposal.arch.picks])
        return best

    settings = {"beam": 15, "members": 2, "units": 32}
    ours = [best_of_100(Pnas(space, SCORE, seed, **settings)) for seed in range(4)]
    random = [best_of_100(RandomSearch(space, SCORE, seed)) for seed in range(4)]
    assert np.mean(ours) > np.mean(random) + 0.3

"""Settings and rewards of Q-learning: the published schedules, shaping, the correction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nas.budget import Cost
from nas.cost import architecture_cost
from nas.encoding.graphs import CellGraph
from nas.errors import ConfigError, UnsupportedRequest
from nas.objective import maximize
from nas.space import parse, sample
from nas.testing.toys import FlatSpace
from nas.trial import Measured, Proposal, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.q_learning import QLearning
from strategies.q_rewards import SHAPES, corrected, density, density_of
from strategies.q_settings import BLOCKQNN, METAQNN, QSettings, epsilon_at
from strategies.random_search import RandomSearch

ACCURACY = (maximize("accuracy"),)
SMALL = NasBench201(channels=2, cells=1)
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"


# ----------------------------------------------------------------------------- schedules


def test_metaqnns_schedule():
    assert (METAQNN.learning_rate, METAQNN.discount) == (0.01, 1.0)
    assert (METAQNN.initial, METAQNN.draws) == (0.5, 100)
    epsilons = [epsilon_at(METAQNN.schedule, number) for number in range(3000)]
    expected = [1.0] * 1500
    for epsilon in (0.9, 0.8, 0.7):
        expected += [epsilon] * 100
    for epsilon in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        expected += [epsilon] * 150
    assert len(expected) == 2700
    assert epsilons == expected + [0.1] * 300


def test_blockqnns_schedule():
    assert (BLOCKQNN.learning_rate, BLOCKQNN.discount) == (0.01, 1.0)
    iterations = [95, 7, 7, 7, 10, 10, 10, 10, 10, 12]
    epsilons = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    expected = [e for e, n in zip(epsilons, iterations, strict=True) for _ in range(64 * n)]
    assert len(expected) == 64 * 178 == 11_392
    assert [epsilon_at(BLOCKQNN.schedule, number) for number in range(11_392)] == expected


@pytest.mark.parametrize("trials", [10, 27, 100, 300, 2700, 5400])
def test_a_schedule_is_scaled_to_the_search(trials):
    epsilons = [epsilon_at(METAQNN.schedule, number, trials) for number in range(trials)]
    assert epsilons == sorted(epsilons, reverse=True)
    done = 0
    for epsilon, models in METAQNN.schedule:
        done += models
        least = sum(e >= epsilon for e in epsilons)
        assert least == math.ceil(done * trials / 2700)
    whole = [epsilon_at(METAQNN.schedule, number) for number in range(2700)]
    assert epsilons == [whole[number * 2700 // trials] for number in range(trials)]


def test_proposals_note_the_epsilon_of_the_schedule():
    strategy = QLearning(NasBench201(), ACCURACY, trials=54)
    noted = [proposal.notes["epsilon"] for proposal in strategy.ask(60)]
    assert noted == [epsilon_at(METAQNN.schedule, number, 54) for number in range(60)]
    assert noted[29:33] == [1.0, 0.9, 0.9, 0.8]


# ------------------------------------------------------------------------------- rewards


def test_shapes_sum_to_the_reward():
    for steps in (1, 3, 6, 24):
        for reward in (0.93, -2.0, 0.0):
            for shape in SHAPES.values():
                parts = shape(reward, steps)
                assert len(parts) == steps
                assert math.fsum(parts) == pytest.approx(reward, abs=1e-15)
            assert SHAPES["final"](reward, steps) == [*([0.0] * (steps - 1)), reward]
            assert set(SHAPES["spread"](reward, steps)) == {reward / steps}


def test_density_is_links_by_vertices():
    line = CellGraph(("input", "a", "output"), frozenset({(0, 1), (1, 2)}))
    square = CellGraph(
        ("input", "a", "none", "b", "output"),
        frozenset({(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (1, 3)}),
    )
    assert density({"cell": line}) == 2 / 3
    assert density({"cell": square}) == 5 / 4
    assert density({"one": line, "other": square}) == 7 / 7
    assert density({"cell": CellGraph(("input", "none", "output"), frozenset({(0, 1)}))}) == 1 / 2


def test_the_correction_by_hand():
    # Four operations are there: in -> 3x3(0->1) -> skip(1->2) -> 3x3(2->3) -> out, and
    # in -> 1x1(0->3) -> out: 6 links, 6 vertices with input and output; one more has 8 by 7.
    arch = parse(SMALL, CELL)
    assert density_of(SMALL, arch) == 6 / 6
    more = parse(SMALL, CELL.replace("none~1", "skip_connect~1"))
    assert density_of(SMALL, more) == 8 / 7
    expected = 0.9 - 0.02 * 13.815510557964274 - 0.5 * 0.13353139262452263  # ln 1e6, ln 8/7
    assert corrected(0.9, 1e6, 8 / 7, 0.02, 0.5) == pytest.approx(expected, abs=1e-12)
    assert corrected(0.9, 0.0, 0.5, 0.02, 0.0) == 0.9

    settings = replace(BLOCKQNN, flops_weight=0.02, density_weight=0.5)
    strategy = QLearning(SMALL, ACCURACY, settings=settings)
    macs = architecture_cost(SMALL, more).macs
    for values, count in (({"accuracy": 0.9}, macs), ({"accuracy": 0.9, "macs": 1e6}, 1e6)):
        strategy.tell(Trial(Proposal(0, more), Measured(values), Cost(trials=1)))
        reward = strategy.state_dict()["memory"][-1][1]
        by_hand = 0.9 - 0.02 * math.log(count) - 0.5 * math.log(8 / 7)
        assert reward == pytest.approx(by_hand, abs=1e-12)


def test_every_cell_has_a_finite_reward():
    rng = np.random.default_rng(0)
    empty = parse(SMALL, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    for arch in [empty, *(sample(SMALL, rng) for _ in range(200))]:
        assert math.isfinite(corrected(0.5, 0.0, density_of(SMALL, arch), 1.0, 1.0))
        assert 0 < density_of(SMALL, arch) <= 10 / 8  # with all six edges


def test_density_needs_cells():
    settings = replace(BLOCKQNN, density_weight=0.1)
    with pytest.raises(UnsupportedRequest, match="'flat/v1' is not made of cells"):
        QLearning(FlatSpace(), ACCURACY, settings=settings)


# ------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"schedule": ()}, "schedule must be pairs"),
        ({"schedule": ((1.5, 10),)}, "1.5"),
        ({"schedule": ((0.5, 0),)}, "schedule must be pairs"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": 1.5}, "got 1.5"),
        ({"discount": 1.1}, "discount must be from 0 to 1"),
        ({"initial": math.nan}, "initial must be finite"),
        ({"draws": -1}, "draws must be 0 or more, got -1"),
        ({"window": -1}, "window must be 0 or more"),
        ({"shape": "spred"}, "spread"),
        ({"flops_weight": -0.1}, "flops_weight must be 0 or more"),
        ({"density_weight": math.inf}, "density_weight must be 0 or more"),
    ],
)
def test_settings_are_checked(arguments, says):
    with pytest.raises(ConfigError, match=says):
        QSettings(**arguments)


# ------------------------------------------------------------------------- on a real table


@pytest.fixture(scope="module")
def accuracies(benchmark_data):
    with np.load(benchmark_data("nb201.npz")) as table:
        rows = {tuple(row): index for index, row in enumerate(table["ops"].tolist())}
        return rows, table["test_acc_200"][:, list(table["datasets"]).index("cifar100")] / 100


def run_on_table(strategy, accuracies, trials):
    rows, values = accuracies
    positions = [{o: i for i, o in enumerate(c.options)} for c in strategy.space.choices]
    found = []
    for _ in range(trials):
        (proposal,) = strategy.ask(1)
        picks = (option for _, option in proposal.arch.picks)
        row = tuple(by[option] for by, option in zip(positions, picks, strict=True))
        found.append(float(values[rows[row]]))
        strategy.tell(Trial(proposal, Measured({"accuracy": found[-1]}), Cost(trials=1)))
    return np.array(found)


@pytest.mark.parametrize(("settings", "margin"), [(METAQNN, 0.02), (BLOCKQNN, 0.05)])
def test_late_models_beat_early_ones_on_nasbench201(accuracies, settings, margin):
    # CIFAR-100, 200 epochs: of 300 models the first 150 are random, the last 50 of ε 0.3 and less.
    space = NasBench201()
    runs = np.array(
        [
            run_on_table(QLearning(space, ACCURACY, seed, 300, settings), accuracies, 300)
            for seed in range(10)
        ]
    )
    gained = runs[:, -50:].mean(axis=1) - runs[:, :150].mean(axis=1)
    assert gained.mean() > margin
    assert (gained > 0).sum() >= 8
    random = np.array(
        [run_on_table(RandomSearch(space, ACCURACY, seed), accuracies, 300) for seed in range(10)]
    )
    assert runs[:, -50:].mean() > random[:, -50:].mean() + margin / 2

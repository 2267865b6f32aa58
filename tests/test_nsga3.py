"""NSGA-III normalises, associates and fills niches as its paper says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.budget import Cost
from nas.draws import Draws
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.pareto import non_dominated, reference_directions
from nas.testing import StrategyContract
from nas.testing.toys import FlatSpace, toy_values
from nas.trial import Failed, Infeasible, Measured, Trial
from search_spaces.nasbench201 import NasBench201
from strategies.nsga3 import Nsga3, associated, by_niches, normalised

TWO = (maximize("score"), minimize("cost"))


class TestNsga3(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Nsga3(space, objectives, seed, divisions=5)


def told(strategy, proposal, outcome):
    strategy.tell(Trial(proposal, outcome, Cost(trials=1)))


def rows(*numbers):
    return np.array(numbers, dtype=np.intp)


def test_points_go_to_the_direction_they_are_nearest_to():
    directions = reference_directions(3, 4)
    points = np.random.default_rng(0).random((40, 3))
    nearest, distance = associated(points, directions)
    for point, place, found in zip(points, nearest, distance, strict=True):
        away = []
        for direction in directions:
            unit = direction / np.linalg.norm(direction)
            away.append(np.linalg.norm(point - (point @ unit) * unit))
        assert place == np.argmin(away)
        assert found == pytest.approx(min(away))


def test_intercepts_are_those_of_the_plane_through_the_extreme_points():
    # On the plane x/2 + y/4 + z/8 = 1, moved by the ideal point: shares add up to one.
    rng = np.random.default_rng(1)
    shares = np.vstack([np.eye(3), rng.dirichlet(np.ones(3), 20)])
    ideal = np.array([10.0, -3.0, 0.5])
    points = ideal + shares * [2.0, 4.0, 8.0]
    assert normalised(points, ideal) == pytest.approx(shares)


def test_what_spans_no_plane_is_scaled_by_its_worst():
    points = np.array([[0.0, 0.0], [3.0, 5.0]])
    assert normalised(points, np.zeros(2)) == pytest.approx(np.array([[0.0, 0.0], [1.0, 1.0]]))
    flat = np.array([[0.0, 2.0], [4.0, 2.0]])  # one objective does not differ at all
    assert normalised(flat, np.array([0.0, 2.0])) == pytest.approx(np.array([[0, 0], [1, 0]]))


def test_niches_are_filled_from_the_emptiest_by_hand():
    # Directions (0,1), (½,½), (1,0). Kept: three near the first. Of the front, two are near the
    # second and two near the third; there is room for two, so one of each: the one that is
    # nearest to its direction.
    first, second = [[0.0, 1.0], [0.02, 0.97], [0.05, 0.9]], [[0.55, 0.5], [0.5, 0.65]]
    third, late = [[1.0, 0.0], [0.9, 0.2]], [[0.03, 1.0]]
    points = np.array([*first, *second, *third, *late])
    directions = reference_directions(2, 2)
    for seed in range(20):
        kept, front = rows(0, 1, 2), rows(3, 4, 5, 6, 7)
        taken = by_niches(points, kept, front, 2, np.zeros(2), directions, Draws(seed))
        assert set(taken.tolist()) == {3, 5}
    # With room for four the second and the third get both of theirs before the first gets any.
    taken = by_niches(points, kept, front, 4, np.zeros(2), directions, Draws(0))
    assert set(taken.tolist()) == {3, 4, 5, 6}
    taken = by_niches(points, kept, front, 5, np.zeros(2), directions, Draws(0))
    assert sorted(taken.tolist()) == [3, 4, 5, 6, 7]
    # With room for one it is either niche's, by a fair draw.
    first = [
        by_niches(points, kept, front, 1, np.zeros(2), directions, Draws(seed)).tolist()[0]
        for seed in range(400)
    ]
    assert set(first) == {3, 5}
    assert abs(first.count(3) - 200) < 4.5 * 10


@pytest.mark.parametrize(
    ("objectives", "divisions", "size"), [(3, 12, 92), (2, 12, 16), (2, 99, 100), (1, 12, 4)]
)
def test_the_population_has_a_member_a_direction(objectives, divisions, size):
    metrics = tuple(minimize(f"m{i}") for i in range(objectives))
    strategy = Nsga3(NasBench201(), metrics, 0, divisions)
    for proposal in strategy.ask(size):
        assert strategy.state_dict()["parents"] == []
        values = {metric.metric: float(proposal.number) for metric in metrics}
        told(strategy, proposal, Measured(values))
    assert len(strategy.state_dict()["parents"]) == size


def test_the_front_that_was_found_is_kept():
    # Three objectives, and room for more than the front: no member of it is ever lost.
    space = FlatSpace()
    objectives = (maximize("score"), minimize("cost"), minimize("width"))
    strategy = Nsga3(space, objectives, 0, divisions=6)
    points = {}
    for _ in range(60):
        (proposal,) = strategy.ask(1)
        width = {"width": float(proposal.arch["width"])}
        values = toy_values(space, proposal.arch) | width
        points[proposal.number] = (-values["score"], values["cost"], values["width"])
        told(strategy, proposal, Measured(values))
    state = strategy.state_dict()
    selected = 60 - len(state["offspring"])
    numbers = [number for number in points if number < selected]
    best = non_dominated([points[number] for number in numbers])
    front = {number for number, kept in zip(numbers, best, strict=True) if kept}
    parents = {member[0] for member in state["parents"]}
    assert len(front) < len(parents)
    assert front <= parents
    assert state["ideal"] == [min(points[n][i] for n in numbers) for i in range(3)]


def test_limits_come_before_directions_and_failures_leave_nothing_behind():
    space = FlatSpace()
    objectives = (maximize("score"), minimize("cost", limit=5.0))
    strategy = Nsga3(space, objectives, 0, divisions=3)  # 4 directions, 4 members
    outcomes = [
        Infeasible("cost is 9", {"cost": 9.0}),
        Failed("not finite", "score is nan"),
        Infeasible("it says so"),
        Measured({"score": 3.0, "cost": 4.0}),
        Measured({"score": 2.0, "cost": 3.0}),
    ]
    for proposal, outcome in zip(strategy.ask(5), outcomes, strict=True):
        told(strategy, proposal, outcome)
    broken = {member[0]: member[-1] for member in strategy.state_dict()["parents"]}
    assert broken == {0: 0.8, 2: math.inf, 3: 0.0, 4: 0.0}
    assert strategy.state_dict()["ideal"] == [-3.0, 3.0]
    for proposal in strategy.ask(4):
        told(strategy, proposal, Infeasible("cost is 6", {"cost": 6.0}))
    # Those that keep the limit stay; beside them the two that break it by least.
    broken = sorted(member[-1] for member in strategy.state_dict()["parents"])
    assert broken == pytest.approx([0.0, 0.0, 0.2, 0.2])


def test_it_starts_from_what_is_given():
    space = NasBench201()
    text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    first, second = Nsga3(space, TWO, 0, initial=[text]).ask(2)
    assert isinstance(first.arch, Architecture)
    assert space.format(first.arch) == text
    assert space.format(second.arch) != text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"divisions": 0}, "divisions.*got 0"),
        ({"population_size": 0}, "population_size.*got 0"),
        ({"crossover_rate": -1.0}, "crossover_rate.*-1"),
    ],
)
def test_nonsense_is_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Nsga3(FlatSpace(), TWO, **arguments)

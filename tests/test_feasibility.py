"""Limits decided before any work, and the end of a search in which nothing is feasible."""

from __future__ import annotations

import pytest

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from nas.budget import Budget, Cost
from nas.errors import InfeasibleLimit
from nas.execution.serial import Serial
from nas.feasibility import check_limits
from nas.history import History
from nas.objective import maximize, minimize
from nas.search import search
from nas.testing.toys import ToyEvaluator
from nas.trial import Fidelity, Infeasible, Measured, Proposal
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

SPACE = NasBench201(channels=2, cells=1, input=(1, 8, 8))
SMALLEST = SPACE.parameters_and_macs(SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))


def test_a_limit_few_architectures_meet_is_found_by_climbing() -> None:
    # 3⁶ of 15,625 cells have no convolution: random draws would need luck.
    strategy = RandomSearch(SPACE, [minimize("parameters", limit=SMALLEST[0])])
    check_limits(strategy, CostEvaluator(SPACE))


def test_a_limit_none_meets_names_the_nearest_miss() -> None:
    strategy = RandomSearch(SPACE, [minimize("parameters", limit=SMALLEST[0] - 1)])
    with pytest.raises(InfeasibleLimit, match=f"parameters is {SMALLEST[0]}"):
        check_limits(strategy, CostEvaluator(SPACE))
    history = History()
    with pytest.raises(InfeasibleLimit):
        next(search(strategy, CostEvaluator(SPACE), Serial(), Budget(trials=3), history))
    assert history.header is None


def test_a_limit_on_what_needs_training_is_left_to_the_search() -> None:
    strategy = RandomSearch(SPACE, [maximize("score", limit=1e9)])
    check_limits(strategy, ToyEvaluator(SPACE))


def test_infeasible_architectures_cost_no_trial_of_the_budget() -> None:
    objectives = [minimize("macs", limit=SMALLEST[1] + 5000)]
    evaluator = Staged([CostEvaluator(SPACE)], objectives)
    history = History()
    strategy = RandomSearch(SPACE, objectives, seed=1)
    trials = list(search(strategy, evaluator, Serial(), Budget(trials=5), history))
    measured = [trial for trial in trials if isinstance(trial.outcome, Measured)]
    infeasible = [trial for trial in trials if isinstance(trial.outcome, Infeasible)]
    assert len(measured) == 5 == history.spent.trials
    assert infeasible
    assert all(trial.values["macs"] <= SMALLEST[1] + 5000 for trial in measured)


class Trained:
    """Trains for an epoch, and then breaks a limit."""

    metrics = ToyEvaluator(SPACE).metrics

    def evaluate(self, proposal: Proposal) -> Infeasible:
        return Infeasible("not good enough", cost=Cost(epochs=1))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 1.0


def test_what_was_trained_before_it_broke_a_limit_costs_a_trial() -> None:
    history = History()
    strategy = RandomSearch(SPACE, [maximize("score")])
    trials = list(search(strategy, Trained(), Serial(), Budget(trials=3), history))
    assert len(trials) == 3
    assert history.spent.epochs == 3

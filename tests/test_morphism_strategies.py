"""Searches that grow networks, end to end: children inherit, are trained, and a run resumes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from evaluators.inherited import InheritedTraining
from nas.budget import Budget
from nas.data import digits
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.search import search
from nas.testing.compare import first_difference
from nas.training import DEFAULT_RECIPE
from search_spaces.grown_chain import GrownChain
from strategies.eas import Eas
from strategies.eas_policy import EasSettings
from strategies.large_scale_evolution import LargeScaleEvolution
from strategies.nash import Nash

SPACE = GrownChain(5, (3,), (4, 8, 16), strides=(1, 2), spans=(1,), input=(1, 8, 8))
START = "depth=1 layer0/kind=conv layer0/kernel=3 layer0/width=4 layer0/stride=1 layer0/skip=0"
ACCURACY = (maximize("accuracy"),)
STRATEGIES = {
    "nash": lambda: Nash(SPACE, ACCURACY, 1, 3, 1, epochs=1, start_epochs=1, initial=[START]),
    "eas": lambda: Eas(
        SPACE,
        ACCURACY,
        1,
        initial=[START],
        settings=EasSettings(4, 6, wider_steps=1, deeper_steps=1, batch=3),
    ),
    "large_scale_evolution": lambda: LargeScaleEvolution(SPACE, ACCURACY, 1, 3, 0.05),
}


def trials_of(name, history, most=7):
    recipe = replace(DEFAULT_RECIPE, batch_size=256)
    evaluator = InheritedTraining(SPACE, digits(), 1, data_fraction=0.4, recipe=recipe)
    return search(STRATEGIES[name](), evaluator, Serial(), Budget(trials=most), history)


@pytest.mark.parametrize("name", STRATEGIES)
def test_children_are_trained_from_their_parents_weights(name, tmp_path):
    trials = list(trials_of(name, History(tmp_path / "whole")))
    assert len(trials) == 7
    known = {trial.number: trial for trial in trials}
    children = [trial for trial in trials if trial.proposal.parent is not None]
    assert len(children) > 2
    for child in children:
        inherited = child.notes["inherited"]
        assert inherited["parent"] == child.proposal.parent
        parent = known[child.proposal.parent]
        if name != "large_scale_evolution" or parent.arch == child.arch:
            assert inherited["preserved"], f"{parent.arch} to {child.arch}"
            # Its loss is at once about where its parent's training ended.
            assert child.notes["curve"][0] < parent.notes["curve"][0] + 0.05
    first = list(itertools.islice(trials_of(name, History(tmp_path / "broken")), 4))
    rest = list(trials_of(name, History(tmp_path / "broken")))
    again = [(trial.proposal, trial.values) for trial in first + rest]
    assert not first_difference(again, [(trial.proposal, trial.values) for trial in trials])

"""DARTS, PC-DARTS and what can be put around them hold the strategy contract."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from gradient_workloads import Edges, GradientContract, described, quick

from nas.components import create, describe
from nas.cost import parameters_and_macs
from nas.errors import ConfigError, UnsupportedRequest
from nas.objective import maximize, minimize
from nas.space import validate
from search_spaces.darts import Darts as DartsSpace
from search_spaces.nasbench201 import NasBench201
from strategies.beta_darts import BetaDarts
from strategies.darts import SETTINGS, Darts
from strategies.drnas import DrNas
from strategies.gdas import Gdas
from strategies.guards import Guards, most_skips
from strategies.hardware import Penalty
from strategies.pc_darts import PcDarts
from strategies.snas import Snas

SCORE = (maximize("score"),)


class TestDarts(GradientContract):
    kind = Darts


class TestDartsOfSecondOrder(GradientContract):
    kind = Darts

    def arguments(self):
        return {"order": 2}


class TestPcDarts(GradientContract):
    kind = PcDarts

    def arguments(self):
        return {"parts": 2}


@pytest.mark.slow
class TestGuarded(GradientContract):
    """With everything that can be put around a strategy."""

    kind = Darts

    def arguments(self):
        guards = Guards(max_skips=1, stop_skips=3, growth=50.0, window=2, delta=1, start=2)
        return {"penalty": Penalty(macs=0.5), "guards": guards}


# ------------------------------------------------------------------------------- the frame


def test_an_ask_advances_by_the_epochs_asked_for_and_ends_with_the_search():
    strategy = Darts(Edges(), SCORE, described(), settings=quick(SETTINGS), propose_every=4)
    found = [strategy.ask(3) for _ in range(3)]
    assert [len(proposals) for proposals in found] == [1, 1, 0]
    assert [proposals[0].spent.epochs for proposals in found[:2]] == [4.0, 2.0]
    with pytest.raises(ConfigError, match="propose_every must be at least 1, got 0"):
        Darts(Edges(), SCORE, described(), propose_every=0)


def test_second_order_is_charged_for_its_passes():
    strategy = Darts(Edges(), SCORE, described(), settings=quick(SETTINGS), order=2)
    assert strategy.ask(1)[0].spent.epochs == 2.5


def test_settings_that_are_not_given_are_the_strategys_own():
    description = {
        "name": "strategies.pc_darts:PcDarts",
        "space": {"name": "gradient_workloads:Edges"},
        "objectives": [{"maximize": "score"}],
        "data": {"name": "gradient_workloads:patterns"},
        "settings": {"epochs": 20},
        "guards": {"max_skips": 1},
    }
    strategy = create("strategies", description, "strategy")
    assert strategy.settings == replace(PcDarts.settings, epochs=20)
    assert strategy.settings.arch_lr == 6e-4
    assert strategy.guards == Guards(max_skips=1)
    again = create("strategies", json.loads(json.dumps(describe(strategy))), "strategy")
    assert again.settings == strategy.settings
    with pytest.raises(ConfigError, match=r"batchsize.*batch_size"):
        create("strategies", {**description, "settings": {"batchsize": 3}}, "strategy")


# ------------------------------------------------------------------------ the papers' spaces

EVERY = {
    Darts: {},
    PcDarts: {"parts": 2},
    Gdas: {},
    Snas: {},
    DrNas: {},
    BetaDarts: {},
}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "space",
    [NasBench201(channels=4, cells=1, input=(3, 8, 8)), DartsSpace(4, 3, input=(3, 8, 8))],
    ids=lambda space: space.name,
)
def test_every_strategy_searches_the_papers_spaces(kind, space):
    strategy = kind(
        space,
        (maximize("score"), minimize("parameters", limit=20_000)),
        described((3, 8, 8), examples=12, classes=10),
        settings=quick(kind.settings, epochs=2),
        guards=Guards(max_skips=1),
        penalty=Penalty(parameters=0.1),
        **EVERY[kind],
    )
    before = {label: p.detach().clone() for label, p in strategy._run.search.parameters.items()}
    (proposal,) = strategy.ask(1)
    validate(space, proposal.arch)
    assert most_skips(space, proposal.arch, strategy.guards) <= 1
    assert parameters_and_macs(space, proposal.arch)[0] <= 20_000
    after = strategy._run.search.parameters
    assert all(not torch.equal(before[label], p) for label, p in after.items())


def test_the_eigenvalue_guard_runs_on_the_darts_space():
    guards = Guards(growth=1e9, window=1, delta=1, start=0)
    data = described((3, 4, 4), examples=8, classes=10)
    space = DartsSpace(2, 3, input=(3, 4, 4), nodes=2)
    strategy = Darts(space, SCORE, data, settings=quick(SETTINGS, epochs=2), guards=guards)
    strategy.ask(1)
    strategy.ask(1)
    values = strategy._run.watch.eigenvalues
    assert len(values) == 2
    assert all(math.isfinite(value) for value in values)
    assert any(value != 0 for value in values)


def test_a_network_without_normal_cells_is_not_searched():
    space = DartsSpace(4, 2, input=(3, 8, 8))
    with pytest.raises(UnsupportedRequest, match="no weights for normal cells"):
        Darts(space, SCORE, described((3, 8, 8), classes=10))

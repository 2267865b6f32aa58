"""Both variants of Q-learning hold the contract, on the toys and where they are at home."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.testing import StrategyContract
from search_spaces.metaqnn import MetaQnn
from search_spaces.nasbench201 import NasBench201
from strategies.q_learning import QLearning
from strategies.q_settings import BLOCKQNN, METAQNN


class TestMetaQnn(StrategyContract):
    trials = 24

    def strategy(self, space, objectives, seed):
        settings = replace(METAQNN, draws=10)
        return QLearning(space, objectives, seed, trials=24, settings=settings)


class TestMetaQnnOnItsOwnSpace(StrategyContract):
    trials = 16

    def spaces(self):
        return (MetaQnn(layers=4, widths=(2, 4), dense=(5, 4), classes=3, input=(1, 9, 7)),)

    def strategy(self, space, objectives, seed):
        settings = replace(METAQNN, draws=10)
        return QLearning(space, objectives, seed, trials=16, settings=settings)


class TestBlockQnn(StrategyContract):
    trials = 24

    def strategy(self, space, objectives, seed):
        settings = replace(BLOCKQNN, draws=10)
        return QLearning(space, objectives, seed, trials=24, settings=settings)


@pytest.mark.slow
class TestBlockQnnWithCorrectedRewards(StrategyContract):
    trials = 16

    def spaces(self):
        return (NasBench201(channels=2, cells=1),)

    def strategy(self, space, objectives, seed):
        settings = replace(BLOCKQNN, draws=10, flops_weight=0.01, density_weight=0.1)
        return QLearning(space, objectives, seed, trials=16, settings=settings)

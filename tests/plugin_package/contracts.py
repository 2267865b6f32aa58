"""The package's own tests: what nas.testing asks of its parts."""

from __future__ import annotations

from funnels.data import stripes
from funnels.evaluator import GradientNorm
from funnels.space import Funnel
from funnels.strategy import HillClimbing

from nas.testing import EvaluatorContract, SpaceContract, StrategyContract
from nas.testing.toys import FlatSpace, NestedSpace


class TestFunnel(SpaceContract):
    def space(self):
        return Funnel()

    small = space


class TestHillClimbing(StrategyContract):
    def spaces(self):
        return (FlatSpace(), NestedSpace(), Funnel())

    def strategy(self, space, objectives, seed):
        return HillClimbing(space, objectives, seed, warmup=3)


class TestGradientNorm(EvaluatorContract):
    def space(self):
        return Funnel()

    def evaluator(self):
        return GradientNorm(self.space(), batch=4)


def test_stripes():
    data = stripes(20)
    assert data.input == (1, 6, 6)
    assert [label for _, label in data.train] == [0, 1] * 10

from __future__ import annotations
from nas.testing import StrategyContract
from nas.testing.toys import Uniform
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution
class TestUniformContract(StrategyContract):
    def strategy(self, space, objectives, seed):
        return Uniform(space, objectives, seed)
class TestRandomSearchContract(StrategyContract):
    def strategy(self, space, objectives, seed):
        return RandomSearch(space, objectives, seed)
class TestRegularizedEvolutionContract(StrategyContract):
    def strategy(self, space, objectives, seed):
        return RegularizedEvolution(space, objectives, seed, population_size=6, sample_size=3)

"""The built-in evaluators, and the toy that strategies are tested with, hold their contract."""

from __future__ import annotations

from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, ToyEvaluator


class TestToyEvaluator(EvaluatorContract):
    def space(self):
        return FlatSpace()

    def evaluator(self):
        return ToyEvaluator(self.space())

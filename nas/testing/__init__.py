"""Contract suites: what every space, strategy, evaluator and executor has to hold.

They test the built-in ones, and they test yours. Subclass the contract in a test module, name
the class ``Test…`` so that pytest collects it, and give the factories that it asks for::

    from nas.testing import SpaceContract, StrategyContract

    class TestMySpace(SpaceContract):
        def space(self):
            return MySpace()

        def small(self):
            return MySpace(depths=(1, 2))  # small enough to be listed

    class TestMyStrategy(StrategyContract):
        def strategy(self, space, objectives, seed):
            return MyStrategy(space, objectives, seed, population_size=4)

What a contract asks is in the names and docstrings of its tests. The module with the tested
class has to be importable from ``sys.path``: some laws are checked in another process, and what
crosses to it is the description that a configuration file would hold.

``nas.testing.toys`` has small spaces, evaluators and a strategy to test against. The contracts
need pytest; the toys do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "EvaluatorContract": "nas.testing.evaluator",
    "ExecutorContract": "nas.testing.executor",
    "SpaceContract": "nas.testing.space",
    "StrategyContract": "nas.testing.strategy",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from nas.testing.evaluator import EvaluatorContract as EvaluatorContract
    from nas.testing.executor import ExecutorContract as ExecutorContract
    from nas.testing.space import SpaceContract as SpaceContract
    from nas.testing.strategy import StrategyContract as StrategyContract


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nas.testing' has no attribute {name!r}")
    import pytest

    # So that a failed assert of a contract shows its values, as one of a test module does.
    pytest.register_assert_rewrite(_HOME[name])
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

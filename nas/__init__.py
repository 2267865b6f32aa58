"""Neural architecture search for networks that are small, fast and accurate.

The names most scripts need are here; each is imported when it is first used, so that importing
the package (and the command line's help) loads neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Architecture": "nas.architecture",
    "Budget": "nas.budget",
    "Choice": "nas.architecture",
    "Cost": "nas.budget",
    "Evaluator": "nas.evaluator",
    "Failed": "nas.trial",
    "Fidelity": "nas.trial",
    "History": "nas.history",
    "Infeasible": "nas.trial",
    "Measured": "nas.trial",
    "Metric": "nas.objective",
    "NasError": "nas.errors",
    "Objective": "nas.objective",
    "Proposal": "nas.trial",
    "RayExecutor": "nas.execution.ray",
    "SearchSpace": "nas.space",
    "Serial": "nas.execution.serial",
    "Strategy": "nas.strategy",
    "Trial": "nas.trial",
    "maximize": "nas.objective",
    "minimize": "nas.objective",
    "network": "nas.space",
    "retrain_and_export": "nas.delivery",
    "watch": "nas.progress",
}

__all__ = sorted([*_HOME, "__version__"])

if TYPE_CHECKING:
    from nas.architecture import Architecture as Architecture
    from nas.architecture import Choice as Choice
    from nas.budget import Budget as Budget
    from nas.budget import Cost as Cost
    from nas.delivery import retrain_and_export as retrain_and_export
    from nas.errors import NasError as NasError
    from nas.evaluator import Evaluator as Evaluator
    from nas.execution.ray import RayExecutor as RayExecutor
    from nas.execution.serial import Serial as Serial
    from nas.history import History as History
    from nas.objective import Metric as Metric
    from nas.objective import Objective as Objective
    from nas.objective import maximize as maximize
    from nas.objective import minimize as minimize
    from nas.progress import watch as watch
    from nas.space import SearchSpace as SearchSpace
    from nas.space import network as network
    from nas.strategy import Strategy as Strategy
    from nas.trial import Failed as Failed
    from nas.trial import Fidelity as Fidelity
    from nas.trial import Infeasible as Infeasible
    from nas.trial import Measured as Measured
    from nas.trial import Proposal as Proposal
    from nas.trial import Trial as Trial


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

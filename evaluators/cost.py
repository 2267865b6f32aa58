"""Costs of an architecture's network, counted without training: ``nas.cost`` as an evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.objective import Metric
from nas.space import SearchSpace
from nas.trial import Fidelity, Measured, Proposal


class CostEvaluator:
    """Parameters, multiply-accumulates, peak activation memory, weight bytes; no training.

    All are minimised: ``parameters`` and ``macs`` are counts, ``peak_memory_bytes`` and
    ``weight_bytes`` are in bytes (``nas.cost`` defines them).
    """

    metrics = (
        Metric("parameters", "count", "minimize"),
        Metric("macs", "count", "minimize"),
        Metric("peak_memory_bytes", "bytes", "minimize"),
        Metric("weight_bytes", "bytes", "minimize"),
    )

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        return asdict(architecture_cost(self.space, arch))

    def evaluate(self, proposal: Proposal) -> Measured:
        return Measured(self.preview(proposal.arch))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

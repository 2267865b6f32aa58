"""Costs of an architecture's network, counted without training: ``nas.cost`` as an evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.cost.flash import check_dtype, flash_bytes
from nas.objective import Metric
from nas.space import SearchSpace
from nas.trial import Fidelity, Measured, Proposal


class CostEvaluator:
    """Parameters, multiply-accumulates, peak activation memory, weight bytes; no training.

    All are minimised: ``parameters`` and ``macs`` are counts, ``peak_memory_bytes`` and
    ``weight_bytes`` are in bytes (``nas.cost`` defines them).

    Args:
        weights: the type that weights are stored in, which ``weight_bytes`` (a device's flash) is
            counted for: float32, float16 or int8 (``nas.cost.flash``). Memory is float32's.

    Raises:
        ConfigError: an unknown type.
    """

    metrics = (
        Metric("parameters", "count", "minimize"),
        Metric("macs", "count", "minimize"),
        Metric("peak_memory_bytes", "bytes", "minimize"),
        Metric("weight_bytes", "bytes", "minimize"),
    )

    def __init__(self, space: SearchSpace, weights: str = "float32") -> None:
        check_dtype(weights)
        self.space = space
        self.weights = weights

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        costs = asdict(architecture_cost(self.space, arch))
        if self.weights != "float32":
            costs["weight_bytes"] = flash_bytes(self.space, arch, self.weights)
        return costs

    def evaluate(self, proposal: Proposal) -> Measured:
        return Measured(self.preview(proposal.arch))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

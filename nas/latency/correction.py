"""What makes a sum over operations a network's latency: a line, fitted to measured networks.

``a + b · sum + c · operations + d · weights``: what a network costs beside its operations, how much
cheaper they are where their data come from the one before, what each transition takes, and what it
takes to fetch the weights, which an operation that is timed alone finds in the cache and one in a
network of many megabytes does not. Four numbers, by least squares on relative errors, since it is
those that count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.errors import ConfigError

LEAST = 10
"""Networks that a line is fitted to, at least."""


@dataclass(frozen=True)
class Sum:
    """What a table says of a network.

    Attributes:
        ms: the sum over its operations, in milliseconds.
        operations: how many there are.
        weight_mb: megabytes (10⁶) of its weights in float32.
    """

    ms: float
    operations: int
    weight_mb: float


@dataclass(frozen=True)
class Correction:
    """A fitted line.

    Attributes:
        constant: in milliseconds.
        factor: of the sum.
        each: in milliseconds for each operation.
        each_mb: in milliseconds for each megabyte of weights.
        networks: how many it was fitted to.
    """

    constant: float
    factor: float
    each: float
    each_mb: float
    networks: int

    def __call__(self, found: Sum) -> float:
        """The latency in milliseconds."""
        return (
            self.constant
            + self.factor * found.ms
            + self.each * found.operations
            + self.each_mb * found.weight_mb
        )

    def document(self) -> dict[str, Any]:
        """The correction as JSON."""
        return {
            "constant": self.constant,
            "factor": self.factor,
            "each": self.each,
            "each_mb": self.each_mb,
            "networks": self.networks,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Correction:
        """From JSON; raises ``ValueError`` where a number is not finite."""
        found = cls(
            float(document["constant"]),
            float(document["factor"]),
            float(document["each"]),
            float(document["each_mb"]),
            int(document["networks"]),
        )
        numbers = (found.constant, found.factor, found.each, found.each_mb)
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"correction: {found} is not finite")
        return found


def fit(sums: Sequence[Sum], measured: Sequence[float]) -> Correction:
    """Fits a line.

    Args:
        sums: by the table.
        measured: end to end, in milliseconds.

    Raises:
        ConfigError: there are fewer than ``LEAST`` networks.
    """
    if len(measured) < LEAST:
        raise ConfigError(
            f"a correction is fitted to at least {LEAST} networks, got {len(measured)}"
        )
    y = np.array(measured, float)
    columns = np.array([(1.0, one.ms, one.operations, one.weight_mb) for one in sums])
    # lstsq gives the smallest solution where all networks have as many operations.
    solution = np.linalg.lstsq(columns / y[:, None], np.ones(len(y)), rcond=None)[0]
    constant, factor, each, each_mb = (float(value) for value in solution)
    return Correction(constant, factor, each, each_mb, len(y))

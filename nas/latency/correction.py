"""What makes a sum over operations a network's latency: a line, fitted to measured networks.

``a + b · sum + c · operations``: what a network costs beside its operations, how much cheaper they
are where their data come from the one before, and what each transition takes. Three numbers, by
least squares on relative errors, since it is those that count.
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
class Correction:
    """A fitted line.

    Attributes:
        constant: in milliseconds.
        factor: of the sum.
        each: in milliseconds for each operation.
        networks: how many it was fitted to.
    """

    constant: float
    factor: float
    each: float
    networks: int

    def __call__(self, total: float, count: float) -> float:
        """The latency in milliseconds, of a sum in milliseconds over so many operations."""
        return self.constant + self.factor * total + self.each * count

    def document(self) -> dict[str, Any]:
        """The correction as JSON."""
        return {
            "constant": self.constant,
            "factor": self.factor,
            "each": self.each,
            "networks": self.networks,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Correction:
        """From JSON; raises ``ValueError`` where a number is not finite."""
        found = cls(
            float(document["constant"]),
            float(document["factor"]),
            float(document["each"]),
            int(document["networks"]),
        )
        if not all(map(math.isfinite, (found.constant, found.factor, found.each))):
            raise ValueError(f"correction: {found} is not finite")
        return found


def fit(sums: Sequence[float], counts: Sequence[int], measured: Sequence[float]) -> Correction:
    """Fits a line.

    Args:
        sums: by the table, in milliseconds.
        counts: of operations.
        measured: end to end, in milliseconds.

    Raises:
        ConfigError: there are fewer than ``LEAST`` networks.
    """
    if len(measured) < LEAST:
        raise ConfigError(
            f"a correction is fitted to at least {LEAST} networks, got {len(measured)}"
        )
    y = np.array(measured, float)
    columns = np.stack([np.ones(len(y)), np.array(sums, float), np.array(counts, float)], 1)
    # lstsq gives the smallest solution where all networks have as many operations.
    solution = np.linalg.lstsq(columns / y[:, None], np.ones(len(y)), rcond=None)[0]
    constant, factor, each = (float(value) for value in solution)
    return Correction(constant, factor, each, len(y))

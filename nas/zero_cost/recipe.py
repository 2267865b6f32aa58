"""A training-free score that costs little: what is scored, and on how small a network.

The score is AZ-NAS's (Lee & Ham, CVPR 2024; ``az_nas``): its four proxies, a population ranked by
the geometric mean of relative ranks. It is made cheap by scoring a smaller network of the same
architecture. How small was decided without any accuracy, by how well the ranking agrees with that
of the published size (16 channels, 5 cells a stage, 32×32, batch 64) on random architectures
(``experiments/zero_cost.py --choose``): halving the channels with the image keeps as many places
for each channel, without which the estimate of trainability drowns in noise; two cells a stage
agree better than one and hardly worse than three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Arguments of ``evaluators.zero_cost.ZeroCost``, whose defaults are AZ-NAS's proxies.

    Attributes:
        batch_size: examples a pass.
        network: arguments of the space to be changed for the networks that are scored.
    """

    batch_size: int = 16
    network: Mapping[str, Any] = field(default_factory=dict)


NASBENCH201 = Recipe(network={"channels": 8, "cells": 2, "input": (3, 16, 16)})

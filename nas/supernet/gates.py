"""Gates: a relaxed architecture, as weights over the options of each slot.

A strategy supplies them and a supernet reads them. The kinds differ in what is computed and in
what gradients the gates get; a mapping may hold different kinds for different slots:

- a tensor of weights, one an option: every option is computed and gets its gradient (DARTS);
- ``Sparse``: the same, with only some of the options computed (ProxylessNAS's two paths);
- ``HardSample``: one option is computed, and the other weights take part as constants (GDAS);
- an option's name: one path without any weight (one-shot training);
- ``EdgeGate``: any of the above, and a weight of the whole edge (PC-DARTS).

For a depth, the weights (or the number) are those of its options: how many blocks are run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weights over all options, of which only some are computed.

    Attributes:
        weights: (options,); those of the computed options get gradients.
        computed: the positions of the options that are; the rest is taken to weigh nothing.
    """

    weights: torch.Tensor
    computed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HardSample:
    """A sampled option with straight-through weights (Dong & Yang, GDAS, CVPR 2019).

    The output is the option's output times its weight, plus the other weights, which are zero
    in value: so every weight gets a gradient although one option is computed.

    Attributes:
        weights: (options,), one-hot in value.
        sampled: the position of the one.
    """

    weights: torch.Tensor
    sampled: int


@dataclass(frozen=True, slots=True)
class EdgeGate:
    """A gate over the options of an edge, and the weight of the edge among those of its node.

    Attributes:
        gate: over the options.
        weight: (), of all that the edge gives, what goes past its options included.
    """

    gate: torch.Tensor | Sparse | HardSample | str
    weight: torch.Tensor


Gate = torch.Tensor | Sparse | HardSample | EdgeGate | str | int
Gates = Mapping[str, Gate]

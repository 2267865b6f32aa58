"""NASWOT: how well the codes of a network's activations tell the examples of a batch apart.

Mellor, Turner, Storkey & Crowley, "Neural Architecture Search without Training", ICML 2021. An
example's code says which ReLUs are active; K counts for each pair of examples the ReLUs in which
they agree, and the score is ln |det K|. A ReLU that the output does not depend on does not count.

Beyond the paper: activations that are no ReLU (ReLU6, hard-swish, SiLU, GELU, leaky ReLU, ELU,
softplus, Mish) count by the sign of what they are given, which is where each of them bends or
changes its slope most; gates (sigmoid, tanh) do not count. They are found in the autograd graph,
so it does not matter whether they are modules or functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from nas.errors import UnsupportedRequest
from nas.trial import NotFinite
from nas.zero_cost.probe import Batch, graph, run

ACTIVATIONS = (
    "Relu",
    "Threshold",
    "Hardtanh",
    "Hardswish",
    "Silu",
    "Gelu",
    "LeakyRelu",
    "PreluKernel",
    "Elu",
    "Celu",
    "Softplus",
    "Mish",
)
"""Their nodes in the graph, without "Backward" and a number."""

KEPT = ("_saved_self", "_saved_result")


def naswot_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    logits, _ = run(network, batch.images)
    count = len(batch.images)
    units, products = 0, torch.zeros(count, count, dtype=torch.float64)
    for code in activations(logits):
        if code.shape[0] == count:
            signs = (code.detach().reshape(count, -1) > 0).float().mul_(2).sub_(1)
            units += signs.shape[1]
            products += signs @ signs.T  # whole numbers: exact below 2²⁴ units a layer
    if not units:
        raise UnsupportedRequest(
            f"naswot of {where}: it needs activations (ReLU, ReLU6, hard-swish, SiLU, GELU …), "
            "and the output depends on none"
        )
    sign, logarithm = torch.linalg.slogdet((units + products) / 2)
    if sign <= 0:
        raise NotFinite(
            f"naswot of {where}: two examples have the same code, and the determinant is 0; "
            "use a smaller batch"
        )
    return {"naswot": float(logarithm)}


def activations(output: torch.Tensor) -> Iterator[torch.Tensor]:
    """What was given to each activation that an output depends on, up to what is positive."""
    for node in graph(output):
        if node.name().partition("Backward")[0] in ACTIVATIONS:
            # What it was given or, of the same sign, what it gave: nodes keep one of them.
            kept: torch.Tensor = getattr(node, KEPT[not hasattr(node, KEPT[0])])
            yield kept

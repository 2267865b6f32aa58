"""GraSP: how far a gradient step's gain depends on each weight, −w · Hg, summed.

Wang, Zhang & Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR
2020; as a score of networks: Abdelfattah et al., ICLR 2021. H is the Hessian of the loss and g its
gradient, so Hg is the gradient of ½‖g‖². What differs: the temperature is 1, as in the second paper
(pruning takes 200), and one batch is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nas.zero_cost.probe import Batch, loss_of, run, weights


def grasp_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    tensors = weights(network, "grasp", where)
    logits, _ = run(network, batch.images)
    found = torch.autograd.grad(
        loss_of(logits, batch), tensors, create_graph=True, allow_unused=True
    )
    used = [(w, g) for w, g in zip(tensors, found, strict=True) if g is not None]
    product = sum((g * g.detach()).sum() for _, g in used)
    assert isinstance(product, torch.Tensor)
    along = torch.autograd.grad(product, [w for w, _ in used], allow_unused=True)
    return {
        "grasp": -sum(
            float((w.detach() * h).sum())
            for (w, _), h in zip(used, along, strict=True)
            if h is not None
        )
    }

"""ZiCo: weights whose gradient is large and varies little over batches are trained well.

Li, Yang, Bhardwaj & Marculescu, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on
Gradients", ICLR 2023. Σ over weight tensors of ln Σ mean|g| / std(g), mean and standard deviation
over batches, elements without deviation left out; the deviation is that of g, as in the authors'
code, where the paper writes |g|. The batch is cut in two halves (the paper takes
two batches), each with its own statistics in batch norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from nas.errors import UnsupportedRequest
from nas.trial import NotFinite
from nas.zero_cost.probe import Batch, loss_of, run, weights

BATCHES = 2


def zico_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    if len(batch.images) < 2 * BATCHES:
        raise UnsupportedRequest(
            f"zico of {where}: it needs {BATCHES} batches of two examples at least, got "
            f"{len(batch.images)} examples in all"
        )
    tensors = weights(network, "zico", where)
    assert batch.labels is not None
    gradients = []
    for images, labels in zip(
        batch.images.tensor_split(BATCHES), batch.labels.tensor_split(BATCHES), strict=True
    ):
        part = Batch(images, labels)
        logits, _ = run(network, images)
        gradients.append(torch.autograd.grad(loss_of(logits, part), tensors, allow_unused=True))
    total, tensors_counted = 0.0, 0
    for found in zip(*gradients, strict=True):
        if any(g is None for g in found):
            continue
        stacked = torch.stack(found)
        deviation = stacked.std(dim=0, unbiased=False)
        varies = deviation > 0
        ratios = stacked.abs().mean(dim=0)[varies] / deviation[varies]
        if len(ratios):
            total += math.log(float(ratios.sum()))
            tensors_counted += 1
    if not tensors_counted:
        raise NotFinite(f"zico of {where}: no gradient differs between the batches")
    return {"zico": total}

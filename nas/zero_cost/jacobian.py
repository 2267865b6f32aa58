"""Jacobian covariance: how differently a network's output bends around different inputs.

Mellor, Turner, Storkey & Crowley, "Neural Architecture Search without Training", first version
(arXiv 2006.04647v1), 2020. With σ the eigenvalues of the correlation matrix of the examples' input
gradients (of the sum of the logits), the score is −Σ (ln(σ + k) + 1/(σ + k)), k = 10⁻⁵.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from nas.trial import NotFinite
from nas.zero_cost.probe import Batch, run

K = 1e-5


def jacobian_score(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    logits, x = run(network, batch.images)
    (found,) = torch.autograd.grad(logits.sum(), x)
    correlation = torch.corrcoef(found.flatten(1).double())
    if not torch.isfinite(correlation).all():
        raise NotFinite(f"jacob_cov of {where}: the input gradients have no correlation")
    values = torch.linalg.eigvalsh(correlation)
    return {"jacob_cov": float(-((values + K).log() + 1 / (values + K)).sum())}

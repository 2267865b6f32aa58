"""AZ-NAS: expressivity, progressivity and trainability of a network's blocks, from one pass.

Lee & Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024. The
network is initialised by He's normal distribution and given Gaussian noise. Per block,

* expressivity is the entropy of the normalised eigenvalues of its output's covariance (channels
  by channels), summed over blocks; progressivity is the least increase from block to block;
* trainability is 2 − s − 1/s, averaged over blocks, s the largest singular value of an estimate
  of the block's Jacobian from one random-sign vector: 1 keeps the gradient's scale.

The fourth, complexity, is ``macs``. A population is ranked by all four (``nas.zero_cost.ranks``).

Blocks are found in any network: the root, lists of modules and sequences of composite modules are
taken apart, and what is then composite, or has weights itself, is a block; only feature maps and
tokens count where there are any. For NAS-Bench-201 these are the paper's: stem, cells, residual
blocks. What differs: a block that does not depend on the one before it is left out of
trainability; spatial sizes that do not divide each other are padded with zeros; tokens are told
from channels by three dimensions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import UnsupportedRequest
from nas.trial import NotFinite
from nas.zero_cost.probe import LAYERS, LOWEST, Batch, run

FEWEST_BLOCKS = 3
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def az_nas_scores(
    network: nn.Module, batch: Batch, wanted: frozenset[str], where: str
) -> Mapping[str, float]:
    _initialise(network)
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        last = output[-1] if isinstance(output, tuple | list) else output
        if isinstance(last, torch.Tensor):
            kept.append(last)

    hooks = [block.register_forward_hook(keep) for block in blocks(network)]
    try:
        run(network, batch.images)
    finally:
        for hook in hooks:
            hook.remove()
    maps = [feature for feature in kept if feature.ndim > 2]
    features = maps if len(maps) > 1 else [feature for feature in kept if feature.ndim > 1]
    if len(features) < 2:
        raise UnsupportedRequest(
            f"{'/'.join(sorted(wanted))} of {where}: AZ-NAS needs two blocks or weighted layers "
            f"at least, and there are {len(features)}"
        )
    if not all(bool(torch.isfinite(feature).all()) for feature in features):
        raise NotFinite(f"{'/'.join(sorted(wanted))} of {where}: a block's output is not finite")
    scores: dict[str, float] = {}
    if wanted & {"expressivity", "progressivity"}:
        entropies = [entropy(rows(feature.detach())) for feature in features]
        if any(math.isnan(value) for value in entropies):
            raise NotFinite(f"expressivity of {where}: a block gives the same for every input")
        scores["expressivity"] = math.fsum(entropies)
        scores["progressivity"] = min(b - a for a, b in itertools.pairwise(entropies))
    if "trainability" in wanted:
        scores["trainability"] = _trainability(features, where)
    return {name: scores[name] for name in wanted}


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network (see the module), in the order of its modules."""
    found = _parts(network)
    while len(found) < FEWEST_BLOCKS:
        inner = [block for block in found if len(_parts(block)) > 1]
        if not inner:
            break
        # One module holds the whole trunk: it is taken apart too.
        largest = max(inner, key=lambda block: sum(p.numel() for p in block.parameters()))
        at = found.index(largest)
        found[at : at + 1] = _parts(largest)
    return found


def _parts(module: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        composite = any(True for _ in child.children())
        sequence = isinstance(child, nn.Sequential) and any(
            any(True for _ in inner.children()) for inner in child.children()
        )
        if isinstance(child, nn.ModuleList | nn.ModuleDict) or sequence:
            found += _parts(child)
        elif composite or any(p.ndim > 1 for p in child.parameters(recurse=False)):
            found.append(child)
    return found


def _initialise(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # the gradients wanted are those of features alone
    for module in network.modules():
        if isinstance(module, LAYERS):
            weight = module.weight
            module.weight.data = torch.randn_like(weight) * math.sqrt(2 / weight[0].numel())
            if module.bias is not None:
                module.bias.data = torch.zeros_like(module.bias)
        elif isinstance(module, NORMS) and isinstance(module.weight, torch.Tensor):
            module.weight.data = torch.ones_like(module.weight)
            if isinstance(module.bias, torch.Tensor):
                module.bias.data = torch.zeros_like(module.bias)


def rows(feature: torch.Tensor) -> torch.Tensor:
    """A feature map, tokens or a vector as rows of channels: (N · places, C)."""
    if feature.ndim > 3:
        feature = feature.movedim(1, -1)
    return feature.reshape(-1, feature.shape[-1])


def entropy(x: torch.Tensor) -> float:
    """Of the normalised eigenvalues of the covariance of rows, in nats; NaN where there is none."""
    centred = x - x.mean(dim=0)
    values = torch.linalg.eigvalsh((centred.T @ centred).double()).clamp_(min=0)
    share = values / values.sum()
    return float(-(share * (share + 1e-8).log()).sum())


def _trainability(features: list[torch.Tensor], where: str) -> float:
    found = []
    for before, after in zip(features[-2::-1], features[:0:-1], strict=True):
        if not after.requires_grad or not before.requires_grad:
            continue
        out = torch.randint(0, 2, after.shape, dtype=after.dtype).mul_(2).sub_(1)
        (back,) = torch.autograd.grad(after, before, out, allow_unused=True)
        if back is None:
            continue
        if back.shape == out.shape and torch.equal(back, out):
            return LOWEST
        pair = _aligned(back, out)
        if pair is not None:
            found.append(gain(rows(pair[0]), rows(pair[1])))
    if not found:
        raise UnsupportedRequest(
            f"trainability of {where}: AZ-NAS needs blocks that follow each other, and no block "
            "depends on the one before it"
        )
    return math.fsum(found) / len(found)


def gain(back: torch.Tensor, out: torch.Tensor) -> float:
    """2 − s − 1/s for the spectral norm s of the mean outer product of two (places, C) tensors."""
    product = (back.T @ out / len(out)).double()
    square = product @ product.T if len(product) < product.shape[1] else product.T @ product
    norm = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(square)[-1])))
    return 2 - norm - 1 / (norm + 1e-6)


def _aligned(back: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Both with as many places, those of the finer one folded into channels; or nothing."""
    if back.ndim == 4 and out.ndim == 4:
        return _folded(back, out.shape[2:]), _folded(out, back.shape[2:])
    same = back.ndim == out.ndim and (back.ndim == 2 or back.shape[1] == out.shape[1])
    return (back, out) if same else None


def _folded(finer: torch.Tensor, size: torch.Size) -> torch.Tensor:
    height, width = finer.shape[2:]
    factor = max(-(-height // size[0]), -(-width // size[1]))
    if factor <= 1:
        return finer
    padded = F.pad(finer, (0, factor * size[1] - width, 0, factor * size[0] - height))
    return F.pixel_unshuffle(padded, factor)

"""Edges and branches left out at random, ever more of them as training goes on.

Scheduled drop path: Zoph et al., "Learning Transferable Architectures", CVPR 2018, as DARTS has
it: the probability is the recipe's, times the share of the epochs that are behind. What is left
out is what a network's ``DropPath`` layers stand behind. A network without such layers has them
while it is trained, and looks and costs as it did afterwards: behind each edge of a cell that is
no identity, and behind the body of each residual block (``nas.layers``' ``Residual``, ``Shortcut``
and ``RepGhostBottleneck``; sums that a layer makes otherwise are left alone).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from nas.errors import UnsupportedRequest
from nas.layers.cells import DropPath
from nas.layers.mobile import Residual, Shortcut
from nas.layers.reparam import RepGhostBottleneck


def branches(network: nn.Module) -> list[nn.Module]:
    """What may be left out of a network: others of its kind are summed with it."""
    found: list[nn.Module] = []
    for module in network.modules():
        edges = getattr(module, "edges", None)
        if isinstance(edges, nn.ModuleDict):
            found += [edge for edge in edges.values() if not isinstance(edge, nn.Identity)]
        elif isinstance(module, Residual | Shortcut):
            found.append(module.body)
        elif isinstance(module, RepGhostBottleneck):
            found.append(module.layers)
    return found


@contextlib.contextmanager
def dropping(network: nn.Module, rate: float) -> Iterator[Callable[[float], None]]:
    """Gives a function that sets the probability, by the share of the training that is behind.

    Args:
        rate: the probability at the end of training; at 0 everything is left as it is.

    Raises:
        UnsupportedRequest: the network has nothing that could be left out.
    """
    if rate == 0:
        yield lambda share: None
        return
    layers = [module for module in network.modules() if isinstance(module, DropPath)]
    before = [layer.probability for layer in layers]
    handles = []
    if not layers:
        found = branches(network)
        if not found:
            raise UnsupportedRequest(
                f"recipe: drop_path is {rate}, but {type(network).__name__} has no edges of cells, "
                "no residual blocks and no nas.layers.DropPath: set drop_path to 0"
            )
        layer = DropPath(probability=0.0)
        layers = [layer]
        handles = [branch.register_forward_hook(_behind(layer)) for branch in found]

    def schedule(share: float) -> None:
        for each in layers:
            each.probability = rate * share

    try:
        yield schedule
    finally:
        for handle in handles:
            handle.remove()
        for each, probability in zip(layers, before, strict=False):
            each.probability = probability


def _behind(layer: DropPath) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    def hook(branch: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = layer(output) if branch.training else output
        return dropped

    return hook

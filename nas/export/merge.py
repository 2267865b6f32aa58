"""The inference form of a network: blocks with branches for training become what they compute.

The convention, for anyone's modules: a module with a method ``merged()`` gives by it a new module
that computes the same in eval mode and shares no tensor with it. Such a module's parent takes it
as an argument of its constructor (or is a container of torch's), or is itself one that has
``merged``: the parent's constructor would make the training form again.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from nas.errors import ExportError

TOLERANCE = 1e-5


def merge(network: nn.Module) -> nn.Module:
    """A copy in which each module with a method ``merged`` is replaced by what that gives.

    The network is left as it was. Its parameters have to be trained already: those of the copy
    are computed from them and from the norms' running statistics.

    Raises:
        ExportError: a ``merged`` gives something other than a module.
    """
    with torch.no_grad():
        return _merge(copy.deepcopy(network), {})


def _merge(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:  # one module in two places stays one
        return done[module]
    result = _merged(module) if _is_mergeable(module) else module
    done[module] = result
    for name, child in list(result._modules.items()):
        if child is not None and (new := _merge(child, done)) is not child:
            setattr(result, name, new)
    return result


def _is_mergeable(module: nn.Module) -> bool:
    return callable(getattr(module, "merged", None))


def _merged(module: nn.Module) -> nn.Module:
    result = module.merged()  # type: ignore[operator]  # a method: _is_mergeable has seen it
    if not isinstance(result, nn.Module):
        raise ExportError(
            f"{type(module).__name__}.merged() gives a {type(result).__name__}, expected the "
            "module that computes the same at inference"
        )
    return result.train(module.training)


def check_merged(network: nn.Module, merged: nn.Module, x: torch.Tensor) -> None:
    """Compares both, in eval mode, where anything was merged.

    In float64, so that the merging is judged and not the rounding of many layers.

    Raises:
        ExportError: their outputs differ by more than 1e-5 of the largest.
    """
    if not any(_is_mergeable(module) for module in network.modules()):
        return
    with torch.no_grad():
        expected = copy.deepcopy(network).double().eval()(x.double())
        found = copy.deepcopy(merged).double().eval()(x.double())
    difference = float((found - expected).abs().max())
    largest = float(expected.abs().max())
    if not difference <= TOLERANCE * largest:  # not >, which would let NaN pass
        raise ExportError(
            f"the merged network's output differs by {difference:.3g} from the network's, whose "
            f"largest is {largest:.3g}; expected at most {TOLERANCE:g} of that: a module's "
            "merged() is not what it computes"
        )

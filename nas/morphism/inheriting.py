"""The weights that a child's network starts with, from those of its trained parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.architecture import Architecture
from nas.builder import FixedBuilder
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.morphism.plan import find_plan
from nas.morphism.trace import graph_of
from nas.morphism.weights import Clash, Tensors, Writing
from nas.space import SearchSpace, member, validate
from nas.training import initialised
from nas.training import weights as state_of


@dataclass(frozen=True)
class Inherited:
    """What a child starts with.

    Attributes:
        weights: the state of the child's network.
        preserved: whether the child's network computes what the parent's does (in eval mode, but
            for rounding).
        reused: the share of the numbers in ``weights`` that are the parent's, in [0, 1].
        why: what kept the parent's function from being preserved; empty where it is.
    """

    weights: Tensors
    preserved: bool
    reused: float
    why: str = ""


def inherit(
    space: SearchSpace,
    parent: Architecture,
    weights: Mapping[str, torch.Tensor],
    child: Architecture,
    seed: int,
    noise: float = 0.0,
) -> Inherited:
    """A child's weights from its parent's, so that it computes the same where it can.

    Where a way is found (``nas.morphism.plan``), wider layers have channels twice, whose readers
    share the weights (Net2Wider), and further layers are identities (Net2Deeper), both of Chen,
    Goodfellow & Shlens, ICLR 2016; larger kernels have zeros around the old one, and branches
    that are added end in zeros. Where none is, the tensors are inherited that match in name and
    shape. All else is initialised from the seed.

    Args:
        weights: the state of the parent's trained network.
        seed: of the new weights, and of which channels are there twice.
        noise: copies of a channel would learn the same for ever. In place of the paper's noise,
            which changes the function, the shares that their readers give them vary by this much:
            0 is the paper's equal split, the most is below 1. The function stays the same.

    Raises:
        InvalidArchitecture: one of the architectures is not of the space.
        DataError: the weights are not those of the parent's network.
        ConfigError: ``noise`` is out of range.
    """
    if not 0 <= noise < 1:
        raise ConfigError(f"noise must be at least 0 and below 1, got {noise}")
    validate(space, parent)
    validate(space, child)
    weights = check_weights(space, parent, weights)
    fresh = state_of(initialised(space, child, seed))
    try:
        before, after = graph_of(space, parent), graph_of(space, child)
        plan = find_plan(before, after, seed)
        if isinstance(plan, str):
            why = plan
        else:
            writing = Writing(before, after, weights, fresh, seed, noise)
            writing.write(plan)
            rest = {name for name in fresh if name not in writing.written}
            taken = _matching(space, parent, weights, child, fresh, rest)
            reused = writing.reused + _size(taken)
            return Inherited(_merged(fresh, writing.written | taken), True, reused / _size(fresh))
    except (UnsupportedRequest, Clash) as error:
        why = str(error)
    taken = _matching(space, parent, weights, child, fresh, set(fresh))
    return Inherited(_merged(fresh, taken), False, _size(taken) / _size(fresh), why)


def _merged(fresh: Mapping[str, torch.Tensor], taken: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: taken.get(name, own) for name, own in fresh.items()}


def check_weights(
    space: SearchSpace, arch: Architecture, weights: Mapping[str, torch.Tensor]
) -> Tensors:
    """Weights on the CPU; raises ``DataError`` unless they fit the architecture's network."""
    expected = _network(space, arch)[0]
    for name, shape in expected.items():
        if name not in weights:
            raise DataError(f"the parent's weights have no {name!r}: they are of another network")
        found = tuple(weights[name].shape)
        if found != shape:
            raise DataError(f"the parent's {name!r} must have shape {shape}, got {found}")
        if not bool(torch.isfinite(weights[name]).all()):
            raise DataError(f"the parent's {name!r} holds numbers that are not finite")
    for name in weights:
        if name not in expected:
            raise DataError(f"the parent's network has no {name!r}, which is among its weights")
    return {name: tensor.detach().cpu() for name, tensor in weights.items()}


def _network(
    space: SearchSpace, arch: Architecture
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes of a network's tensors, and their names in the largest network of the space."""
    space = member(space, arch)
    builder = FixedBuilder(space, arch)
    with torch.device("meta"):
        built = space.build(builder)
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    return shapes, builder.shared_names(built)


def _matching(
    space: SearchSpace,
    parent: Architecture,
    weights: Mapping[str, torch.Tensor],
    child: Architecture,
    fresh: Mapping[str, torch.Tensor],
    names: set[str],
) -> Tensors:
    """Those tensors of the child that the parent has in the same place and shape."""
    theirs = {shared: name for name, shared in _network(space, parent)[1].items()}
    taken: Tensors = {}
    for name, shared in _network(space, child)[1].items():
        base = theirs.get(shared)
        if name in names and base is not None and weights[base].shape == fresh[name].shape:
            taken[name] = weights[base].to(fresh[name].dtype).clone()
    return taken


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())

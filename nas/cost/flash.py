"""What a network takes of a device's flash, by the type that its weights are stored in."""

from __future__ import annotations

import torch

from nas.architecture import Architecture
from nas.cost.architecture import architecture_cost
from nas.cost.weights import kept_tensors
from nas.errors import ConfigError, nearest
from nas.space import SearchSpace, network

DTYPES = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes of one weight."""


def flash_bytes(space: SearchSpace, arch: Architecture, dtype: str = "float32") -> int:
    """Bytes of an architecture's weights.

    ``"float32"`` is ``NetworkCost.weight_bytes``, ``"float16"`` half of that. In ``"int8"``, as
    runtimes store it, tensors of two dimensions and more (kernels and matrices) take a byte a
    number, and biases and the vectors of norms, which become scales and 32-bit biases when norms
    are folded, four: a little more than what is left after folding.

    Raises:
        ConfigError: an unknown type.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    check_dtype(dtype)
    if dtype != "int8":
        return architecture_cost(space, arch).weight_bytes * DTYPES[dtype] // 4
    with torch.device("meta"):
        built = network(space, arch)
    seen: set[int] = set()
    total = 0
    for module in built.modules():
        for tensor, _ in kept_tensors(module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                total += tensor.numel() * (1 if tensor.dim() > 1 else 4)
    return total


def check_dtype(dtype: str) -> None:
    """Raises ``ConfigError`` for a type that is not there."""
    if dtype not in DTYPES:
        raise ConfigError(f"weights are not stored as {dtype!r}: {nearest(dtype, DTYPES)}")

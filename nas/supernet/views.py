"""A sub-network's tensors as views into the shared ones."""

from __future__ import annotations

import torch

from nas.errors import UnsupportedRequest


def leading(shared: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """The part of a shared tensor that a smaller network has.

    Leading channels (the first two dimensions), and the centre of a kernel (the others, whose
    sizes then differ by an even number).

    Raises:
        UnsupportedRequest: the shape is no such part.
    """
    if shared.shape == shape:
        return shared
    if shared.dim() != len(shape) or any(
        small > large for small, large in zip(shape, shared.shape, strict=True)
    ):
        raise UnsupportedRequest(
            f"{name}: a tensor of shape {tuple(shape)} is no part of the shared one, which has "
            f"shape {tuple(shared.shape)}"
        )
    for dimension, (small, large) in enumerate(zip(shape, shared.shape, strict=True)):
        start = 0
        if dimension >= 2:
            if (large - small) % 2:
                raise UnsupportedRequest(
                    f"{name}: a kernel of size {small} has no place in the centre of one of "
                    f"{large}; sizes must differ by an even number"
                )
            start = (large - small) // 2
        shared = shared.narrow(dimension, start, small)
    return shared

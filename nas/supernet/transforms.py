"""Kernel transforms: a small kernel is what a learnt matrix makes of the centre of a larger one.

Cai et al., "Once-for-all: Train One Network and Specialize it for Efficient Deployment", ICLR
2020: from 7 to 5 and from 5 to 3 by a matrix each, one of each for a layer, shared by its
channels, the identity at first. Here every convolution has them whose kernel has several sizes in
the space; theirs are depthwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from nas.space import SearchSpace
from nas.supernet.form import PLAIN, Form
from nas.supernet.mixture import Current
from nas.supernet.relaxed import RelaxedBuilder

Kernel = tuple[int, ...]


def kernel_sizes(space: SearchSpace, form: Form = PLAIN) -> dict[str, list[Kernel]]:
    """The kernels that a convolution has in the architectures of a space, the largest first.

    By the name of its weight in the largest network; only those that have several.
    """
    found: dict[str, set[Kernel]] = {}
    most = max((len(choice.options) for choice in space.choices), default=1)
    for rank in range(most):

        def ranked(label: str, options: Sequence[int], rank: int = rank) -> int:
            return sorted(options)[min(rank, len(options) - 1)]

        with torch.device("meta"):
            network = space.build(RelaxedBuilder(space, Current(), form, ranked))
        for path, module in network.named_modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                found.setdefault(f"{path}.weight", set()).add(tuple(module.kernel_size))
    return {name: sorted(sizes)[::-1] for name, sizes in found.items() if len(sizes) > 1}


class KernelTransforms(nn.Module):
    """The matrices of all layers.

    Args:
        sizes: of each weight's kernels, the largest first.
    """

    def __init__(self, sizes: Mapping[str, Sequence[Kernel]]) -> None:
        super().__init__()
        self.sizes = {name: tuple(kernels) for name, kernels in sizes.items()}
        self.matrices = nn.ParameterDict()
        for name, kernels in self.sizes.items():
            for kernel in kernels[1:]:
                self.matrices[_key(name, kernel)] = nn.Parameter(torch.eye(math.prod(kernel)))

    def forward(self, name: str, weight: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """The weight of a smaller kernel.

        Args:
            name: of the weight.
            weight: (out, in, *the largest kernel).
            kernel: its size, one of the layer's.
        """
        for size in self.sizes[name][1:]:
            if weight.shape[2:] == kernel:
                break
            for dimension, length in enumerate(size, start=2):
                start = (weight.shape[dimension] - length) // 2
                weight = weight.narrow(dimension, start, length)
            flat = weight.reshape(-1, math.prod(size))
            matrix = self.matrices[_key(name, size)]
            weight = (flat @ matrix.t()).view(weight.shape)
        return weight


def _key(name: str, kernel: Kernel) -> str:
    """Without dots, which parameters cannot have in their names."""
    return f"{name.replace('.', '/')}:{'x'.join(map(str, kernel))}"

"""What the proxies share: a batch, a network that is borrowed, and what its output depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas.data import Data
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.training import fetch

LOWEST = -1e9
"""The score of a network whose output does not depend on its input, in every proxy that runs it.

Some proxies have no value there (the logarithm of 0), others one that says little (the gradients
of the classifier's bias). It is finite, so that a search can go on with it. ``trainability`` gives
it to networks with a block that is the identity, too, where the paper has minus infinity.
"""

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


class Disconnected(Exception):
    """The network's output does not depend on its input."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples a network is scored with.

    Attributes:
        images: (N, …), float.
        labels: (N,), int64; ``None`` where only proxies that need none are asked for.
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or len(self.images) < 2:
            raise ConfigError(
                f"a batch needs two examples at least, got a tensor {tuple(self.images.shape)}"
            )
        if self.labels is not None and self.labels.shape != (len(self.images),):
            raise ConfigError(
                f"a batch of {len(self.images)} examples needs so many labels, got a tensor "
                f"{tuple(self.labels.shape)}"
            )

    @classmethod
    def noise(cls, input: tuple[int, ...], size: int, seed: int = 0) -> Batch:
        """Gaussian noise for a network's input shape, without labels."""
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.randn(size, *input, generator=generator))

    @classmethod
    def of(
        cls, data: Data, size: int, seed: int = 0, input: tuple[int, ...] | None = None
    ) -> Batch:
        """Examples of a data set's training part, drawn without repeats.

        Args:
            input: their shape, where images are to be scaled to another height and width.

        Raises:
            DataError: the data set has fewer examples, or they cannot take that shape.
        """
        count = len(data.train)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
        if count < size:
            raise DataError(f"data set {data.name!r} has {count} examples, a batch needs {size}")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(count, generator=generator)[:size]
        images, labels = fetch(data.train, chosen)
        if input is not None and tuple(images.shape[1:]) != tuple(input):
            if len(input) != 3 or images.ndim != 4 or images.shape[1] != input[0]:
                raise DataError(
                    f"data set {data.name!r} has examples of shape {tuple(images.shape[1:])}, "
                    f"which cannot be scaled to {tuple(input)}"
                )
            images = F.interpolate(
                images, size=input[1:], mode="bilinear", antialias=True, align_corners=False
            )
        return cls(images, labels)


@contextlib.contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """A network in training mode that may be given other weights, and is as it was afterwards.

    Inside, every float parameter requires a gradient and has none, and buffers are copies. Give a
    parameter other values by setting its ``data``; never write into it.
    """
    modules = list(network.modules())
    modes = [(module, module.training) for module in modules]
    parameters = [(p, p.data, p.grad, p.requires_grad) for p in network.parameters()]
    buffers = [
        (module, name, buffer)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        for parameter, _, _, _ in parameters:
            parameter.grad = None
            parameter.requires_grad_(parameter.is_floating_point())
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.detach().clone()
        for module in modules:  # not network.train(): some modules keep parts of them in eval mode
            module.training = True
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for parameter, data, grad, requires in parameters:
            parameter.data = data
            parameter.requires_grad_(requires)
            parameter.grad = grad


def weights(network: nn.Module, proxy: str, where: str) -> list[nn.Parameter]:
    """The parameters of two dimensions and more: kernels and matrices, no norms, no biases."""
    found = [p for p in network.parameters() if p.ndim >= 2 and p.is_floating_point()]
    if not found:
        raise UnsupportedRequest(
            f"{proxy} of {where}: it needs layers with weights (convolutions, linear layers), "
            "and there are none"
        )
    return found


def run(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of a batch, and the input they were computed from (a leaf of the graph).

    Raises:
        Disconnected: the logits do not depend on the input.
    """
    x = images.detach().clone().requires_grad_(True)
    output = network(x)
    logits = output[0] if isinstance(output, tuple | list) else output
    if not any(getattr(node, "variable", None) is x for node in graph(logits)):
        raise Disconnected
    return logits, x


def graph(output: torch.Tensor) -> list[Any]:
    """The nodes of the autograd graph that a tensor was computed by, each once."""
    start = output.grad_fn
    # They are kept: a node that is let go may come back as another object.
    found: list[Any] = [] if start is None else [start]
    seen = {id(start)}
    for node in found:  # grows while it is read
        for following, _ in node.next_functions:
            if following is not None and id(following) not in seen:
                seen.add(id(following))
                found.append(following)
    return found


def loss_of(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The mean cross-entropy of a batch, in nats."""
    assert batch.labels is not None
    return F.cross_entropy(logits, batch.labels)

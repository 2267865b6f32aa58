"""Counting a built network: one traced forward pass on meta tensors. The reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.cost.macs import multiply_accumulates
from nas.cost.memory import Liveness, is_inference_norm
from nas.cost.weights import parameters_and_weight_bytes
from nas.errors import UnsupportedRequest


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one forward pass, batch 1, float32, in eval mode.

    Attributes:
        parameters: how many numbers are learnt; a shared tensor counts once, buffers do not.
        macs: multiply-accumulates (``nas.cost.macs``).
        peak_memory_bytes: of activations, without weights (``nas.cost.memory``).
        weight_bytes: what a device stores (flash): 4 bytes for each number of the parameters and
            of the floating buffers in the state dict (the statistics of batch norms), a shared
            tensor once. Left out are integer buffers (a norm's count of batches, which only
            training reads) and buffers that the state dict leaves out.
    """

    parameters: int
    macs: int
    peak_memory_bytes: int
    weight_bytes: int


def count(network: nn.Module, input: tuple[int, ...]) -> NetworkCost:
    """The cost of a network, wherever its weights are; it is left as it was.

    A network that cannot run on meta tensors (its forward reads values, or keeps constants that
    are neither parameters nor buffers) is run for real, once, on zeros.

    Args:
        input: the shape of one example, without the batch.

    Raises:
        UnsupportedRequest: the network does not take such an input, or uses an operation whose
            multiply-accumulates cannot be told from outside.
    """
    parameters, weight_bytes = parameters_and_weight_bytes(network)
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        tally = trace(network, tuple(input), Tally)
    finally:
        for module, training in modes:
            module.training = training
    return NetworkCost(parameters, tally.macs, tally.liveness.peak_bytes(), weight_bytes)


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves these untyped
    """Sees every operation of a forward pass, below autograd, views included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.macs = 0
        self.liveness = Liveness()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_inference_norm(func, args) and args[0].device.type == "meta":
            # What torch's own meta kernel answers, without its milliseconds of bookkeeping.
            output: Any = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            output = func(*args, **kwargs)
        self.macs += multiply_accumulates(func, args, kwargs, output)
        self.liveness.record(func, args, kwargs, output)
        return output


def trace(network: nn.Module, shape: tuple[int, ...], make: Callable[[], Tally]) -> Tally:
    """One forward pass under what ``make`` makes, on meta where the network can."""
    # A fused attention kernel would hide the products inside it.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            try:
                with torch.device("meta"), _weights_on_meta(network):
                    return _run(network, torch.empty(1, *shape), make())
            except UnsupportedRequest:
                raise
            except Exception:
                devices = {tensor.device for tensor in _tensors(network)} or {torch.device("cpu")}
                if torch.device("meta") in devices:
                    raise
                return _run(network, torch.zeros(1, *shape, device=devices.pop()), make())
    except UnsupportedRequest:
        raise
    except Exception as error:
        raise UnsupportedRequest(
            f"the network does not take an input of shape {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _run(network: nn.Module, example: torch.Tensor, tally: Tally) -> Tally:
    tally.liveness.exclude(_tensors(network))
    tally.liveness.born(example)
    with tally:
        result = network(example)
    tally.liveness.kept(result)
    return tally


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


@contextmanager
def _weights_on_meta(network: nn.Module) -> Iterator[None]:
    """Stand-ins of the same shapes for all weights, as float32; shared where these are shared.

    Not by ``torch.func.functional_call``, which unties weights that a module placed twice shares
    with another.
    """
    kept: list[tuple[Any, dict[str, torch.Tensor | None]]] = [
        (held, dict(held))
        for module in network.modules()
        for held in (module._parameters, module._buffers)
    ]
    meta: dict[torch.Tensor, torch.Tensor] = {}
    try:
        for held, before in kept:
            for name, tensor in before.items():
                if tensor is not None:
                    if tensor not in meta:
                        meta[tensor] = _on_meta(tensor)
                    held[name] = meta[tensor]
        yield
    finally:
        for held, before in kept:
            held.clear()
            held.update(before)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")

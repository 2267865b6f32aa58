"""What a network costs: parameters, multiply-accumulates, peak activation memory.

All three are counted from one traced forward pass of the built network on meta tensors, so
nothing is computed and nothing is approximated. The exact definitions are those of ``macs``
(``nas.cost.macs``) and ``peak_memory_bytes`` (``nas.cost.memory``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.architecture import Architecture
from nas.cost.macs import multiply_accumulates
from nas.cost.memory import Liveness, is_inference_norm
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace, network


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one forward pass, batch 1, float32, in eval mode.

    Attributes:
        parameters: how many numbers are learnt; a shared tensor counts once, buffers do not.
        macs: multiply-accumulates (``nas.cost.macs``).
        peak_memory_bytes: of activations, without weights (``nas.cost.memory``).
    """

    parameters: int
    macs: int
    peak_memory_bytes: int


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
    parameters = sum(parameter.numel() for parameter in network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        tally = _trace(network, tuple(input))
    finally:
        for module, training in modes:
            module.training = training
    return NetworkCost(parameters, tally.macs, tally.liveness.peak_bytes())


def architecture_cost(space: SearchSpace, arch: Architecture) -> NetworkCost:
    """The cost of an architecture's stand-alone network; no weights are made for it."""
    with torch.device("meta"):
        built = network(space, arch)
    return count(built, space.input)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves these untyped
    """Sees every operation of a forward pass, below autograd, views included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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


def _trace(network: nn.Module, shape: tuple[int, ...]) -> _Tally:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    meta = {name: _on_meta(tensor) for name, tensor in tensors.items()}
    # A fused attention kernel would hide the products inside it.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            try:
                with torch.device("meta"):
                    return _run(network, meta, torch.empty(1, *shape))
            except UnsupportedRequest:
                raise
            except Exception:
                devices = {tensor.device for tensor in tensors.values()} or {torch.device("cpu")}
                if torch.device("meta") in devices:
                    raise
                return _run(network, tensors, torch.zeros(1, *shape, device=devices.pop()))
    except UnsupportedRequest:
        raise
    except Exception as error:
        raise UnsupportedRequest(
            f"the network does not take an input of shape {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _run(network: nn.Module, tensors: dict[str, torch.Tensor], example: torch.Tensor) -> _Tally:
    tally = _Tally()
    tally.liveness.exclude(tensors.values())
    tally.liveness.born(example)
    with tally:
        result = torch.func.functional_call(network, tensors, (example,))
    tally.liveness.kept(result)
    return tally


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")

"""Where a training stands, in full: what is needed to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from nas.errors import DataError

_DIGEST = 16


@dataclass(frozen=True)
class TrainingState:
    """A training after so many epochs, on the CPU.

    Attributes:
        curve: the mean training loss of each epoch so far, in nats.
        weights: the network's state.
        momentum: the optimiser's buffer of each parameter that has one.
        random: the state of torch's generators: ``cpu``, and ``cuda`` where it trained there.
        average: the moving average of the weights, where the recipe has one.
        scale: of the loss in mixed precision, and how long it has held.
    """

    curve: list[float]
    weights: Mapping[str, torch.Tensor]
    momentum: Mapping[str, torch.Tensor]
    random: Mapping[str, torch.Tensor]
    average: Mapping[str, torch.Tensor] = field(default_factory=dict)
    scale: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return len(self.curve)

    def to_bytes(self) -> bytes:
        """A checksum, the curve, and the tensors as safetensors."""
        tensors = {
            f"{part}/{name}": tensor
            for part in ("weights", "momentum", "random", "average", "scale")
            for name, tensor in getattr(self, part).items()
        }
        content = json.dumps(self.curve).encode() + b"\n" + save(tensors)
        return _digest(content) + content

    @classmethod
    def from_bytes(cls, file: bytes) -> TrainingState:
        """What ``to_bytes`` wrote; raises ``DataError`` where it is not that any more."""
        digest, content = file[:_DIGEST], file[_DIGEST:]
        if _digest(content) != digest:
            raise DataError(
                f"the checkpoint of {len(file)} bytes is damaged: its checksum does not match"
            )
        curve, _, blob = content.partition(b"\n")
        try:
            parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "momentum": {}}
            for name, tensor in load(blob).items():
                part, _, rest = name.partition("/")
                parts.setdefault(part, {})[rest] = tensor
            return cls(json.loads(curve), **parts)
        except (SafetensorError, ValueError, TypeError) as error:
            raise DataError(f"this is no checkpoint of a training: {error}") from error


def state_of(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    place: torch.device,
    curve: list[float],
    average: Mapping[str, torch.Tensor] | None = None,
    scale: Mapping[str, torch.Tensor] | None = None,
) -> TrainingState:
    """The state of a training between two epochs."""
    random = {"cpu": torch.get_rng_state()}
    if place.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(place)
    momentum = {
        name: _copy(optimizer.state[parameter]["momentum_buffer"])
        for name, parameter in network.named_parameters()
        if optimizer.state[parameter].get("momentum_buffer") is not None
    }
    weights = {name: _copy(tensor) for name, tensor in network.state_dict().items()}
    averaged = {name: _copy(tensor) for name, tensor in (average or {}).items()}
    return TrainingState(list(curve), weights, momentum, random, averaged, dict(scale or {}))


def restore(
    state: TrainingState,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    place: torch.device,
) -> None:
    """Puts a network, its optimiser and torch's generators where ``state_of`` found them."""
    network.load_state_dict(state.weights)
    for name, parameter in network.named_parameters():
        if name in state.momentum:
            # In memory as the parameter is, so that sums are taken in the same order.
            buffer = torch.empty_like(parameter, requires_grad=False)
            optimizer.state[parameter]["momentum_buffer"] = buffer.copy_(state.momentum[name])
    torch.set_rng_state(state.random["cpu"])
    if place.type == "cuda" and "cuda" in state.random:
        torch.cuda.set_rng_state(state.random["cuda"], place)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()

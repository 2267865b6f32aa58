"""The modules a supernet has where a stand-alone network has a picked one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from nas.errors import UnsupportedRequest, nearest
from nas.supernet import kernels
from nas.supernet.gates import EdgeGate, Gate, Gates, HardSample, Sparse


class Current:
    """The gates of the forward pass that is running: set by the supernet, read by its slots.

    Attributes:
        once: what the slots of this pass have computed in common; ``None`` where each option is
            run as it is.
    """

    def __init__(self) -> None:
        self.gates: Gates = {}
        self.once: kernels.Once | None = None

    @contextmanager
    def under(self, gates: Gates, once: kernels.Once | None) -> Iterator[None]:
        """Within, these are the gates and the results in common."""
        before = self.gates, self.once
        self.gates, self.once = gates, once
        try:
            yield
        finally:
            self.gates, self.once = before

    def of(self, label: str) -> Gate:
        if label not in self.gates:
            raise UnsupportedRequest(
                f"no gate is given for {label!r}: {nearest(label, self.gates)}"
            )
        return self.gates[label]


class Mixed(nn.Module):
    """All options of a slot: their outputs, weighted by the slot's gate, summed.

    Each option is a child under its own name, so the tensors of two options never meet.

    Args:
        label: the slot's.
        modules: the options in order; ``None`` is no connection, which gives zeros.
        current: where the gate is found.
    """

    def __init__(
        self, label: str, modules: Mapping[str, nn.Module | None], current: Current
    ) -> None:
        super().__init__()
        self.label = label
        self.options = tuple(modules)
        self.current = current
        for option, module in modules.items():
            if module is not None:
                self.add_module(child_name(option), module)
        self._empty_shapes: dict[torch.Size, torch.Size] = {}

    def option(self, name: str) -> nn.Module | None:
        """The module of an option; ``None`` where it is no connection."""
        return self._modules.get(child_name(name))

    def replace(self, name: str, module: nn.Module) -> None:
        """Puts another module in the place of an option's."""
        if self.option(name) is None:
            raise UnsupportedRequest(
                f"slot {self.label!r} has no module for {name!r}: {nearest(name, self._modules)}"
            )
        self._modules[child_name(name)] = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x, self.current.of(self.label))

    def mix(self, x: torch.Tensor, gate: Gate) -> torch.Tensor:
        """What the options give under this gate."""
        if isinstance(gate, EdgeGate):
            return gate.weight * self.mix(x, gate.gate)
        if isinstance(gate, str):
            if gate not in self.options:
                raise UnsupportedRequest(
                    f"slot {self.label!r} has no option {gate!r}: {nearest(gate, self.options)}"
                )
            return self._one(gate, x)
        if isinstance(gate, HardSample):
            self._check(gate.weights)
            picked = self._one(self.options[gate.sampled], x)
            rest = gate.weights.sum() - gate.weights[gate.sampled]
            return picked * gate.weights[gate.sampled] + rest
        if isinstance(gate, Sparse):
            self._check(gate.weights)
            return self._sum(x, gate.weights, gate.computed)
        if not isinstance(gate, torch.Tensor):
            raise UnsupportedRequest(
                f"slot {self.label!r} has the gate {gate!r}: expected weights over {self.options}, "
                "or one of them"
            )
        self._check(gate)
        return self._sum(x, gate, range(len(self.options)))

    def _one(self, option: str, x: torch.Tensor) -> torch.Tensor:
        module = self.option(option)
        if module is None:
            return self._zeros(x)
        once = self.current.once
        out: torch.Tensor = module(x) if once is None else kernels.value(module, x, once)
        return out

    def _sum(self, x: torch.Tensor, weights: torch.Tensor, computed: Sequence[int]) -> torch.Tensor:
        found = [(index, self.option(self.options[index])) for index in computed]
        modules = [(index, module) for index, module in found if module is not None]
        if not modules:
            return self._zeros(x)
        once = self.current.once
        if once is not None and weights.dtype == x.dtype:
            return kernels.weighted_sum(modules, x, weights, once)
        total: torch.Tensor | None = None
        for index, module in modules:
            term = weights[index] * module(x)
            total = term if total is None else total + term
        assert total is not None
        return total

    def _check(self, weights: torch.Tensor) -> None:
        if weights.shape != (len(self.options),):
            raise UnsupportedRequest(
                f"slot {self.label!r} has the options {self.options}, but its gate has shape "
                f"{tuple(weights.shape)}"
            )

    def _zeros(self, x: torch.Tensor) -> torch.Tensor:
        """What no connection gives: zeros of the shape that the other options give."""
        if x.shape not in self._empty_shapes:
            module = next((m for m in self._modules.values() if m is not None), None)
            self._empty_shapes[x.shape] = x.shape if module is None else _shape(module, x)
        return x.new_zeros(self._empty_shapes[x.shape])


class Skippable(nn.Module):
    """A block of a depth: run where the depth reaches it, by the depth's gate.

    Args:
        label: the depth's.
        index: of the block, from 0.
        depths: the depth's options, ascending.
        block: what keeps the shape, unless every depth has it.
        current: where the gate is found.
    """

    def __init__(
        self, label: str, index: int, depths: tuple[int, ...], block: nn.Module, current: Current
    ) -> None:
        super().__init__()
        self.label = label
        self.index = index
        self.depths = depths
        self.block = block
        self.current = current

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if all(depth > self.index for depth in self.depths):
            return self.block(x)
        gate = self.current.of(self.label)
        if isinstance(gate, int):
            return self.block(x) if gate > self.index else x
        weights = gate if isinstance(gate, torch.Tensor) else getattr(gate, "weights", None)
        if not isinstance(weights, torch.Tensor) or weights.shape != (len(self.depths),):
            raise UnsupportedRequest(
                f"depth {self.label!r} has the options {self.depths}, but its gate is {gate!r}"
            )
        reached = torch.stack(
            [weights[i] for i, depth in enumerate(self.depths) if depth > self.index]
        ).sum()
        out = self.block(x)
        if out.shape != x.shape:
            raise UnsupportedRequest(
                f"depth {self.label!r}: block {self.index} makes {tuple(out.shape)} of "
                f"{tuple(x.shape)}, so a mixture of depths cannot leave it out"
            )
        return reached * out + (1 - reached) * x


def child_name(option: str) -> str:
    """An option's name as a module may have it: without dots."""
    return option.replace(".", "_") or "_"


def _shape(module: nn.Module, x: torch.Tensor) -> torch.Size:
    """The shape a module gives, found without computing anything or touching its state."""
    tensors = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    with torch.no_grad():
        out = torch.func.functional_call(
            module, tensors, (torch.empty(x.shape, dtype=x.dtype, device="meta"),)
        )
    return out.shape

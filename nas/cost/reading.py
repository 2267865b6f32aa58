"""The cost reading of ``build``: the forward pass of an architecture, known parts not built.

Where a space describes an option by a ``functools.partial`` of a module's class and plain values,
or a part of its network by ``builder.part``, the answer is a stand-in (``nas.cost.standin``) for
what was built and traced before. All else is built and run as usual, on meta tensors, each of
torch's functions from memory (``nas.cost.forward``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from nas.architecture import Architecture
from nas.builder import Factory, FixedBuilder
from nas.cost.forward import Forward, forget_calls
from nas.cost.recorder import NotPlain
from nas.cost.standin import (
    Known,
    StandIn,
    Substitute,
    forget_modules,
    known,
    stand_in,
    weights_of,
)
from nas.cost.trace import peak_bytes
from nas.parts import Parts, named
from nas.space import SearchSpace

_parts: Parts[Known] = Parts(20_000)
_lock = threading.RLock()


def forget() -> None:
    """Empties all that cost readings remember in this process."""
    with _lock:
        _parts.forget()
        forget_modules()
        forget_calls()


class CostBuilder:
    """Answers with what an architecture picked, with stand-ins for what is known."""

    def __init__(self, space: SearchSpace, arch: Architecture) -> None:
        self._space = space
        self._arch = arch
        self._checker: FixedBuilder | None = None
        self._answers: dict[str, dict[str, Any]] = {
            "slot": dict(space.slots(arch)),
            "pick": arch.as_dict(),
        }
        self._asked: list[tuple[tuple[str, str], Any]] = []

    def _fixed(self) -> FixedBuilder:
        """Checks what is asked, and says what is wrong with it."""
        if self._checker is None:
            self._checker = FixedBuilder(self._space, self._arch)
        return self._checker

    def _ask(self, kind: str, label: str) -> Any:
        answer = self._answers[kind].get(label)
        self._asked.append(((kind, label), answer))
        return answer

    def slot(self, label: str, options: Mapping[str, Factory]) -> Any:
        module = self.edge(label, options)
        return self._fixed().slot(label, options) if module is None else module

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> Any:
        option = self._ask("slot", label)
        if option not in options:
            return self._fixed().edge(label, options)  # which says what is wrong
        factory = options[option]
        return None if factory is None else stand_in(factory)

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        self._ask("pick", label)
        return self._fixed().number(label, options)

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        return [block(index) for index in range(self.number(label, options))]

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        self._ask("slot", label)
        return self._fixed().subset(label, of)

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> Any:
        """A part of the network: known by what was answered when it was described before."""
        name = named(describe, args, {})
        if name is None:
            return describe(self, *args)
        part, asked = _parts.find(name, self._answers)
        if part is None:
            first = len(self._asked)
            module = describe(self, *args)
            part = known(module)
            _parts.keep(name, self._asked[first:], part)
        else:
            self._asked.extend(asked)
        return StandIn(part)


_FILLS = frozenset(
    {
        getattr(nn.init, name)
        for name in dir(nn.init)
        if name.endswith("_") and not name.startswith("_")
    }
    | {getattr(torch.Tensor, f"{name}_") for name in ("fill", "zero", "uniform", "normal")}
)


class Building(TorchFunctionMode):
    """Makes tensors on meta, as ``torch.device("meta")`` does, and skips giving them values."""

    def __init__(self) -> None:
        super().__init__()
        self._device = torch.device("meta")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            tensor = args[0] if args else kwargs.get("tensor")
            if type(tensor) in _FILLED and tensor.is_meta:
                return tensor
        if kwargs.get("device") is None and func in _device_constructors():
            kwargs = {**kwargs, "device": self._device}
        return func(*args, **kwargs)


_FILLED = (torch.Tensor, nn.Parameter)


@contextmanager
def alone() -> Iterator[None]:
    """One reading at a time, in the state of torch that counting runs in."""
    with _lock, torch.inference_mode(False), torch.no_grad():
        if torch.get_default_dtype() != torch.float32:
            raise NotPlain("float32 is not the default")
        if Substitute.forward is not None:
            raise NotPlain("a reading inside a reading")
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def running() -> Iterator[Forward]:
    """A forward pass for substitutes to be called in."""
    Substitute.forward = forward = Forward()
    try:
        yield forward
    finally:
        Substitute.forward = None


def read(space: SearchSpace, arch: Architecture) -> tuple[int, int, int, int]:
    """Parameters, MACs, peak activation memory and weight bytes of a valid architecture.

    Raises:
        NotPlain: this cannot follow the space's description.
        Exception: whatever building or running the network raises.
    """
    with alone():
        with Building():
            network = space.build(CostBuilder(space, arch))
        parameters, weight_bytes = weights_of(network)
        with running() as forward:
            result = forward.run(network, space.input)
        recorder = forward.recorder
        peak = peak_bytes(recorder.steps, recorder.sizes, [0], recorder.buffers_of(result))
        return parameters, recorder.macs, peak, weight_bytes

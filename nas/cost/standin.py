"""Stand-ins: what takes the place of a module in the cost reading.

A module described by its class and plain values was built once, on the meta device, and what it
did to an input of some shape was recorded once. Its parameters count at each place where it
stands, and its forward pass is put into the trace as it is.

A stand-in shows the class and the plain attributes of what it stands for. Whoever asks it for
more (its parameters, its children), sets something on it or puts it in training gets
``NotPlain``, and the network is built and counted instead: slower, and never another number.
What cannot be noticed is ``type(module)``: ask with ``isinstance``.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas.builder import Factory
from nas.cost.forward import Forward
from nas.cost.recorder import NotPlain, Recorder, Spec
from nas.cost.trace import Trace
from nas.cost.weights import BYTES, kept_tensors
from nas.parts import named, plain

_MOST_KNOWN = 20_000
_MOST_TRACES = 1_000

_modules: dict[Any, Known] = {}


def forget_modules() -> None:
    """Empties what is remembered of modules."""
    _modules.clear()


class Known:
    """A module that was built once, and what it did to the inputs it was given so far."""

    __slots__ = ("bytes", "module", "parameters", "traces")

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self.parameters, self.bytes = weights_of(module)
        self.traces: dict[Any, Trace] = {}

    def run(self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the module returns for these handles."""
        if len(self.traces) > _MOST_TRACES:
            self.traces.clear()

        def record(specs: list[Spec], call: Any) -> Trace:
            outer, inner = forward.recorder, Recorder(forward.used)
            buffers: dict[int, int] = {}
            again: dict[int, torch.Tensor] = {}
            own_args, own_kwargs = _again(inner, outer, call, buffers, again)
            forward.recorder = inner
            try:
                result = self.module(*own_args, **own_kwargs)
            finally:
                forward.recorder = outer
            return inner.finish(list(again.values()), len(buffers), result)

        return forward.recorder.call(self.traces, None, args, kwargs, record)


def _again(
    inner: Recorder,
    outer: Recorder,
    value: Any,
    buffers: dict[int, int],
    tensors: dict[int, torch.Tensor],
) -> Any:
    """An argument as handles of another recorder, tensors and buffers in the order they occur."""
    if isinstance(value, torch.Tensor):
        if id(value) not in tensors:
            known = outer.known(value)
            if known is None:
                tensors[id(value)] = value
            else:
                what, buffer = known
                if buffer not in buffers:
                    buffers[buffer] = len(buffers)
                    inner.sizes.append(outer.sizes[buffer])
                tensors[id(value)] = inner.handle(what, buffers[buffer])
        return tensors[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_again(inner, outer, part, buffers, tensors) for part in value)
    if type(value) is dict:
        return {name: _again(inner, outer, part, buffers, tensors) for name, part in value.items()}
    return value


class Substitute(ABC):
    """What a reading puts where a network has a module; it is called like one."""

    __slots__ = ("_training",)

    _training: bool
    forward: Forward | None = None
    """The forward pass that substitutes are called in; one at a time, see ``nas.cost.reading``."""

    def __init__(self) -> None:
        object.__setattr__(self, "_training", True)

    @abstractmethod
    def weights(self) -> tuple[int, int]:
        """Parameters and weight bytes at this place."""

    @abstractmethod
    def run(self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the module returns for these handles."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = Substitute.forward
        if self._training or forward is None:
            raise NotPlain("a module in training, or outside a forward pass")
        return self.run(forward, args, kwargs)

    def train(self, mode: bool = True) -> Any:
        object.__setattr__(self, "_training", mode)
        return self

    def eval(self) -> Any:
        return self.train(False)

    def __setattr__(self, name: str, value: Any) -> None:
        raise NotPlain(f"{name} is set from outside")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotPlain("a module is copied")


class StandIn(Substitute):
    """Stands for a known module at one place of a network."""

    __slots__ = ("_known",)

    def __init__(self, known: Known) -> None:
        super().__init__()
        object.__setattr__(self, "_known", known)

    @property  # type: ignore[misc]  # object's may be set, this may not
    def __class__(self) -> Any:
        return type(self._known.module)

    def __getattr__(self, name: str) -> Any:
        module = self._known.module
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__!r} object has no attribute {name!r}")
        value = vars(module).get(name, getattr(type(module), name, module))
        if plain(value) is None:
            raise NotPlain(f"{type(module).__name__}.{name} is asked for")
        return value

    def weights(self) -> tuple[int, int]:
        return self._known.parameters, self._known.bytes

    def run(self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._known.run(forward, args, kwargs)


def known(module: Any) -> Known:
    """What is known of a module that may be a stand-in already."""
    found: Known = module._known if type(module) is StandIn else Known(module)
    return found


def known_module(factory: Factory) -> Known:
    """What is known of what a factory makes."""
    return known(stand_in(factory))


def stand_in(factory: Factory) -> Any:
    """What a factory makes, or a stand-in where it is a partial or a class and plain."""
    if isinstance(factory, functools.partial):
        name = named(factory.func, factory.args, factory.keywords)
    else:
        name = factory if isinstance(factory, type) else None
    if name is None or not isinstance(name if isinstance(name, type) else name[0], type):
        return factory()
    found = _modules.get(name)
    if found is None:
        if len(_modules) > _MOST_KNOWN:
            _modules.clear()
        found = _modules[name] = Known(factory())
    return StandIn(found)


def weights_of(network: Any) -> tuple[int, int]:
    """Parameters and weight bytes of a network on meta that may hold stand-ins."""
    seen: set[int] = set()
    waiting = [network]
    parameters = total = 0
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if issubclass(type(module), Substitute):
            own = module.weights()
            parameters += own[0]
            total += own[1]
            continue
        for tensor, learnt in kept_tensors(module):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if tensor.dtype != torch.float32 or not tensor.is_meta:
                raise NotPlain(f"weights of {tensor.dtype} on {tensor.device}")
            size = tensor.numel()
            parameters += size if learnt else 0
            total += size * BYTES
        waiting.extend(child for child in module._modules.values() if child is not None)
    return parameters, total

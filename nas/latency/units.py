"""What a network is timed as: its operations, each with the shapes that it is called with.

A table of latencies is a sum over operations, so an operation should be as large as can be (what
a runtime fuses is then fused in it) and yet be met in many architectures. The builder's verbs say
where that is:

- what ``slot`` and ``edge`` return, and each block of a ``depth`` or ``part`` in which at most two
  of those are open (an MBConv block with what is added to it), is one operation;
- a block with more open in it (a cell) is taken apart into those and the rest;
- the rest, in which nothing is open (stem, head, preprocessing, classifier), is one operation for
  each module that is no mere container, leaf modules where it has many of them;
- and what a forward computes outside of its modules (the sums and concatenations of a cell) is one
  operation for each function of torch.

Operations are told apart by what they are (class, plain attributes, children, shapes of their own
tensors) and by the shapes of their inputs; where they stand and what they are called is nothing to
them. What computes nothing (identities, dropout at inference, views) is free and left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.architecture import Architecture
from nas.cost.memory import is_inference_norm
from nas.cost.reading import Building
from nas.errors import UnsupportedRequest
from nas.latency.marking import Marking, operations_in
from nas.latency.texts import structure, title
from nas.space import SearchSpace, member, network, validate


@dataclass(frozen=True)
class Operation:
    """Something that is timed once for all architectures that have it.

    Attributes:
        key: what it is, with its input shapes; equal keys, equal operations. It ends in a digest
            of everything that tells it apart.
        title: the same for people, without the digest.
        inputs: shape of each input tensor, the batch first.
        arch: an architecture that has it.
        path: the module's name in that one's network; empty for a function of torch.
        call: how it is called there.
    """

    key: str
    title: str
    inputs: tuple[tuple[int, ...], ...]
    arch: Architecture
    path: str
    call: Call = field(repr=False, compare=False)

    def module(self, space: SearchSpace) -> nn.Module:
        """It alone, on the CPU, in eval mode, with new weights; takes its inputs one by one.

        The weights are drawn from torch's global random state, which is left as it was.
        """
        if not self.path:
            return self.call.around(None).eval()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
            torch.manual_seed(0)
            found = network(space, self.arch).get_submodule(self.path)
        return self.call.around(found).eval()

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of its shapes: normal numbers, zeros where it takes integers."""
        generator = torch.Generator().manual_seed(0)
        return tuple(
            torch.randn(shape, generator=generator)
            if dtype.is_floating_point
            else torch.zeros(shape, dtype=dtype)
            for shape, dtype in zip(self.inputs, self.call.dtypes, strict=True)
        )


@dataclass(frozen=True)
class _Place:
    """Stands for an input tensor in the arguments of a call."""

    number: int


@dataclass(frozen=True)
class Call:
    """How a module or a function is called: its arguments, with the tensors taken out.

    Attributes:
        function: of torch; ``None`` where a module is called.
        args, kwargs: with a ``_Place`` for each tensor.
        dtypes: of the tensors.
    """

    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dtypes: tuple[torch.dtype, ...]

    def around(self, module: nn.Module | None) -> nn.Module:
        """What takes the tensors one by one; the module itself where it does so already."""
        plain = tuple(_Place(number) for number in range(len(self.dtypes)))
        if module is not None and self.args == plain and not self.kwargs:
            return module
        return Called(self, module)


class Called(nn.Module):
    """A function of torch, or a module with other arguments than tensors, called with tensors."""

    def __init__(self, call: Call, module: nn.Module | None) -> None:
        super().__init__()
        self.call = call
        self.inner = module

    def forward(self, *tensors: torch.Tensor) -> Any:
        function = self.call.function if self.inner is None else self.inner
        assert function is not None
        args = _replaced(self.call.args, lambda v: tensors[v.number], _Place)
        kwargs = _replaced(dict(self.call.kwargs), lambda v: tensors[v.number], _Place)
        return function(*args, **kwargs)


def units(space: SearchSpace, arch: Architecture, batch: int = 1) -> list[Operation]:
    """The operations of an architecture's network, one a call, in the order in which they run.

    Args:
        batch: examples at once.

    Raises:
        InvalidArchitecture: the architecture is not one of the space.
        UnsupportedRequest: its network cannot be run.
    """
    return read(space, arch, batch).operations


@dataclass(frozen=True)
class Reading:
    """What was found in one architecture's network.

    Attributes:
        operations: one for each call.
        own: for each block that is one operation, the labels of what is open in it.
        around: labels of numbers and subsets outside of those.
        depths: labels of depths.
    """

    operations: list[Operation]
    own: tuple[tuple[str, ...], ...]
    around: tuple[str, ...]
    depths: tuple[str, ...]


def read(space: SearchSpace, arch: Architecture, batch: int = 1) -> Reading:
    """``units``, with what was open where."""
    validate(space, arch)
    owner = member(space, arch)
    for meta in (True, False):
        builder, recorder = Marking(owner, arch), _Recorder(arch, meta)
        # What the constructors draw must not show in the caller's random numbers.
        with torch.random.fork_rng(devices=[]), _device(meta), torch.no_grad():
            try:
                built = owner.build(builder).eval()
                _watch(built, builder, recorder)
                with _no_fastpath(), recorder:
                    built(torch.zeros(batch, *space.input))
            except Exception as error:
                if meta:
                    continue  # its forward reads values: for real, once
                raise UnsupportedRequest(
                    f"{space.name!r}: the network of {arch} does not take {batch} examples of "
                    f"shape {space.input}: {type(error).__name__}: {error}"
                ) from error
        break
    return Reading(recorder.found, builder.own(), builder.around(), tuple(builder.depths))


def _device(meta: bool) -> AbstractContextManager[Any]:
    return Building() if meta else torch.device("cpu")


# ------------------------------------------------------------------------------- what is called


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves these untyped
    """Sees every function of a forward pass, and which operation it is in."""

    def __init__(self, arch: Architecture, meta: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.arch = arch
        self.meta = meta
        self.found: list[Operation] = []
        self.inside: nn.Module | None = None
        self.computes = False
        self._texts: dict[nn.Module, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if is_inference_norm(func, args) and args[0].device.type == "meta":
            # What torch's own meta kernel answers, without its milliseconds of bookkeeping.
            output: Any = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            output = func(*args, **kwargs)
        tensors = _tensors((args, kwargs))
        if tensors and not func.is_view:
            self.computes = True
            if self.inside is None:
                function = _out_of_place(func)
                name = func.overloadpacket.__name__.rstrip("_")
                self._note("", name, str(func), *_call(function, args, kwargs))
        return output

    def called(
        self, module: nn.Module, path: str, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """What an operation returns; on meta it is run once for inputs of some shapes."""
        if self.inside is not None:
            return forward(*args, **kwargs)
        if module not in self._texts:
            self._texts[module] = structure(module)
        call, inputs = _call(None, args, kwargs)
        about = self._texts[module], inputs, repr(call)
        known = _known.get(about)
        if known is None or not self.meta:
            self.inside, self.computes = module, False
            output = forward(*args, **kwargs)
            self.inside = None
            known = self.computes, None
            if type(output) is torch.Tensor:
                known = self.computes, (tuple(output.shape), output.dtype)
                if len(_known) > _MOST_KNOWN:
                    _known.clear()
                _known[about] = known
        else:
            assert known[1] is not None
            output = torch.empty(known[1][0], dtype=known[1][1], device="meta")
        if known[0]:
            self._note(path, title(module), self._texts[module], call, inputs)
        return output

    def _note(
        self, path: str, title: str, text: str, call: Call, inputs: tuple[tuple[int, ...], ...]
    ) -> None:
        shapes = " ".join("x".join(map(str, shape)) for shape in inputs)
        shown = f"{title} @ {shapes}"
        whole = f"{text}|{inputs}|{call.args}|{sorted(call.kwargs.items())}|{call.dtypes}"
        digest = hashlib.blake2b(whole.encode(), digest_size=6).hexdigest()
        self.found.append(Operation(f"{shown} #{digest}", shown, inputs, self.arch, path, call))


def _call(
    function: Callable[..., Any] | None, args: Any, kwargs: Any
) -> tuple[Call, tuple[tuple[int, ...], ...]]:
    """A call without its tensors, and the shapes of those."""
    tensors = _tensors((args, kwargs))
    numbered = {id(tensor): _Place(number) for number, tensor in enumerate(tensors)}
    held = _replaced(args, lambda tensor: numbered[id(tensor)], torch.Tensor)
    named = _replaced(dict(kwargs), lambda tensor: numbered[id(tensor)], torch.Tensor)
    inputs = tuple(tuple(tensor.shape) for tensor in tensors)
    return Call(function, tuple(held), named, tuple(t.dtype for t in tensors)), inputs


_MOST_KNOWN = 20_000
_known: dict[Any, tuple[bool, tuple[tuple[int, ...], torch.dtype] | None]] = {}
"""Whether an operation computes anything, and what it returns where that is one tensor."""


def _watch(built: nn.Module, builder: Marking, recorder: _Recorder) -> None:
    """Has the recorder called in place of each operation; the network is of no other use then."""
    for module, path in operations_in(built, builder).items():

        def forward(
            *args: Any,
            module: nn.Module = module,
            path: str = path,
            forward: Callable[..., Any] = module.forward,
            **kwargs: Any,
        ) -> Any:
            return recorder.called(module, path, forward, args, kwargs)

        module.forward = forward


@contextmanager
def _no_fastpath() -> Iterator[None]:
    """Attention as its functions: the fused kernel does not run on meta tensors."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _out_of_place(func: Any) -> Callable[..., Any]:
    """The function that leaves its arguments as they are, of one that does not (``add_``)."""
    name = func.overloadpacket.__name__
    if not (func._schema.is_mutable and name.endswith("_")):
        found: Callable[..., Any] = func
        return found
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, func._overloadname, func)  # type: ignore[no-any-return]  # an operator


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in nested arguments, each once, in the order in which they are met."""
    found: dict[int, torch.Tensor] = {}

    def walk(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.setdefault(id(part), part)
        elif isinstance(part, list | tuple):
            for inner in part:
                walk(inner)
        elif isinstance(part, dict):
            for inner in part.values():
                walk(inner)

    walk(value)
    return list(found.values())


def _replaced(value: Any, replace: Callable[[Any], Any], kind: type) -> Any:
    """Nested arguments with all that is of this kind replaced."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(part, replace, kind) for part in value)
    if isinstance(value, dict):
        return {name: _replaced(part, replace, kind) for name, part in value.items()}
    return value

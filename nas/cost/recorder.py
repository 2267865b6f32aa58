"""Records a forward pass on meta tensors, running each kind of call only once.

A call of a torch function is known by the function and by what its arguments are: shapes,
strides, types, which of them share a buffer, and plain values. What a call did when it was met
first (``nas.cost.trace.Trace``) is put in place when it is met again, and nothing runs. The
tensors that a forward pass sees here are handles: their shapes are right, their storage is not
looked at.

``NotPlain`` is raised for whatever this cannot follow exactly; the caller then counts the built
network instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from nas.cost.memory import tensors_in
from nas.cost.trace import Step, Trace

_MOST_HANDLES = 20_000


class NotPlain(Exception):
    """The fast reading cannot tell; the built network can."""


# Shape, stride and type.
Shape = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]

# A tensor as a call sees it; the number of its buffer among the call's (-1: a weight or a
# constant, which takes no activation memory), that buffer's bytes, and which of the call's tensors
# it is: functions ask whether two arguments are the same one.
Spec = tuple[Shape, int, int, int]

_handles: dict[Any, list[torch.Tensor]] = {}

_PLAIN = (int, float, complex, bool, str, type(None), torch.dtype, torch.device, torch.layout)
_VALUES = frozenset({*_PLAIN, torch.Size, torch.memory_format, type(...)})


def forget_handles() -> None:
    """Empties the store of handles; no forward pass may be under way."""
    _handles.clear()


def too_many_handles() -> bool:
    """Whether the store of handles is better emptied."""
    return sum(map(len, _handles.values())) > _MOST_HANDLES


class Recorder:
    """The forward pass so far: its steps, its buffers, and which tensor has which buffer."""

    def __init__(self, used: dict[Any, int]) -> None:
        self.steps: list[tuple[Step, tuple[int, ...]]] = []
        self.sizes: list[int] = []
        self.macs = 0
        # By id: handles live as long as the process keeps them, so an id is not used twice.
        self._known: dict[int, tuple[Shape, int]] = {}
        self._used = used

    # --------------------------------------------------------------------------- calls

    def call(
        self,
        memory: dict[Any, Trace],
        name: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Callable[[list[Spec], Any], Trace],
    ) -> Any:
        """What a call returns, as handles; ``record`` runs it where it is new to ``memory``."""
        tensors: list[torch.Tensor] = []
        buffers: list[int] = []
        key = self._key_of_tensors(name, args, tensors, buffers) if not kwargs else None
        if key is None:
            key = (name, self._key((args, kwargs), [], tensors, buffers))
        trace = memory.get(key)
        if trace is None:
            specs: list[Spec] = []
            self._key((args, kwargs), specs, [], [])
            trace = memory[key] = record(specs, (args, kwargs))
        first = len(self.sizes)
        if trace.steps:
            for buffer in trace.made:
                self.sizes.append(trace.sizes[buffer])
            # A trace numbers the buffers of its call first, in the order of the arguments.
            mine = [buffers[buffer] for buffer in trace.arguments]
            mine.extend(range(first, len(self.sizes)))
            self.steps.append((trace, tuple(mine)))
            self.macs += trace.macs
        leaves, structure = trace.result
        made: dict[int, torch.Tensor] = {}
        if structure is None:
            return self._leaf(leaves[0], tensors, buffers, first, made)
        return tree_unflatten(
            [self._leaf(leaf, tensors, buffers, first, made) for leaf in leaves], structure
        )

    def _key_of_tensors(
        self, name: Any, args: tuple[Any, ...], tensors: list[torch.Tensor], buffers: list[int]
    ) -> Any:
        """The key of a call that has tensors of this forward pass alone; ``None`` for others."""
        key = [name]
        for value in args:
            known = self._known.get(id(value))
            if known is None:
                tensors.clear()
                buffers.clear()
                return None
            before = len(tensors)
            place = _place(value, tensors)
            if place < before:
                key.append(-1 - place)
                continue
            what, buffer = known
            if buffer in buffers:
                key.append((buffers.index(buffer), what))
            else:
                buffers.append(buffer)
                key.append(self.sizes[buffer])
                key.append(what)
        return tuple(key)

    def _key(
        self, value: Any, specs: list[Spec], tensors: list[torch.Tensor], buffers: list[int]
    ) -> Any:
        kind = type(value)
        if kind is tuple or kind is list:
            return (kind, *[self._key(part, specs, tensors, buffers) for part in value])
        if kind in _VALUES:
            return (kind, value)
        if isinstance(value, torch.Tensor):
            spec = self._spec(value, tensors, buffers)
            specs.append(spec)
            return spec
        if kind is dict:
            return (
                dict,
                *[(n, self._key(part, specs, tensors, buffers)) for n, part in value.items()],
            )
        if kind is slice:
            bounds = (value.start, value.stop, value.step)
            if any(isinstance(bound, torch.Tensor) for bound in bounds):
                raise NotPlain("a slice by tensors")
            return (slice, *[self._key(bound, specs, tensors, buffers) for bound in bounds])
        raise NotPlain(f"an argument of type {kind.__name__}")

    def _spec(self, tensor: torch.Tensor, tensors: list[torch.Tensor], buffers: list[int]) -> Spec:
        place = _place(tensor, tensors)
        known = self._known.get(id(tensor))
        if known is None:
            with torch._C.DisableTorchFunction():
                if not tensor.is_meta or tensor.layout != torch.strided:
                    raise NotPlain("a constant with values")
                return ((tuple(tensor.shape), tensor.stride(), tensor.dtype), -1, 0, place)
        what, buffer = known
        if buffer not in buffers:
            buffers.append(buffer)
        return (what, buffers.index(buffer), self.sizes[buffer], place)

    def _leaf(
        self,
        leaf: Any,
        tensors: list[torch.Tensor],
        buffers: list[int],
        first: int,
        made: dict[int, torch.Tensor],
    ) -> Any:
        if type(leaf) is not _Result:
            return leaf
        if leaf.argument >= 0:
            return tensors[leaf.argument]
        if leaf.place not in made:
            buffer = -1
            if leaf.made:
                buffer = first + leaf.number
            elif leaf.number >= 0:
                buffer = buffers[leaf.number]
            made[leaf.place] = self.handle(leaf.what, buffer)
        return made[leaf.place]

    # -------------------------------------------------------------------------- tensors

    def example(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The network's input: a batch of one, in the first buffer."""
        shape = (1, *shape)
        with torch._C.DisableTorchFunction():
            tensor = torch.empty(shape, device="meta")
            self.sizes.append(tensor.untyped_storage().nbytes())
            return self.handle((shape, tensor.stride(), tensor.dtype), 0)

    def known(self, tensor: torch.Tensor) -> tuple[Shape, int] | None:
        """Shape and buffer of a tensor of this forward pass; ``None`` for any other."""
        return self._known.get(id(tensor))

    def adopt(self, tensor: torch.Tensor, buffer: int) -> None:
        """A tensor that has one of the buffers here."""
        self._known[id(tensor)] = ((tuple(tensor.shape), tensor.stride(), tensor.dtype), buffer)

    def handle(self, what: Shape, buffer: int) -> torch.Tensor:
        """A tensor to be passed on in place of a real one, in this buffer (-1: in none)."""
        number = self._used.get(what, 0)
        self._used[what] = number + 1
        pool = _handles.get(what)
        if pool is None:
            pool = _handles[what] = []
        if number == len(pool):
            shape, stride, dtype = what
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                pool.append(torch.empty_strided(shape, stride, dtype=dtype, device="meta"))
        handle = pool[number]
        if buffer >= 0:
            self._known[id(handle)] = (what, buffer)
        return handle

    def buffers_of(self, value: Any) -> list[int]:
        """The buffers of the tensors in a value."""
        found = (self._known.get(id(tensor)) for tensor in tensors_in(value))
        return [known[1] for known in found if known is not None]

    def finish(self, given: Sequence[torch.Tensor], arguments: int, result: Any) -> Trace:
        """The trace of a call of these tensors, in so many buffers, that returned this."""
        read = {buffer for step, ids in self.steps for buffer in ids[: step.reads]}
        leaves, structure = tree_flatten(result)
        out: list[Any] = []
        made: list[int] = []
        returned: list[torch.Tensor] = []
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                if type(leaf) not in _VALUES:
                    raise NotPlain(f"a result of type {type(leaf).__name__}")
                out.append(leaf)
                continue
            place = _place(leaf, returned)
            argument = next((n for n, tensor in enumerate(given) if tensor is leaf), -1)
            known = self._known.get(id(leaf))
            if known is None:
                out.append(_Result(self._spec(leaf, [], [])[0], -1, False, place, argument))
                continue
            what, buffer = known
            if buffer < arguments:
                out.append(_Result(what, buffer, False, place, argument))
            else:
                if buffer not in made:
                    made.append(buffer)
                out.append(_Result(what, made.index(buffer), True, place, argument))
        single = isinstance(result, torch.Tensor) or structure.is_leaf()
        return Trace(
            macs=self.macs,
            steps=tuple(self.steps),
            sizes=tuple(self.sizes),
            arguments=tuple(buffer for buffer in range(arguments) if buffer in read),
            made=tuple(made),
            result=(tuple(out), None if single else structure),
        )


def _place(tensor: torch.Tensor, tensors: list[torch.Tensor]) -> int:
    """The position of this very tensor, put at the end where it is new."""
    for place, other in enumerate(tensors):
        if other is tensor:
            return place
    tensors.append(tensor)
    return len(tensors) - 1


class _Result:
    """A tensor that a trace returns.

    Attributes:
        what: its shape.
        number: of its buffer, among what the call made or else among its arguments' (-1: none).
        made: whether the call made its buffer.
        place: among the tensors returned; one may be returned twice.
        argument: which of the call's tensors it is, -1 for none.
    """

    __slots__ = ("argument", "made", "number", "place", "what")

    def __init__(self, what: Shape, number: int, made: bool, place: int, argument: int) -> None:
        self.what = what
        self.number = number
        self.made = made
        self.place = place
        self.argument = argument

"""The forward pass of a recorder: torch's functions from memory, the operations of new ones."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from nas.cost.macs import multiply_accumulates
from nas.cost.memory import is_inference_norm, may_overwrite, tensors_in
from nas.cost.recorder import NotPlain, Recorder, Spec, forget_handles, too_many_handles
from nas.cost.trace import Operation, Trace

_MOST_CALLS = 100_000

_calls: dict[Any, Trace] = {}


def forget_calls() -> None:
    """Empties what is remembered of torch's functions."""
    _calls.clear()
    forget_handles()


class Forward(TorchFunctionMode):
    """Answers torch's functions from memory during a forward pass, and records what is new."""

    def __init__(self) -> None:
        super().__init__()
        if len(_calls) > _MOST_CALLS or too_many_handles():
            forget_calls()
        self.used: dict[Any, int] = {}
        self.recorder = Recorder(self.used)
        self._operations = _Operations()

    def run(self, network: nn.Module, shape: tuple[int, ...]) -> Any:
        """What a network returns, in eval mode, for one example of a shape."""
        network.eval()
        example = self.recorder.example(tuple(shape))
        with self:
            return network(example)

    def __enter__(self) -> Any:
        self._operations.__enter__()  # type: ignore[no-untyped-call]  # untyped in torch
        return super().__enter__()  # type: ignore[no-untyped-call]  # untyped in torch

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # untyped in torch
        self._operations.__exit__(*error)  # type: ignore[no-untyped-call]  # untyped in torch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        def record(specs: list[Spec], call: Any) -> Trace:
            return self._run(func, specs, call)

        return self.recorder.call(_calls, func, args, kwargs or {}, record)

    def _run(self, func: Any, specs: list[Spec], call: Any) -> Trace:
        """Runs a function on tensors that share storage as its arguments do."""
        recorder = Recorder(self.used)
        leaves, structure = tree_flatten(call)
        storages: dict[int, torch.UntypedStorage] = {}
        given: list[torch.Tensor] = []
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        with self._operations.off():
            for index, spec in zip(places, specs, strict=True):
                if spec[3] == len(given):
                    weight = spec[1] < 0
                    given.append(leaves[index] if weight else _with_storage(spec, storages))
                leaves[index] = given[spec[3]]
            args, kwargs = tree_unflatten(leaves, structure)
        for number in range(len(storages)):
            recorder.sizes.append(storages[number].nbytes())
        self._operations.begin(recorder, storages)
        try:
            with torch.device("meta"):
                result = func(*args, **kwargs)
        finally:
            self._operations.end()
        for what, _, _, place in specs:
            tensor = given[place]
            if (tuple(tensor.shape), tensor.stride(), tensor.dtype) != what:
                raise NotPlain("an argument changes its shape")
        self._operations.adopt(recorder, result)
        return recorder.finish(given, len(storages), result)


def _with_storage(spec: Spec, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    (shape, stride, dtype), buffer, size, _ = spec
    if buffer not in storages:
        storages[buffer] = torch.empty(size, dtype=torch.uint8, device="meta").untyped_storage()
    tensor = torch.empty(0, dtype=dtype, device="meta")
    return tensor.set_(storages[buffer], 0, shape, stride)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Sees the operations below a function; one that comes past the functions is refused."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self._recorder: Recorder | None = None
        self._buffers: dict[int, int] = {}
        # Storages are told apart by address, so none may be freed while others are recorded.
        self._held: list[torch.UntypedStorage] = []

    def off(self) -> AbstractContextManager[Any]:
        manager: AbstractContextManager[Any] = _disable_current_modes()
        return manager

    def begin(self, recorder: Recorder, storages: Mapping[int, torch.UntypedStorage]) -> None:
        self._recorder = recorder
        self._buffers = {storage._cdata: number for number, storage in storages.items()}
        self._held = list(storages.values())

    def end(self) -> None:
        self._recorder = None

    def adopt(self, recorder: Recorder, result: Any) -> None:
        """Tells a recorder which buffers the tensors of a result have."""
        for tensor in tensors_in(result):
            if not tensor.is_meta or tensor.layout != torch.strided:
                raise NotPlain("a result with values")
            buffer = self._buffers.get(self._key(tensor), -1)
            if buffer >= 0:
                recorder.adopt(tensor, buffer)

    def _key(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        return int(storage._cdata)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        recorder = self._recorder
        if recorder is None:
            raise NotPlain(f"{func} is not called through torch's functions")
        kwargs = kwargs or {}
        if is_inference_norm(func, args):
            output: Any = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            output = func(*args, **kwargs)
        recorder.macs += multiply_accumulates(func, args, kwargs, output)
        reads = dict.fromkeys(self._key(tensor) for tensor in tensors_in([args, kwargs]))
        reads = {key: None for key in reads if key in self._buffers}
        # Views of weights are weights; what was not there before is made here.
        weights = {self._key(tensor) for tensor in tensors_in([args, kwargs])} - set(self._buffers)
        results = [
            (self._key(tensor), tensor)
            for tensor in tensors_in(output)
            if self._key(tensor) not in self._buffers
        ]
        made: dict[int, int] = {}
        for key, tensor in results:
            if key not in weights and key not in made:
                made[key] = len(recorder.sizes)
                recorder.sizes.append(tensor.untyped_storage().nbytes())
        beside = {key for key, _ in results[1:]}
        buffers = [*(self._buffers[key] for key in reads), *made.values()]
        if buffers:
            operation = Operation(
                reads=len(reads),
                sizes=tuple(recorder.sizes[buffer] for buffer in buffers),
                beside=tuple(
                    len(reads) + position for position, key in enumerate(made) if key in beside
                ),
                overwrites=bool(results) and results[0][0] in made and may_overwrite(func, args),
            )
            recorder.steps.append((operation, tuple(buffers)))
        self._buffers.update(made)
        return output

"""Peak activation memory, by liveness.

The forward pass is a list of operations in the order in which the network runs them. Every
tensor that is not a weight has a buffer, as large as its storage:

- the input's buffer is live from the beginning, any other from the operation that makes it;
- it is live up to and including the last operation that reads it, and what the network returns
  stays live to the end;
- a view (reshape, transpose, slice, …) has its base's buffer, and reading it reads the base;
- an element-wise operation, or a batch norm in inference, writes its result into the buffer of
  an operand when that operand is not needed afterwards and the sizes match, as inference
  runtimes do after folding;
- further results that nothing reads (statistics a norm returns beside its output) have none.

The peak is the largest sum of live buffers over the operations: an operation's operands and its
result are live together. Weights and batch-norm statistics are not counted, nor is the scratch
space of a kernel, which is the runtime's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

# Element-wise, but not tagged so by torch.
_UNTAGGED = {"aten::hardswish", "aten::_prelu_kernel", "aten::log_sigmoid_forward"}


class Liveness:
    """Records the operations of a forward pass and says how many bytes they need at once."""

    def __init__(self) -> None:
        self._excluded: set[int] = set()
        self._bytes: dict[int, int] = {}
        self._birth: dict[int, int] = {}
        self._death: dict[int, int] = {}
        # Operations that may write over an operand: (operand storages, result storage) by time.
        self._overwriting: dict[int, tuple[list[int], int]] = {}
        self._unread: set[int] = set()
        self._time = 0
        # Storages are told apart by address, so none may be freed while others are recorded.
        self._held: list[torch.UntypedStorage] = []

    def exclude(self, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors whose memory does not count."""
        self._excluded.update(self._key(tensor) for tensor in tensors)

    def born(self, tensor: torch.Tensor) -> None:
        """A buffer is made now, unless the tensor is a view of one that is there."""
        key = self._key(tensor)
        if key not in self._excluded and key not in self._birth:
            self._bytes[key] = tensor.untyped_storage().nbytes()
            self._birth[key] = self._death[key] = self._time

    def record(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """One operation: it reads its arguments and makes (or aliases) its results."""
        self._time += 1
        operands = [self._key(tensor) for tensor in tensors_in([args, kwargs])]
        for key in operands:
            if key in self._birth:
                self._death[key] = self._time
                self._unread.discard(key)
            else:  # made before the pass began: a constant, which is a weight in all but name
                self._excluded.add(key)
        results = [tensor for tensor in tensors_in(output) if self._key(tensor) not in self._birth]
        for tensor in results:
            self.born(tensor)
        self._unread.update(self._key(tensor) for tensor in results[1:])
        if results and may_overwrite(func, args):
            self._overwriting[self._time] = (operands, self._key(results[0]))

    def kept(self, result: Any) -> None:
        """What the network returns: live to the end."""
        for tensor in tensors_in(result):
            key = self._key(tensor)
            self._unread.discard(key)
            if key in self._birth:
                self._death[key] = self._time + 1  # after the last operation

    def peak_bytes(self) -> int:
        """The largest sum of live buffers."""
        death = dict(self._death)
        for time, (operands, result) in self._overwriting.items():
            for key in operands:
                dies = death.get(key) == time and self._birth[key] < time
                if dies and key != result and self._bytes[key] == self._bytes.get(result):
                    death[key] = time - 1
                    break
        change = [0] * (self._time + 3)
        for key, birth in self._birth.items():
            if key not in self._unread:
                change[birth] += self._bytes[key]
                change[death[key] + 1] -= self._bytes[key]
        live = peak = 0
        for difference in change:
            live += difference
            peak = max(peak, live)
        return peak

    def _key(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        return int(storage._cdata)


def tensors_in(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def is_inference_norm(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation is a batch norm that uses its running statistics."""
    if func._schema.name == "aten::native_batch_norm":
        return bool(not args[5])  # training
    return bool(func._schema.name == "aten::_native_batch_norm_legit_no_training")


def may_overwrite(func: Any, args: Sequence[Any]) -> bool:
    if torch.Tag.pointwise in func.tags or func._schema.name in _UNTAGGED:
        return True
    return is_inference_norm(func, args)

"""Objects on their way to Ray's workers, with their shared tensors apart.

The tensors (``nas.shared``) go into Ray's object store as arrays. All workers of a machine read
them there, in the same memory: a worker takes none of its own for them, and nothing has to be
copied before it begins.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import cloudpickle

from nas.shared import Shared

LEAST_BYTES = 2**14
"""A smaller tensor is copied: what is said of it would be as long."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An object in pieces.

    Attributes:
        content: pickled, what lives in a script by value.
        tensors: the bytes of its shared tensors, (n,) each; Ray keeps these apart.
    """

    content: bytes
    tensors: tuple[np.ndarray[Any, Any], ...]


def packed(value: object) -> Packed:
    """Takes an object apart; raises whatever its pickling raises."""
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    pickler.dump(value)  # type: ignore[no-untyped-call]  # Ray has no annotations for it
    return Packed(stream.getvalue(), tuple(pickler.tensors))


def unpacked(found: Packed) -> Any:
    """The object, over the same memory: writing into its shared tensors is forbidden."""
    return _Unpickler(io.BytesIO(found.content), found.tensors).load()


class _Pickler(cloudpickle.CloudPickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)  # type: ignore[no-untyped-call]  # as above
        self.tensors: list[np.ndarray[Any, Any]] = []
        self._places: dict[int, int] = {}

    def persistent_id(self, value: object) -> Any:
        """The place of a shared tensor, its type and its shape; nothing for all else."""
        if type(value) is not Shared:
            return None
        torch = sys.modules["torch"]  # it has a tensor, so it is loaded
        tensor = value.tensor
        plain = type(tensor) is torch.Tensor and tensor.device.type == "cpu"
        if not (plain and tensor.is_contiguous()) or tensor.nbytes < LEAST_BYTES:
            return None
        if id(tensor) not in self._places:  # the object holds it: an id is not used again
            self._places[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor.detach().reshape(-1).view(torch.uint8).numpy())
        return self._places[id(tensor)], str(tensor.dtype), tuple(tensor.shape)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: tuple[np.ndarray[Any, Any], ...]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, found: Any) -> Any:
        import torch  # as late as what is loaded needs it

        place, dtype, shape = found
        with warnings.catch_warnings():
            # That is the point of it.
            read_only = "The given NumPy array is not writable"
            warnings.filterwarnings("ignore", message=read_only, category=UserWarning)
            content = torch.from_numpy(self.tensors[place])
        return content.view(getattr(torch, dtype.removeprefix("torch."))).reshape(shape)

"""A strategy's state as JSON: its tensors to the bit, and nothing that would be unpickled."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from nas.errors import NasError

_TENSOR = "$tensor"


def encoded(state: Mapping[str, Any]) -> dict[str, Any]:
    """A plain state (``nas.strategy.Strategy``) as JSON values; tensors as safetensors in base64.

    Raises:
        NasError: something in it is not plain.
    """
    tensors: dict[str, Any] = {}
    values = _without_tensors(state, tensors)
    if not tensors:
        return {"values": values, "tensors": None}
    from safetensors.torch import save

    return {"values": values, "tensors": base64.b64encode(save(tensors)).decode()}


def decoded(document: Mapping[str, Any]) -> Any:
    """What ``encoded`` was given; raises whatever a damaged document leads to."""
    tensors: dict[str, Any] = {}
    if document["tensors"] is not None:
        from safetensors.torch import load

        tensors = load(base64.b64decode(document["tensors"], validate=True))
    return _with_tensors(document["values"], tensors)


def _without_tensors(value: Any, tensors: dict[str, Any]) -> Any:
    """JSON values; the tensors are put aside under numbered names."""
    if isinstance(value, Mapping):
        return {key: _without_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    import torch

    if not isinstance(value, torch.Tensor):
        raise NasError(f"a strategy's state holds a {type(value).__name__}, which is not plain")
    name = str(len(tensors))
    # A copy: safetensors takes no two tensors that share memory.
    tensors[name] = value.detach().to("cpu", copy=True).contiguous()
    return {_TENSOR: name}


def _with_tensors(value: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value

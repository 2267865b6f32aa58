"""Whether source makes the network it was written from: structure, weights, output to the bit."""

from __future__ import annotations

import sys
import types
import uuid
from typing import Any

import torch
from torch import nn

from nas.errors import ExportError


def verify(source: str, original: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Runs the source, builds, loads the original's weights, and compares.

    Args:
        source: of the exported file.
        original: in eval mode; not run yet, for a forward pass may leave traces in attributes.
        x: an input.

    Returns:
        The output of both.

    Raises:
        ExportError: where the two first differ.
    """
    name = f"_exported_{uuid.uuid4().hex}"
    module = types.ModuleType(name)
    sys.modules[name] = module  # where dataclasses, for one, look their annotations up
    try:
        try:
            exec(compile(source, "model.py", "exec"), vars(module))
            rebuilt: nn.Module = module.build()
        except Exception as error:
            raise ExportError(
                f"the exported source does not run: {type(error).__name__}: {error}"
            ) from error
        _compare(original, rebuilt)
        rebuilt.load_state_dict(original.state_dict())
        rebuilt.eval()
        output = _run(original, x, "the network")
        if not torch.equal(output, _run(rebuilt, x, "the exported network")):
            raise ExportError(
                "the exported network's output is not the original's: a constructor or forward "
                "depends on something that is neither an argument nor a weight, or is random in "
                "eval mode"
            )
        return output
    finally:
        del sys.modules[name]


def _run(model: nn.Module, x: torch.Tensor, which: str) -> torch.Tensor:
    try:
        output = model(x)
    except Exception as error:
        raise ExportError(
            f"{which} does not take a float32 input of shape {tuple(x.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise ExportError(
            f"{which} gives a {type(output).__name__}; to be exported it must give one tensor"
        )
    if not bool(torch.isfinite(output).all()):
        raise ExportError(f"{which} gives an output that is not finite: its weights are of no use")
    return output


def _compare(original: nn.Module, rebuilt: nn.Module) -> None:
    here = dict(original.named_modules(remove_duplicate=False))
    there = dict(rebuilt.named_modules(remove_duplicate=False))
    for path in here.keys() ^ there.keys():
        raise ExportError(
            f"module {path!r} is not made by its parent's constructor with the arguments kept as "
            "attributes: do not add or take modules after construction"
        )
    for path, module in here.items():
        kind, known = type(there[path]).__qualname__, type(module).__qualname__
        if kind != known:
            raise ExportError(f"module {path!r} is a {known}, but is exported as a {kind}")
        for name, value in vars(module).items():
            if name.startswith("_") or name == "training" or not _is_plain(value):
                continue
            made = vars(there[path]).get(name)
            if repr(_collapsed(value)) != repr(_collapsed(made)):
                raise ExportError(
                    f"attribute {name!r} of module {path!r} ({known}) is {value!r}, but the "
                    f"constructor makes it {made!r}: an argument must be kept as it was given, "
                    "and no attribute changed afterwards"
                )
    state, made_state = original.state_dict(), rebuilt.state_dict()
    for name in (*state, *made_state):
        old, new = state.get(name), made_state.get(name)
        if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
            raise ExportError(
                f"tensor {name!r} is {_say(old)}, but in the exported network {_say(new)}"
            )
    if list(state) != list(made_state):
        raise ExportError("the exported network's tensors come in another order")
    if _tied(original) != _tied(rebuilt):
        raise ExportError(
            f"parameters that are one tensor ({_tied(original)}) are not in the exported network "
            f"({_tied(rebuilt)}): tie them in the constructor of a module of your own"
        )


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _collapsed(value: Any) -> Any:
    """(3, 3) as 3: torch takes either where the same size is meant for all dimensions."""
    if isinstance(value, tuple | list):
        if value and all(item == value[0] for item in value):
            return value[0]
        return tuple(value)
    return value


def _tied(network: nn.Module) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _say(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"

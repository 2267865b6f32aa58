"""Modules as text: what tells their computations apart, and what people read."""

from __future__ import annotations

from typing import Any

from torch import nn

_PLAIN = (int, float, bool, str, type(None))


def structure(module: nn.Module) -> str:
    """Everything that tells a module's computation apart, as text: equal texts, equal work.

    Classes, their plain attributes, the shapes of their own tensors, and their children.
    """
    plain = {
        name: value
        for name, value in sorted(vars(module).items())
        if name != "training" and not name.startswith("_") and _is_plain(value)
    }
    own = [*module._parameters.items(), *module._buffers.items()]
    shapes = {name: tuple(tensor.shape) for name, tensor in own if tensor is not None}
    children = ", ".join(f"{name}: {structure(child)}" for name, child in module.named_children())
    return f"{type(module).__name__}({plain}, {shapes}, {{{children}}})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def title(module: nn.Module) -> str:
    """The class with its plain arguments, and the modules inside where it has none of its own."""
    names = [name for name in _arguments(type(module)) if _is_plain(vars(module).get(name, ...))]
    if names:
        shown = ", ".join(f"{name}={vars(module)[name]!r}" for name in names)
    elif next(module.children(), None) is None:
        shown = module.extra_repr()
    else:
        shown = ", ".join(title(child) for child in module.children())
    return f"{type(module).__name__}({shown})"


def _arguments(kind: type) -> list[str]:
    code = getattr(kind.__init__, "__code__", None)  # type: ignore[misc]  # of the class, not of an instance
    if code is None or kind.__module__.startswith("torch."):
        return []  # torch's classes show themselves
    return list(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])

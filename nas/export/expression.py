"""A network as the constructor calls that make it, laid out as a formatter would.

It works because of one habit: an argument of a constructor is an attribute of the same name.
torch's own classes keep it but for a few arguments, which are listed here.
"""

from __future__ import annotations

import builtins
import inspect
import itertools
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import ExportError

LINE = 100


# ------------------------------------------------------------------------------------ layout


@dataclass(frozen=True)
class Code:
    """A piece of an expression: plain text, or brackets around parts.

    Attributes:
        head: all of it, or what stands before the opening bracket.
        parts: what the brackets hold; ``None`` where there are none.
        brackets: the pair.
        each: for a generator expression, what follows its only part.
    """

    head: str
    parts: tuple[Code, ...] | None = None
    brackets: str = "()"
    each: str = ""

    def prefixed(self, prefix: str) -> Code:
        return replace(self, head=prefix + self.head)

    def inside(self) -> str:
        joined = ", ".join(part.flat() for part in self.parts or ())
        return f"{joined} {self.each}" if self.each else joined

    def flat(self) -> str:
        """On one line."""
        if self.parts is None:
            return self.head
        return self.head + self.brackets[0] + self.inside() + self.brackets[1]

    def lines(self, indent: int, end: str = "") -> Iterator[str]:
        """On as few lines as fit, by the rules of ruff and black."""
        margin = " " * indent
        flat = margin + self.flat() + end
        if not self.parts or len(flat) <= LINE:
            yield flat
            return
        yield margin + self.head + self.brackets[0]
        inner = margin + "    " + self.inside()
        if self.brackets == "()" and len(inner) <= LINE:
            yield inner
        else:
            for part in self.parts:
                yield from part.lines(indent + 4, "," if len(self.parts) > 1 else "")
            if self.each:
                yield margin + "    " + self.each
        yield margin + self.brackets[1] + end


# ------------------------------------------------------------------------------------ names


class Names(Protocol):
    """Where the names go that an expression uses."""

    def need(self, value: Any) -> str:
        """The name of a class or function that has to be in the file."""

    def need_import(self, module: str, member: str | None = None, alias: str | None = None) -> str:
        """The name that an import statement binds."""


def spell(network: nn.Module, names: Names) -> Code:
    """The expression that makes a network of the same structure.

    Raises:
        ExportError: an argument has no attribute of its name, or a value no source code.
    """
    return _module(network, names, "")


# ---------------------------------------------------------------------------------- modules


def _module(module: nn.Module, names: Names, place: str) -> Code:
    cls = type(module)
    maker = next(base for base in cls.__mro__ if "__init__" in vars(base))
    head = _class(cls, names, f"{_at(place)} is a {cls.__name__}")
    if maker in (nn.Module, nn.Identity):
        return Code(head, ())
    if maker is nn.Sequential:
        return _sequential(module, head, names, place)
    if maker is nn.ModuleList:
        return _module_list(module, head, names, place)
    if maker is nn.ModuleDict:
        return _module_dict(module, head, names, place)
    arguments = _torch_arguments if _is_torch(maker) else _own_arguments
    return Code(head, tuple(arguments(module, maker, names, place)))


def _sequential(module: nn.Module, head: str, names: Names, place: str) -> Code:
    children = _children(module, names, place)
    if [name for name, _ in children] == [str(index) for index in range(len(children))]:
        return Code(head, tuple(_runs([code for _, code in children])))
    ordered = names.need_import("collections", "OrderedDict")
    pairs = tuple(Code("", (Code(_string(name)), code)) for name, code in children)
    return Code(head, (Code(ordered, (Code("", pairs, "[]"),)),))


def _module_list(module: nn.Module, head: str, names: Names, place: str) -> Code:
    runs = list(_runs([code for _, code in _children(module, names, place)]))
    if not runs:
        return Code(head, ())
    if len(runs) == 1 and runs[0].each:
        return replace(runs[0], head=head)
    return Code(head, (Code("", tuple(runs), "[]"),))


def _module_dict(module: nn.Module, head: str, names: Names, place: str) -> Code:
    children = _children(module, names, place)
    if not children:
        return Code(head, ())
    entries = tuple(code.prefixed(f"{_string(name)}: ") for name, code in children)
    return Code(head, (Code("", entries, "{}"),))


def _children(module: nn.Module, names: Names, place: str) -> list[tuple[str, Code]]:
    found = []
    for name, child in module._modules.items():
        if child is None:
            raise ExportError(f"{_at(place)} holds None under {name!r}: leave it out")
        found.append((name, _module(child, names, _inside(place, name))))
    return found


def _runs(parts: list[Code]) -> Iterator[Code]:
    """Three or more equal parts in a row as one generator expression."""
    for part, group in itertools.groupby(parts):
        length = len(list(group))
        if length < 3:
            yield from [part] * length
        else:
            yield Code("*", (part,), each=f"for _ in range({length})")


# -------------------------------------------------------------------------------- arguments


def _own_arguments(module: nn.Module, maker: type, names: Names, place: str) -> Iterator[Code]:
    """Every argument, as a keyword: the reader need not look up a class of the file."""
    for name, parameter in _parameters(maker).items():
        where = f"{_at(place)}: argument {name!r} of {maker.__name__}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ExportError(
                f"{_at(place)}: {maker.__name__} takes {str(parameter).split(':')[0]}, which "
                "cannot be read back from it: name each argument and keep it as an attribute"
            )
        if not hasattr(module, name):
            raise ExportError(
                f"{where} is not kept: write 'self.{name} = {name}' in its constructor"
            )
        value = getattr(module, name)
        if inspect.ismethod(value):
            raise ExportError(
                f"{where} has the name of a method, which hides it: rename the argument"
            )
        code = _value(value, names, _inside(place, name), where)
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        yield code if positional else code.prefixed(f"{name}=")


Reader = Callable[[Any], Any]

_LAYER: dict[str, Reader] = {
    "d_model": lambda m: m.self_attn.embed_dim,
    "nhead": lambda m: m.self_attn.num_heads,
    "dim_feedforward": lambda m: m.linear1.out_features,
    "dropout": lambda m: m.dropout.p,
    "layer_norm_eps": lambda m: m.norm1.eps,
    "batch_first": lambda m: m.self_attn.batch_first,
    "bias": lambda m: m.linear1.bias is not None,
}
_READERS: dict[type, Mapping[str, Reader]] = {
    nn.MultiheadAttention: {
        "bias": lambda m: m.in_proj_bias is not None,
        "add_bias_kv": lambda m: m.bias_k is not None,
        "kdim": lambda m: None if m.kdim == m.embed_dim else m.kdim,
        "vdim": lambda m: None if m.vdim == m.embed_dim else m.vdim,
    },
    nn.TransformerEncoderLayer: _LAYER,
    nn.TransformerDecoderLayer: _LAYER,
    nn.TransformerEncoder: {"encoder_layer": lambda m: m.layers[0]},
    nn.TransformerDecoder: {"decoder_layer": lambda m: m.layers[0]},
}
"""Arguments of torch's classes that are attributes of another name, or of another module."""

_SIZES = {"kernel_size", "stride", "padding", "dilation", "output_padding"}
"""Arguments for which one number means the same in every dimension."""


def _torch_arguments(module: nn.Module, maker: type, names: Names, place: str) -> Iterator[Code]:
    """What is required by position, the rest as keywords where it is not the default."""
    readers = _READERS.get(maker, {})
    for name, parameter in _parameters(maker).items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ExportError(
                f"{_at(place)}: torch's {type(module).__name__} does not keep its arguments: make "
                "it in the constructor of a module of your own"
            )
        required = parameter.default is parameter.empty
        if name in ("device", "dtype") or name.startswith("_"):
            continue  # where and as what it is made; or not for users
        if name not in readers and not hasattr(module, name):
            if required:
                raise ExportError(
                    f"{_at(place)}: torch's {type(module).__name__} does not keep its "
                    f"argument {name!r}: make it in the constructor of a module of your own"
                )
            continue
        value = readers[name](module) if name in readers else _torch_value(module, name)
        if name == "stride" and parameter.default is None:
            # A pool's stride is its kernel where none is given.
            value = None if value == _uniform(module.kernel_size) else value
        if not required and _is_default(value, parameter.default):
            continue
        where = f"{_at(place)}: argument {name!r} of {type(module).__name__}"
        code = _value(value, names, _inside(place, name), where)
        yield code if required else code.prefixed(f"{name}=")


def _torch_value(module: Any, name: str) -> Any:
    value = getattr(module, name)
    if name == "bias" and not isinstance(value, bool):
        # A norm without learnt parameters has neither, whatever its argument was.
        return value is not None or module.weight is None
    adaptive = name == "output_size" and type(module).__name__.startswith("Adaptive")
    if name in _SIZES or adaptive:
        return _uniform(value)
    if name == "normalized_shape" and len(value) == 1:
        return value[0]
    return value


def _uniform(value: Any) -> Any:
    """(3, 3) as 3."""
    if isinstance(value, tuple | list) and value and all(size == value[0] for size in value):
        return value[0]
    return value


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    plain = (bool, int, float, str, tuple)
    return isinstance(value, plain) and isinstance(default, plain) and bool(value == default)


def _parameters(maker: type) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(maker.__init__).parameters.items())  # type: ignore[misc]  # read, not called
    return dict(parameters[1:])


# ----------------------------------------------------------------------------------- values


def _value(value: Any, names: Names, place: str, where: str) -> Code:
    if isinstance(value, nn.Module):
        return _module(value, names, place)
    if isinstance(value, list | tuple):
        parts = tuple(
            _value(item, names, _inside(place, str(index)), where)
            for index, item in enumerate(value)
        )
        if isinstance(value, list):
            return Code("", parts, "[]")
        if type(value) not in (tuple, torch.Size):
            raise ExportError(f"{where} is a {type(value).__name__}: keep a plain tuple")
        return Code(f"({parts[0].flat()},)") if len(parts) == 1 else Code("", parts)
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        entries = tuple(
            _value(item, names, _inside(place, str(key)), where).prefixed(f"{_plain(key)}: ")
            for key, item in value.items()
        )
        return Code("", entries, "{}")
    if isinstance(value, torch.dtype):
        names.need_import("torch")
        return Code(str(value))
    if inspect.isclass(value) or inspect.isroutine(value):
        if inspect.isclass(value):
            return Code(_class(value, names, where))
        return Code(_function(value, names, where))
    text = _plain(value)
    if text is None:
        raise ExportError(
            f"{where} is a {type(value).__name__}, which cannot be written as source: keep "
            "numbers, strings, tuples, lists, modules, functions or classes as attributes"
        )
    return Code(text)


def _plain(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        return _string(str(value))
    if isinstance(value, numbers.Integral):  # numpy's too
        return repr(int(value))
    if isinstance(value, numbers.Real) and float(value) == value:
        return repr(float(value)) if abs(value) != float("inf") else f'float("{float(value)}")'
    return None


def _string(text: str) -> str:
    written = repr(text)
    if written[0] == "'" and '"' not in text:
        return '"' + written[1:-1] + '"'
    return written


# -------------------------------------------------------------------- classes and functions


def _is_torch(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).split(".")[0] == "torch"


def _class(cls: type, names: Names, where: str) -> str:
    if not _is_torch(cls):
        if vars(builtins).get(cls.__name__) is cls:
            return str(cls.__name__)
        return names.need(cls)
    if getattr(nn, cls.__name__, None) is not cls:
        raise ExportError(
            f"{where}, which is not one of torch.nn's public classes ({cls.__module__}): make it "
            "in the constructor of a module of your own"
        )
    return f"{names.need_import('torch', 'nn')}.{cls.__name__}"


def _function(function: Any, names: Names, where: str) -> str:
    name = str(getattr(function, "__name__", function))
    if inspect.ismethod(function):
        raise ExportError(f"{where} is the method {name!r}: keep a function")
    if getattr(F, name, None) is function:
        return f"{names.need_import('torch.nn', 'functional', 'F')}.{name}"
    if getattr(torch, name, None) is function:
        return f"{names.need_import('torch')}.{name}"
    home = str(getattr(function, "__module__", None))
    if getattr(builtins, name, None) is function:
        return name
    if home in sys.stdlib_module_names and getattr(sys.modules[home], name, None) is function:
        return f"{names.need_import(home)}.{name}"
    if not inspect.isfunction(function):
        raise ExportError(f"{where} is {function!r:.80}, which has no source: wrap it in a module")
    return names.need(function)


# ----------------------------------------------------------------------------------- places


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _at(place: str) -> str:
    return f"the network's {place!r}" if place else "the network"

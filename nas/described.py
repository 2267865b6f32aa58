"""A search space of the user's own from one function: ``described(function, input, classes)``.

The function describes an ordinary PyTorch network to a builder, and there is nothing else to
write: the choices are what it asks for. It is read like any space's ``build``, so sampling,
encodings, costs, search, training and export work as they do for the spaces that come along.

    >>> def digits(builder: Builder) -> nn.Module:
    ...     width = builder.number("width", (16, 32))
    ...     activation = builder.slot("activation", {"relu": nn.ReLU, "swish": nn.SiLU})
    ...     body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), activation)
    ...     return nn.Sequential(body, nn.Linear(width, 10))
    >>> [choice.label for choice in described(digits, input=(1, 8, 8), classes=10).choices]
    ['width', 'activation']
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from nas import registry
from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.components import OPAQUE, describe
from nas.errors import ConfigError, UnsupportedRequest
from nas.space import Legal, check_input, validate
from nas.walks import Walks

MOST_WALKS = 1_000
"""A space that takes more walks through its description than this is not counted."""


def described(
    description: Callable[..., nn.Module] | str,
    input: Sequence[int],
    classes: int,
    arguments: Mapping[str, Any] | None = None,
    version: int = 1,
    choices: Mapping[str, Sequence[str | int]] | None = None,
) -> Described:
    """The space of all networks that a function describes.

    The function is called with a builder (``nas.builder.Builder``) and returns the network. It
    asks with ``slot``, ``edge``, ``number(label, options)``, ``depth(label, block, options)``
    and ``subset``; what it asks may depend on the answers, and on nothing else. A label stands
    for one choice, however often it is asked for.

    Args:
        description: the function, or where it is: ``"my_module:function"``. Its name becomes the
            space's.
        input: the shape of one example, as in (1, 8, 8).
        classes: how many classes the network tells apart.
        arguments: passed on to the function: numbers, strings and tuples of them.
        version: of the description. Raise it when an old architecture would mean another network.
        choices: every label with its options, in the order in which they are asked for; found by
            reading the description where they are not given.

    Raises:
        ConfigError: the function cannot be found, or an argument is out of range.
        UnsupportedRequest: the description cannot be read as a space; the message says why.
    """
    function: Any = description
    if isinstance(description, str):
        if ":" not in description:
            raise ConfigError(f"description must be 'module:function', got {description!r}")
        function = registry.load("spaces", description)
    listed = tuple(Choice(label, tuple(options)) for label, options in (choices or {}).items())
    return Described(function, tuple(input), classes, dict(arguments or {}), version, listed)


@dataclass(frozen=True)
class Described:
    """A space made by ``described``, whose arguments these are.

    Attributes:
        listed: the choices that were given; empty where they are found.
        call: of the function that made this space, where a configuration named that function.
        choices: all choices.
        name: the function's, with the version, as in ``"digits_cnn/v1"``.
    """

    description: Callable[..., nn.Module]
    input: tuple[int, ...]
    classes: int
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    version: int = 1
    listed: tuple[Choice, ...] = ()
    call: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    name: str = field(init=False, compare=False)
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)
    _walks: Walks = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        title = str(getattr(self.description, "__name__", ""))
        if not callable(self.description) or not title.isidentifier():
            raise ConfigError(
                "a description must be a function made with def, which takes a builder; got "
                f"{self.description!r}"
            )
        name = f"{title}/v{self.version}"
        for argument in ("classes", "version"):
            value = getattr(self, argument)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{title}: {argument} must be at least 1, got {value!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "input", check_input(self.input, name))
        object.__setattr__(self, "arguments", _tuples(self.arguments))
        try:
            written = json.dumps(self.arguments, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{name}: arguments must be numbers, strings and tuples of them, by the names of "
                f"the function's parameters: {error}"
            ) from error
        walks = _walks_through(self.description, written, name, self.listed)
        object.__setattr__(self, "choices", walks.choices)
        object.__setattr__(self, "_walks", walks)

    @property
    def source(self) -> dict[str, Any]:
        """The call that makes this space again, as JSON."""
        if self.call is not None:
            return dict(self.call)
        module, name = self.description.__module__, self.description.__qualname__
        call: dict[str, Any] = {
            "name": "nas.described:described",
            "description": f"{module}:{name}",
            "input": list(self.input),
            "classes": self.classes,
            "version": self.version,
        }
        if self.arguments:
            call["arguments"] = describe(self.arguments)
        if self.listed:
            call["choices"] = {choice.label: list(choice.options) for choice in self.listed}
        if module == "__main__" or getattr(sys.modules.get(module), name, None) is None:
            # In a script, or inside another function: no other process finds it there.
            return {OPAQUE: f"search space described by {module}.{name}", **call}
        return call

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        choice = self._walks.next(prefix)
        return None if choice is None else (choice, choice.options)

    def size(self) -> int:
        """How many architectures there are, exactly.

        Raises:
            UnsupportedRequest: the description would have to be read too often to tell.
        """
        found = self._walks.count(MOST_WALKS)
        if found is None:
            raise UnsupportedRequest(
                f"{self.name!r} has too many architectures to be counted: there are more than "
                f"{MOST_WALKS:,} ways through its description"
            )
        return found

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # nothing is known of what the user's networks compute

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        validate(self, arch)
        return {label: pick for label, pick in arch.picks if isinstance(pick, str)}

    def build(self, builder: Builder) -> nn.Module:
        return self.description(builder, **self.arguments)


@functools.lru_cache(maxsize=32)
def _walks_through(
    description: Callable[..., nn.Module], arguments: str, name: str, listed: tuple[Choice, ...]
) -> Walks:
    """Shared by the equal spaces of a process: each part of a run may be made with its own."""
    walks = Walks(description, _tuples(json.loads(arguments)), name, listed)
    if not listed:
        walks.discover()
    return walks


def _tuples(value: Any) -> Any:
    """With tuples for the lists that JSON makes of them."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value

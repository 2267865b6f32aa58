"""An operation as a value: what kind it is, and its arguments; with a compact text form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from torch import nn

from nas.errors import ConfigError, nearest
from nas.operations.kinds import OPERATIONS, Kind
from nas.operations.values import Value, Words


@dataclass(frozen=True)
class Operation:
    """One operation of a network, apart from how many channels come in.

    Attributes:
        kind: a key of ``OPERATIONS``.
        arguments: names and values. Kept are those that differ from their defaults, in the order
            of the kind's parameters, so equal operations are equal values.

    ``str`` gives the text that ``parse_operation`` reads.
    """

    kind: str
    arguments: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in OPERATIONS:
            raise ConfigError(f"no operation {self.kind!r}: {nearest(self.kind, OPERATIONS)}")
        parameters = {parameter.name: parameter for parameter in OPERATIONS[self.kind].parameters}
        given: dict[str, Value] = {}
        for name, value in self.arguments:
            if name not in parameters:
                raise ConfigError(
                    f"operation {self.kind!r} has no argument {name!r}: {nearest(name, parameters)}"
                )
            if name in given:
                raise ConfigError(f"operation {self.kind!r} is given {name!r} twice")
            parameter = parameters[name]
            if value != parameter.default and not parameter.values.valid(value):
                raise ConfigError(
                    f"operation {self.kind!r}: {name} is {value!r}, expected "
                    f"{parameter.values.expected}"
                )
            given[name] = value
        for name, parameter in parameters.items():
            if parameter.default is None and name not in given:
                raise ConfigError(
                    f"operation {self.kind!r} needs {name}: {parameter.key} with "
                    f"{parameter.values.expected}"
                )
        kept = tuple(
            (name, given[name])
            for name, parameter in parameters.items()
            if name in given and given[name] != parameter.default
        )
        object.__setattr__(self, "arguments", kept)

    def __str__(self) -> str:
        head, tokens = self.kind, []
        given = dict(self.arguments)
        for parameter in OPERATIONS[self.kind].parameters:
            if parameter.name in given:
                text = parameter.key + parameter.values.write(given[parameter.name])
                if parameter.key == self.kind:
                    head = text
                else:
                    tokens.append(text)
        return "_".join([head, *tokens])

    def values(self) -> dict[str, Value]:
        """Every argument of the kind, defaults included."""
        given = dict(self.arguments)
        return {
            parameter.name: given.get(parameter.name, parameter.default)  # type: ignore[misc]  # no default: given
            for parameter in OPERATIONS[self.kind].parameters
        }

    def c_out(self, c_in: int) -> int:
        """How many channels it gives for so many."""
        made = self.values().get("c_out", 0)
        assert isinstance(made, int)
        return made or c_in

    def factory(self, c_in: int) -> partial[nn.Module] | None:
        """What makes its module for so many channels, as a slot's option; ``none`` has none.

        The module's constructor raises ``ValueError`` where the channels do not fit (groups, for
        instance).

        Raises:
            ConfigError: there is no such operation for so many channels.
        """
        return OPERATIONS[self.kind].make(c_in, self.values())


def parse_operation(text: str) -> Operation:
    """Reads an operation: its kind, then keys with values and words, joined by ``_``.

    >>> parse_operation("conv_k3_s2_o32_hswish").c_out(16)
    32

    Raises:
        ConfigError: naming the token, and the nearest valid one.
    """
    head, *tokens = text.strip().split("_")
    name = re.sub(r"[^a-z].*", "", head)
    if name not in OPERATIONS:
        raise ConfigError(f"no operation {head!r} in {text!r:.200}: {nearest(head, OPERATIONS)}")
    kind = OPERATIONS[name]
    if head != name:  # "se0.25": the kind's name is a key as well
        tokens.insert(0, head)
    return Operation(name, tuple(_read(kind, token, text) for token in tokens))


def _read(kind: Kind, token: str, text: str) -> tuple[str, Value]:
    for parameter in kind.parameters:
        if isinstance(parameter.values, Words) and token in parameter.values.words:
            return parameter.name, parameter.values.words[token]
    key = re.sub(r"[^a-z].*", "", token)
    for parameter in kind.parameters:
        if isinstance(parameter.values, Words) or parameter.key != key:
            continue
        value = parameter.values.read(token[len(key) :])
        if value is None or not parameter.values.valid(value):
            raise ConfigError(
                f"{token!r} in {text!r:.200}: expected {key} with {parameter.values.expected}"
            )
        return parameter.name, value
    valid = [known for parameter in kind.parameters for known in parameter.texts()]
    raise ConfigError(
        f"{token!r} in {text!r:.200} is nothing that {kind.name!r} takes: {nearest(token, valid)}"
    )

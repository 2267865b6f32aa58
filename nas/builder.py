"""The builder a space describes its network to, and the fixed reading of that description.

``SearchSpace.build`` asks the builder for everything that is open, and so one description is
read in more than one way. The fixed reading, here, answers with what an architecture picked and
returns a plain network without a trace of the search in it.

The names of its tensors map one to one to those of the largest network, in which every slot
holds all of its options, each under its own name, and every number and depth is at its largest:
where the fixed network has ``cells.0.edges.0_1.conv.weight``, the largest one has
``cells.0.edges.0_1.nor_conv_3x3.conv.weight`` (``shared_names``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture, UnsupportedRequest, nearest
from nas.space import SearchSpace

Factory = Callable[[], nn.Module]


class Builder(Protocol):
    """What a description may ask for. The verb says what kind of thing is open.

    A space that lists its ``choices`` leaves ``options`` of numbers and depths out; where they
    are given, the pick has to be one of them. A factory that is a ``functools.partial`` of a
    module's class and plain values (numbers, strings, tuples of them) is known by those, so a
    reading may keep what it once found out about it; any other callable is called every time.
    """

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        """One of these modules. Factories are called only for what is needed."""

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module | None:
        """One of these modules or, where the option is ``None``, no connection at all."""

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        """A size: channels, a kernel, a stride."""

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        """The first so many of these blocks, built in order: ``block(0)``, ``block(1)``, …"""

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        """Which of so many are taken, in ascending order: the states that a cell joins, say.

        ``space.slots`` gives them as ``"2+4+5"``, and ``""`` for none.
        """

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        """A part of the network, ``describe(builder, *args)``: a cell, a block, a head.

        It may ask the builder for what is open, and depends on the answers and on ``args`` alone,
        so that a reading may keep what it found out about a part that is met again. It keeps it
        for a function at a module's top level and plain values.
        """


class FixedBuilder:
    """Answers with what one architecture picked.

    Attributes:
        placed: the modules that slots were given, each with the option that it is.
    """

    def __init__(self, space: SearchSpace, arch: Architecture) -> None:
        self.space = space
        self.arch = arch
        self._picks: dict[str, Scalar] = arch.as_dict()
        self._slots = dict(space.slots(arch))
        self.placed: dict[nn.Module, str] = {}

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        module = self.edge(label, options)
        if module is None:
            raise UnsupportedRequest(
                f"{self.space.name!r}: slot {label!r} offers no module for "
                f"{self._slots[label]!r}; describe what may be absent with builder.edge"
            )
        return module

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module | None:
        if label not in self._slots:
            raise UnsupportedRequest(
                f"{self.space.name!r} builds a slot {label!r} that space.slots does not give: "
                f"{nearest(label, self._slots)}"
            )
        option = self._slots[label]
        if option not in options:
            raise InvalidArchitecture(
                f"{self.space.name!r}: slot {label!r} has no option {option!r}: "
                f"{nearest(option, options)}"
            )
        factory = options[option]
        if factory is None:
            return None
        module = factory()
        self.placed[module] = option
        return module

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        value = self._pick(label)
        if options and value not in options:
            raise UnsupportedRequest(
                f"{self.space.name!r}: {label!r} is {value!r} in {self.arch}, but it is built "
                f"with the options {tuple(options)}: {nearest(value, options)}"
            )
        if not isinstance(value, int):
            raise UnsupportedRequest(
                f"{self.space.name!r}: {label!r} is built as a number, but {value!r} is none"
            )
        return value

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        return [block(index) for index in range(self.number(label, options))]

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        if label not in self._slots:
            raise UnsupportedRequest(
                f"{self.space.name!r} builds a subset {label!r} that space.slots does not give: "
                f"{nearest(label, self._slots)}"
            )
        try:
            taken = tuple(int(part) for part in self._slots[label].split("+") if part)
        except ValueError:
            taken = (-1,)
        if list(taken) != sorted({index for index in taken if 0 <= index < of}):
            raise UnsupportedRequest(
                f"{self.space.name!r}: {label!r} is {self._slots[label]!r}, expected ascending "
                f"numbers below {of} joined by '+'"
            )
        return taken

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        return describe(self, *args)

    def _pick(self, label: str) -> Scalar:
        if label not in self._picks:
            raise UnsupportedRequest(
                f"{self.space.name!r} builds with {label!r}, which is not active in {self.arch}: "
                f"{nearest(label, self._picks)}"
            )
        return self._picks[label]

    def shared_names(self, network: nn.Module) -> dict[str, str]:
        """Each tensor of the network this builder built, to its name in the largest network.

        A slot's option is put behind the place of the slot: tensors of two options never share
        a name, tensors of one option always do.
        """
        options = {
            path: self.placed[module]
            for path, module in network.named_modules()
            if module in self.placed
        }
        names: dict[str, str] = {}
        for name in network.state_dict():
            parts = name.split(".")
            shared: list[str] = []
            for index, part in enumerate(parts):
                shared.append(part)
                path = ".".join(parts[: index + 1])
                if path in options:
                    shared.append(options[path])
            names[name] = ".".join(shared)
        return names

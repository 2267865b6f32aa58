"""The relaxed reading of a space's description: one network that holds every option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from nas.builder import Factory
from nas.errors import UnsupportedRequest, nearest
from nas.space import SearchSpace
from nas.supernet.form import PLAIN, Form
from nas.supernet.mixture import Current, Mixed, Skippable, child_name
from nas.supernet.partial import PartialChannels
from nas.supernet.recompute import Recomputed


class RelaxedBuilder:
    """Answers with everything: all options of a slot, the largest number, the greatest depth.

    Args:
        form: how slots and parts are made.
        size: which of a number's options to answer with.
    """

    def __init__(
        self,
        space: SearchSpace,
        current: Current,
        form: Form = PLAIN,
        size: Callable[[str, Sequence[int]], int] = lambda label, options: max(options),
    ) -> None:
        self.space = space
        self.current = current
        self.form = form
        self.size = size
        self.slots: dict[str, tuple[str, ...]] = {}
        self.depths: dict[str, tuple[int, ...]] = {}
        self.numbers: dict[str, tuple[int, ...]] = {}
        self.subsets: dict[str, int] = {}
        self._options = {choice.label: choice.options for choice in space.choices}

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        return self.edge(label, options)

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module:
        names = tuple(options)
        if self.slots.setdefault(label, names) != names:
            raise UnsupportedRequest(
                f"{self.space.name!r} builds slot {label!r} with the options "
                f"{self.slots[label]} in one place and {names} in another: one gate cannot be "
                "over both"
            )
        if len({child_name(name) for name in names}) != len(names):
            raise UnsupportedRequest(
                f"{self.space.name!r}: the options of slot {label!r} differ by dots alone: {names}"
            )
        return self.form.mixture(label, options, self.current)

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        known = self._numbers(label, options)
        self.numbers[label] = known
        return self.size(label, known)

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        known = self._numbers(label, options)
        self.depths[label] = known
        return [
            Skippable(label, index, known, block(index), self.current)
            for index in range(max(known))
        ]

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        self.subsets[label] = of
        return tuple(range(of))

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        return self.form.part(describe(self, *args), self.current)

    def _numbers(self, label: str, options: Sequence[int]) -> tuple[int, ...]:
        if not options and label not in self._options:
            raise UnsupportedRequest(
                f"{self.space.name!r} builds with {label!r}, which is none of its choices: "
                f"{nearest(label, self._options)}"
            )
        known = tuple(options) or self._options[label]
        if not all(type(option) is int for option in known):
            raise UnsupportedRequest(
                f"{self.space.name!r}: {label!r} is built as a number, but its options are {known}"
            )
        return tuple(int(option) for option in known)


def tensor_names(network: nn.Module) -> dict[str, str]:
    """Each tensor of a relaxed network: its name among the shared weights, to its own name.

    The shared name is that of ``nas.builder.FixedBuilder.shared_names``: what the network has
    more than a stand-alone one, a wrapper of a block or of a mixture, is not in it.
    """
    modules = dict(network.named_modules())
    names: dict[str, str] = {}
    for name in network.state_dict():
        parts = name.split(".")
        shared: list[str] = []
        for index, part in enumerate(parts):
            holder = modules.get(".".join(parts[:index]))
            if isinstance(holder, Skippable | PartialChannels | Recomputed):
                continue
            if isinstance(holder, Mixed):
                part = next(option for option in holder.options if child_name(option) == part)
            shared.append(part)
        names[".".join(shared)] = name
    return names

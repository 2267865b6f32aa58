"""A space with a rule of its own: perceptrons whose layers never grow wider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import Legal, check_input, next_choice


@dataclass(frozen=True)
class Funnel:
    """Perceptrons of one to three layers, none wider than the one before it.

    Args:
        widths: what a layer may be wide, ascending.
    """

    classes: int = 2
    input: tuple[int, ...] = (1, 6, 6)
    widths: tuple[int, ...] = (4, 8, 12)

    name = "funnel/v1"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "funnel"))
        if list(self.widths) != sorted(self.widths) or min(self.widths, default=0) < 1:
            raise ConfigError(f"funnel: widths must ascend from at least 1, got {self.widths}")
        layers = [Choice("width0", self.widths)] + [
            Choice(f"width{i}", self.widths, {"depth": tuple(d for d in (1, 2, 3) if d > i)})
            for i in (1, 2)
        ]
        choices = (Choice("depth", (1, 2, 3)), *layers, Choice("activation", ("relu", "tanh")))
        object.__setattr__(self, "choices", choices)

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        step = next_choice(self.choices, prefix)
        if step is None or not step[0].label.startswith("width"):
            return step
        choice, options = step
        above = [width for label, width in prefix.items() if label.startswith("width")]
        return choice, tuple(option for option in options if all(option <= w for w in above))

    def canonical(self, arch: Architecture) -> Architecture:
        return arch

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {"activation": str(arch["activation"])}

    def build(self, builder: Builder) -> nn.Module:
        c = 1
        for size in self.input:
            c *= size

        def layer(index: int) -> nn.Module:
            nonlocal c
            c_in, c = c, builder.number(f"width{index}")
            return nn.Linear(c_in, c)

        layers = builder.depth("depth", layer)
        activation = builder.slot("activation", {"relu": nn.ReLU, "tanh": nn.Tanh})
        return nn.Sequential(nn.Flatten(), *layers, activation, nn.Linear(c, self.classes))

    def format(self, arch: Architecture) -> str:
        """As in ``12>8>4:tanh``."""
        widths = [str(arch[f"width{i}"]) for i in range(int(arch["depth"]))]
        return f"{'>'.join(widths)}:{arch['activation']}"

    def parse(self, text: str) -> Architecture:
        match = re.fullmatch(r"(\d+(?:>\d+)*):(\w+)", text)
        if match is None:
            raise InvalidArchitecture(f"expected widths and an activation, got {text!r}")
        widths = [int(width) for width in match.group(1).split(">")]
        picks: dict[str, Scalar] = {"depth": len(widths)}
        picks |= {f"width{i}": width for i, width in enumerate(widths)}
        return Architecture(self.name, (*picks.items(), ("activation", match.group(2))))

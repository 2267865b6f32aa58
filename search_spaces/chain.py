"""A chain of convolutions: the example of how to write a space of one's own.

A space is a class with a name, its choices, and one method ``build`` that asks the builder for
everything that is open; the rest of this class are one-liners. Sampling, mutation, costs,
training and export follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder
from nas.errors import ConfigError
from nas.layers import ConvBNReLU, GlobalAveragePool
from nas.space import Legal, check_input, count_choices, next_choice


@dataclass(frozen=True)
class Chain:
    """Chain of convolutions: depth, then kernel, width and stride a layer, pooling, dense layers.

    Args:
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
        depths, kernels, widths, strides: the options; kernels are odd.
        dense: how many dense layers may follow the pooling.
        dense_widths: their width, one for all of them.
    """

    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)
    depths: tuple[int, ...] = (1, 2, 3, 4)
    kernels: tuple[int, ...] = (1, 3, 5)
    widths: tuple[int, ...] = (8, 16, 32, 64)
    strides: tuple[int, ...] = (1, 2)
    dense: tuple[int, ...] = (0, 1, 2)
    dense_widths: tuple[int, ...] = (32, 64)

    name = "chain/v1"
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "chain"))
        if len(self.input) != 3:
            raise ConfigError(f"chain: input must be (channels, height, width), got {self.input}")
        for argument in ("depths", "kernels", "widths", "strides", "dense", "dense_widths"):
            options = tuple(getattr(self, argument))
            least = 0 if argument == "dense" else 1
            if not options or min(options) < least:
                raise ConfigError(
                    f"chain: {argument} must be numbers of at least {least}, got {options}"
                )
            object.__setattr__(self, argument, options)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"chain: kernels must be odd, got {self.kernels}")
        choices = [Choice("depth", self.depths)]
        for layer in range(max(self.depths)):
            when = {"depth": tuple(depth for depth in self.depths if depth > layer)}
            choices += [
                Choice(f"conv{layer}/kernel", self.kernels, when),
                Choice(f"conv{layer}/width", self.widths, when),
                Choice(f"conv{layer}/stride", self.strides, when),
            ]
        choices += [
            Choice("pool", ("none", "max", "average")),
            Choice("dense", self.dense),
            Choice("dense_width", self.dense_widths, {"dense": tuple(n for n in self.dense if n)}),
        ]
        object.__setattr__(self, "choices", tuple(choices))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        return next_choice(self.choices, prefix)

    def size(self) -> int:
        return count_choices(self.choices)

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # no two architectures here mean the same network

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {"pool": str(arch["pool"])}

    def build(self, builder: Builder) -> nn.Module:
        c = self.input[0]

        def convolution(layer: int) -> nn.Module:
            nonlocal c
            c_in, c = c, builder.number(f"conv{layer}/width")
            kernel_size = builder.number(f"conv{layer}/kernel")
            stride = builder.number(f"conv{layer}/stride")
            return ConvBNReLU(c_in=c_in, c_out=c, kernel_size=kernel_size, stride=stride)

        def dense(layer: int) -> nn.Module:
            nonlocal c
            c_in, c = c, builder.number("dense_width")
            return nn.Sequential(nn.Linear(c_in, c), nn.ReLU())

        layers = nn.Sequential(*builder.depth("depth", convolution))
        pool = builder.slot(
            "pool",
            {
                "none": nn.Identity,
                "max": lambda: nn.MaxPool2d(3, stride=2, padding=1),
                "average": lambda: nn.AvgPool2d(3, stride=2, padding=1),
            },
        )
        layers.append(pool)
        head = nn.Sequential(*builder.depth("dense", dense))
        return nn.Sequential(layers, GlobalAveragePool(), head, nn.Linear(c, self.classes))

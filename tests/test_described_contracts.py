"""The contract of a space, for spaces that are one function."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import own_space_digits
import own_space_transformer
from test_described import small_cnn

from nas.builder import Builder
from nas.described import described
from nas.space import count
from nas.testing import SpaceContract


class TestDigitsCnn(SpaceContract):
    def space(self):
        return own_space_digits.space()

    def small(self):
        return self.space()


class TestTransformer(SpaceContract):
    samples = 15

    def space(self):
        return own_space_transformer.space()


class TestWithArguments(SpaceContract):
    def space(self):
        return described(small_cnn, (1, 6, 6), 3, arguments={"widths": [2, 4, 5]}, version=7)

    def small(self):
        return self.space()


def every(builder: Builder) -> nn.Module:
    """Every verb; choices that others open; a module's class, functions, and no connection."""

    def convolution() -> nn.Module:
        return nn.Conv2d(1, 1, builder.number("conv_kernel", (1, 3)), padding="same")

    body = nn.Sequential(builder.slot("body", {"conv": convolution, "same": nn.Identity}))
    if builder.edge("more", {"no": None, "relu": nn.ReLU, "tanh": nn.Tanh}) is not None:
        body.append(nn.Conv2d(1, 1, builder.number("last_kernel", (1, 3)), padding="same"))
    taken = builder.subset("taken", 2)
    return nn.Sequential(body, *(nn.ReLU() for _ in taken), nn.Flatten(), nn.Linear(16, 2))


class TestEveryVerb(SpaceContract):
    def space(self):
        return described(every, (1, 4, 4), 2)

    def small(self):
        return self.space()

    def test_size(self) -> None:
        assert count(self.space()) == (2 + 1) * (1 + 2 * 2) * 4

"""Small tables without any training behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from nas.architecture import Choice
from nas.components import describe
from nas.encoding import ordinal
from nas.objective import Metric
from nas.space import enumerate_architectures, next_choice
from nas.tables import Quantity, Table


@dataclass(frozen=True)
class Tiny:
    """Four architectures, each of one small convolution."""

    classes: int = 10
    input: tuple[int, ...] = (1, 8, 8)

    name = "tiny/v1"
    choices = (Choice("width", (2, 3)), Choice("kernel", (1, 3)))

    def legal(self, prefix):
        return next_choice(self.choices, prefix)

    def canonical(self, arch):
        return arch

    def slots(self, arch) -> Mapping[str, str]:
        return {}

    def build(self, builder):
        width, kernel = builder.number("width"), builder.number("kernel")
        return nn.Sequential(
            nn.Conv2d(self.input[0], width, kernel, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, self.classes),
        )


DEVICES = ("slow_one", "fast_one")


def made_up_table(space, *, datasets=("one", "two"), epochs=(1, 2, 3, 5), runs=3, seed=0):
    """Values that rise with epochs and differ with architecture, run and data set."""
    rng = np.random.default_rng(seed)
    every = list(enumerate_architectures(space))
    shape = (len(datasets), len(every), runs, len(epochs))
    worth = rng.uniform(0.2, 0.8, size=(len(datasets), len(every), 1, 1))
    accuracy = worth + 0.02 * np.array(epochs) + rng.normal(scale=0.01, size=shape)
    accuracy = np.round(accuracy * 500) / 500
    test = accuracy[..., -1:] - 0.01

    def quantity(name, unit, direction, at, values):
        return Quantity(Metric(name, unit, direction), tuple(at), values.astype(np.float64))

    return Table(
        name="made up",
        space=describe(space),
        labels=tuple(choice.label for choice in space.choices),
        options=tuple(choice.options for choice in space.choices),
        picks=np.array([ordinal(space, arch) for arch in every]),
        datasets=tuple(datasets),
        seeds=tuple(range(runs)),
        quantities={
            q.metric.name: q
            for q in (
                quantity("validation_accuracy", "fraction", "maximize", epochs, accuracy),
                quantity("validation_loss", "nats", "minimize", epochs, 2.5 - 2 * accuracy),
                quantity("test_accuracy", "fraction", "maximize", epochs[-1:], test),
            )
        },
        seconds_per_epoch=rng.uniform(1, 2, size=shape[:3]),
        counts={name: rng.integers(1000, 10**6, size=shape[:2]) for name in ("parameters", "macs")},
        devices=DEVICES,
        latency_ms=rng.uniform(0.5, 4, size=(len(DEVICES), len(every))),
        facts={"command": "none"},
    )

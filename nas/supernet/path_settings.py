"""How shared weights are trained: settings, the optimiser and the initial weights they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.errors import ConfigError, nearest
from nas.layers.mobile import Residual

Schedule = Literal["linear", "cosine", "restarts"]
Optimiser = Literal["sgd", "adamw"]


@dataclass(frozen=True)
class PathSettings:
    """How shared weights are trained; the defaults are those of SPOS.

    Its learning rate, 0.5 for 1,024 images a step, is scaled to this batch size; its 150,000
    steps on ImageNet are 120 epochs. Its gradients were not clipped, and it decayed no norms.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: of SGD, at the start.
        learning_rate_min: where the schedule ends.
        schedule: down a line or a cosine over all epochs, or down a cosine that restarts after
            ``period`` epochs, and then after twice as many each time.
        momentum, nesterov, weight_decay: of SGD.
        label_smoothing: share of the target spread over all classes.
        gradient_clip: the largest norm a step's gradient may have; ``None`` for no bound.
        augment: whether training images are cropped and mirrored as the data set says.
        period: in epochs, for ``restarts``.
        optimiser: ``sgd``, or ``adamw`` (with its own betas), which Transformers want.
        paths: random architectures a step; ``None`` is the number of the papers
            (``nas.supernet.plans``).
        zero_residuals: whether residual branches begin at zero: the scale of the last batch norm of
            each. BigNAS's; with it a network that is deep learns as fast as one that is not.
        channels_last: whether images lie in memory with the channels innermost: twice as fast for
            depthwise convolutions on a CPU.
    """

    epochs: int = 120
    batch_size: int = 64
    learning_rate: float = 0.5 * 64 / 1024
    learning_rate_min: float = 0.0
    schedule: Schedule = "linear"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    gradient_clip: float | None = 5.0
    augment: bool = True
    period: int = 10
    optimiser: Optimiser = "sgd"
    paths: int | None = None
    zero_residuals: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[bool, str]] = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "learning_rate_min": (
                0 <= self.learning_rate_min <= self.learning_rate,
                "from 0 to learning_rate",
            ),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "off where momentum is 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "gradient_clip": (self.gradient_clip is None or self.gradient_clip > 0, "above 0"),
            "period": (self.period >= 1, "at least 1"),
            "paths": (self.paths is None or self.paths >= 1, "at least 1"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            holds, expected = ranges.get(field.name, (True, ""))
            if not holds or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"settings: {field.name} must be {expected}, got {value!r}")
        for name, known in (("schedule", get_args(Schedule)), ("optimiser", get_args(Optimiser))):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(
                    f"settings: there is no {name} {value!r}: {nearest(value, known)}"
                )

    @classmethod
    def named(cls, name: str) -> PathSettings:
        """A paper's settings (``PUBLISHED``); raises ``ConfigError`` naming the nearest."""
        if name not in PUBLISHED:
            raise ConfigError(f"there are no settings {name!r}: {nearest(name, PUBLISHED)}")
        return PUBLISHED[name]

    def rate(self, position: float) -> float:
        """The learning rate after so many epochs, which need not be whole."""
        done = position / self.epochs
        if self.schedule == "restarts":
            period = float(self.period)
            while position >= period:
                position, period = position - period, 2 * period
            done = position / period
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate_min + (self.learning_rate - self.learning_rate_min) * left


PUBLISHED: dict[str, PathSettings] = {
    # Guo et al., ECCV 2020: the defaults.
    "spos": PathSettings(),
    # Yu & Huang, ICCV 2019, MobileNetV2: 0.5 for 1,024 images.
    "universally_slimmable": PathSettings(
        epochs=250, nesterov=True, weight_decay=1e-4, label_smoothing=0.0, gradient_clip=None
    ),
    # Cai et al., ICLR 2020, MobileNetV3: 2.6 for 2,048 images; the phases' epochs added up.
    "once_for_all": PathSettings(
        epochs=590,
        learning_rate=2.6 * 64 / 2048,
        schedule="cosine",
        nesterov=True,
        weight_decay=3e-5,
        gradient_clip=None,
    ),
    # Chen et al., ICCV 2021: 1e-3 for 1,024 images. Its warm-up, mixing and random augmentation of
    # images are not here.
    "autoformer": PathSettings(
        epochs=500,
        learning_rate=1e-3 * 64 / 1024,
        learning_rate_min=1e-5 * 64 / 1024,
        schedule="cosine",
        weight_decay=0.05,
        gradient_clip=None,
        optimiser="adamw",
    ),
}
"""Settings of papers by name, their learning rates scaled to 64 images a step."""


def zero_residuals(network: nn.Module) -> None:
    """Sets the scale of the last batch norm of every residual branch to zero.

    Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", ECCV
    2020. A branch is the body of a ``nas.layers.mobile.Residual``.
    """
    for module in network.modules():
        if isinstance(module, Residual):
            norms = [part for part in module.body.modules() if isinstance(part, _BatchNorm)]
            if norms and norms[-1].affine:
                nn.init.zeros_(norms[-1].weight)


def make_optimiser(supernet: nn.Module, settings: PathSettings) -> torch.optim.Optimizer:
    """The optimiser of all shared weights."""
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(
            supernet.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        supernet.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )

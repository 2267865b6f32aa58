"""How a network is trained: a recipe, a frozen value that checks itself, and published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nas.errors import ConfigError, nearest


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        learning_rate: at its highest, after the warm-up.
        momentum: of SGD.
        weight_decay: of every weight, norms included unless ``decay_norms`` is false.
        batch_size: examples a step; the batches of an epoch are of equal size, give or take one.
        warmup: share of the steps in which the learning rate rises from zero.
        label_smoothing: share of the target spread over all classes.
        gradient_clip: the largest norm a step's gradient may have; ``None`` for no bound.
        augment: whether training images are cropped and mirrored as the data set says.
        auxiliary_weight: of the loss of a second classifier, for a network that has one: in
            training it returns a pair (logits, auxiliary logits).
        nesterov: whether the momentum is Nesterov's.
        decay_norms: whether the scales and shifts of norms are decayed.
        cutout: the side of a square that is blanked in each training image, in pixels; 0 for
            none. DeVries & Taylor, 2017.
        mixup: α of the Beta distribution by which pairs of examples are mixed; 0 for none.
            Zhang et al., ICLR 2018.
        drop_path: with what probability an edge or branch is left out at the end of training,
            see ``nas.training.drop_path``; it rises from 0 in a line, epoch by epoch.
        average: decay, a step, of the moving average of the weights that is evaluated and kept in
            place of the last ones, see ``nas.training.averaging``; 0 for none.
        mixed_precision: float16 where that is safe, with loss scaling. On a GPU only: training
            on a CPU is in float32 whatever this says.
        channels_last: whether images and weights lie in memory with the channels innermost.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    warmup: float = 0.1
    label_smoothing: float = 0.0
    gradient_clip: float | None = 5.0
    augment: bool = True
    auxiliary_weight: float = 0.4
    nesterov: bool = True
    decay_norms: bool = True
    cutout: int = 0
    mixup: float = 0.0
    drop_path: float = 0.0
    average: float = 0.0
    mixed_precision: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[bool, str]] = {
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "warmup": (0 <= self.warmup < 1, "from 0 to below 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "gradient_clip": (self.gradient_clip is None or self.gradient_clip > 0, "above 0"),
            "auxiliary_weight": (self.auxiliary_weight >= 0, "0 or more"),
            "cutout": (self.cutout >= 0, "0 pixels or more"),
            "mixup": (self.mixup >= 0, "0 or more"),
            "drop_path": (0 <= self.drop_path < 1, "from 0 to below 1"),
            "average": (0 <= self.average < 1, "from 0 to below 1"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            holds, expected = ranges.get(field.name, (True, ""))
            if not holds or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"recipe: {field.name} must be {expected}, got {value!r}")

    @classmethod
    def named(cls, name: str) -> Recipe:
        """A published recipe (``PUBLISHED``); raises ``ConfigError`` naming the nearest."""
        if name not in PUBLISHED:
            raise ConfigError(f"there is no recipe {name!r}: {nearest(name, PUBLISHED)}")
        return PUBLISHED[name]

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of so many."""
        warm = self.warmup * steps
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


DEFAULT_RECIPE = Recipe()

PUBLISHED: dict[str, Recipe] = {
    # Liu et al., DARTS, ICLR 2019, the network that was found, on CIFAR-10 for 600 epochs; of a
    # space with ``auxiliary``.
    "darts": Recipe(
        learning_rate=0.025,
        weight_decay=3e-4,
        batch_size=96,
        warmup=0.0,
        nesterov=False,
        cutout=16,
        drop_path=0.2,
    ),
    # Dong & Yang, NAS-Bench-201, ICLR 2020: on CIFAR-10, CIFAR-100 and ImageNet16-120 for 200
    # epochs.
    "nasbench201": Recipe(batch_size=256, warmup=0.0, gradient_clip=None),
    # Cai et al., ProxylessNAS, ICLR 2019, the networks that were found, on ImageNet for 300
    # epochs. Its crops of random scale and its colours are not here.
    "mobilenet": Recipe(
        learning_rate=0.05,
        weight_decay=4e-5,
        batch_size=256,
        warmup=0.0,
        label_smoothing=0.1,
        gradient_clip=None,
        decay_norms=False,
    ),
}
"""Recipes by name, as the papers and their official code have them."""

"""How a Q-learner explores and learns: MetaQNN's settings, BlockQNN's, and the schedule of ε.

What differs from the papers: a schedule can be scaled to a search of any length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.errors import ConfigError, nearest
from strategies.q_rewards import SHAPES

Schedule = tuple[tuple[float, int], ...]
"""Pairs of ε and the number of models drawn with it."""


@dataclass(frozen=True)
class QSettings:
    """How a Q-learner explores and learns; the defaults are MetaQNN's.

    Attributes:
        schedule: of ε. The last one goes on when the schedule is over.
        learning_rate: α.
        discount: γ.
        initial: Q-value of what was never tried, in units of the reward; the authors set it to
            that of an average model, or below.
        draws: from memory, for every model that comes back.
        window: how many of the last picks a state shows, in a space that has no states of its
            own; ``None`` for all. One is what both papers have: the last layer at its depth.
        shape: how the reward falls on the steps, a name in ``SHAPES``.
        flops_weight: μ, of the logarithm of FLOPs in the reward.
        density_weight: ρ, of the logarithm of the cells' density.
    """

    schedule: Schedule = (
        (1.0, 1500),
        *((epsilon, 100) for epsilon in (0.9, 0.8, 0.7)),
        *((epsilon, 150) for epsilon in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)),
    )
    learning_rate: float = 0.01
    discount: float = 1.0
    initial: float = 0.5
    draws: int = 100
    window: int | None = 1
    shape: str = "final"
    flops_weight: float = 0.0
    density_weight: float = 0.0

    def __post_init__(self) -> None:
        schedule = tuple((float(epsilon), models) for epsilon, models in self.schedule)
        object.__setattr__(self, "schedule", schedule)
        if not schedule or any(not 0 <= e <= 1 or models < 1 for e, models in schedule):
            raise ConfigError(
                "settings: schedule must be pairs of an ε from 0 to 1 and a number of models, as "
                f"in ((1.0, 1500), (0.9, 100)); got {self.schedule!r}"
            )
        ranges = {
            "learning_rate": (0 < self.learning_rate <= 1, "above 0 and at most 1"),
            "discount": (0 <= self.discount <= 1, "from 0 to 1"),
            "initial": (math.isfinite(self.initial), "finite"),
            "draws": (self.draws >= 0, "0 or more"),
            "window": (self.window is None or self.window >= 0, "0 or more, or none"),
            "shape": (self.shape in SHAPES, "known"),
            "flops_weight": (0 <= self.flops_weight < math.inf, "0 or more"),
            "density_weight": (0 <= self.density_weight < math.inf, "0 or more"),
        }
        for name, (holds, expected) in ranges.items():
            if not holds:
                value = getattr(self, name)
                hint = f": {nearest(value, SHAPES)}" if name == "shape" else ""
                raise ConfigError(f"settings: {name} must be {expected}, got {value!r}{hint}")


METAQNN = QSettings()
"""As published: 2,700 models, 1,500 of them random."""

BLOCKQNN = QSettings(
    schedule=tuple(
        (epsilon, 64 * iterations)
        for epsilon, iterations in (
            *((1.0, 95), (0.9, 7), (0.8, 7), (0.7, 7)),
            *((0.6, 10), (0.5, 10), (0.4, 10), (0.3, 10), (0.2, 10), (0.1, 12)),
        )
    ),
    initial=0.0,
    shape="spread",
)
"""The published schedule of 178 iterations of 64 models, and rewards on every step.

The weights μ and ρ depend on the unit of the accuracy and on how early the training was stopped,
and could not be looked up; here they are 0, which leaves the accuracy as it is: set
``flops_weight`` and ``density_weight``. Q-values begin at 0, so that what was tried is above what
was not, however many steps its reward is spread over. Draws from memory are MetaQNN's: the paper's
64 after every 64 models are too few for a search of some hundred.
"""


def epsilon_at(schedule: Schedule, number: int, trials: int | None = None) -> float:
    """The ε of proposal ``number``, from 0.

    Args:
        trials: of the whole search, to which the schedule is scaled; ``None`` leaves it as it is.
    """
    total = sum(models for _, models in schedule)
    length = total if trials is None else trials
    done = 0
    for epsilon, models in schedule:
        done += models
        if number * total < done * length:  # in integers: exact
            return epsilon
    return schedule[-1][0]

"""A vector of any architecture for surrogate models: all that was picked, in numbers from 0 to 1.

One-hot alone hides from a model that 24 channels lie between 16 and 32, so a choice of numbers
shows its value as well. The value is scaled, not its rank: costs and mostly accuracy follow the
number itself, and the rank can be read off the one-hot part. 0 is the value of the smallest
option and of an inactive choice alike; the activity flags tell them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Choice, Scalar
from nas.encoding.flat import one_hot
from nas.space import SearchSpace


def features(space: SearchSpace, arch: Architecture) -> NDArray[np.float32]:
    """Three parts, each in the order of the choices: picks, values, activity.

    * ``one_hot(space, arch)``, which alone gives the architecture back (``from_one_hot``);
    * for each choice whose options are at least two numbers, the picked one scaled to [0, 1]
      between the smallest and the largest option, 0 where the choice is inactive;
    * for each choice, 1 where it is active and 0 where it is not.

    The length is the same for all architectures of a space: that of ``feature_names``. Raises
    ``InvalidArchitecture`` unless ``arch`` is one of ``space``.
    """
    picks = arch.as_dict()
    picked = one_hot(space, arch)
    values = [_scaled(choice, picks.get(choice.label)) for choice in _numeric(space)]
    active = [float(choice.label in picks) for choice in space.choices]
    return np.concatenate([picked, np.array(values + active, dtype=np.float32)])


def feature_names(space: SearchSpace) -> tuple[str, ...]:
    """What each number of ``features`` is: ``label=option``, ``label:value``, ``label:active``."""
    return (
        *(f"{choice.label}={option}" for choice in space.choices for option in choice.options),
        *(f"{choice.label}:value" for choice in _numeric(space)),
        *(f"{choice.label}:active" for choice in space.choices),
    )


def _numeric(space: SearchSpace) -> list[Choice]:
    return [
        choice
        for choice in space.choices
        if len(choice.options) > 1 and not any(isinstance(o, str) for o in choice.options)
    ]


def _scaled(choice: Choice, value: Scalar | None) -> float:
    if value is None:
        return 0.0
    options = [float(option) for option in choice.options]
    return (float(value) - min(options)) / (max(options) - min(options))

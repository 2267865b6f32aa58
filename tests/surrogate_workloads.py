"""What the tests of surrogates fit, and what another process is asked of them."""

from __future__ import annotations

import numpy as np

from nas.objective import Metric
from nas.predictor import from_pairs, load_surrogate
from nas.space import sample
from nas.testing.toys import toy_values

ACCURACY = Metric("accuracy", "fraction", "maximize")


def toy_measurements(space, n, seed=0, noise=0.05):
    rng = np.random.default_rng(seed)
    archs = [sample(space, rng) for _ in range(n)]
    values = [toy_values(space, a)["score"] + noise * rng.normal() for a in archs]
    return from_pairs(space, zip(archs, values, strict=True), ACCURACY)


def predictions(path, count):
    """What the surrogate in a file says of random architectures, as exact text."""
    surrogate = load_surrogate(path)
    archs = [sample(surrogate.space, np.random.default_rng(i)) for i in range(count)]
    return exactly(surrogate.predict(archs))


def exactly(said):
    return [[float(m).hex(), float(s).hex()] for m, s in zip(*said, strict=True)]

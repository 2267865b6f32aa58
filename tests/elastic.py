"""A small elastic space on digits, and a supernet of it that was trained for a moment."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np

from evaluators.one_shot import OneShot
from nas.cost import parameters_and_macs
from nas.data import Data, digits
from nas.objective import Metric
from nas.predictor import fit_surrogate, from_pairs
from nas.space import enumerate_architectures
from nas.specialize import spread_over_costs
from nas.supernet.training import PathSettings
from search_spaces.mbconv import MBConv, Stage

QUICK = PathSettings(epochs=2, batch_size=128, learning_rate=0.1)

DIGITS = functools.cache(digits)

# As a configuration has it: 800 architectures of 56 to 391 thousand MACs.
DESCRIPTION = {
    "name": "mbconv",
    "layout": [
        {"operations": ["ds_k3"], "channels": [8]},
        {
            "operations": ["ir"],
            "channels": [12],
            "depths": [1, 2],
            "kernels": [3, 5],
            "expansions": [2, 4],
        },
        {
            "operations": ["ir"],
            "channels": [16],
            "depths": [1, 2],
            "stride": 2,
            "kernels": [3, 5],
            "expansions": [2, 4],
        },
    ],
    "stem": 8,
    "stem_stride": 1,
    "head": 32,
    "dropout": 0.0,
    "widths": [50, 100],
}


def elastic(**changes: object) -> MBConv:
    """The space, or a sibling of it."""
    ir = {"kernels": (3, 5), "expansions": (2, 4)}
    arguments: dict[str, object] = {
        "layout": (
            Stage(("ds_k3",), (8,)),
            Stage(("ir",), (12,), (1, 2), **ir),
            Stage(("ir",), (16,), (1, 2), 2, **ir),
        ),
        **{key: DESCRIPTION[key] for key in ("stem", "stem_stride", "head", "dropout")},
        "widths": (50, 100),
        "input": (1, 8, 8),
        "classes": 10,
    }
    return MBConv(**{**arguments, **changes})


def one_shot(path: Path | None, data: Data | None = None, **arguments: object) -> OneShot:
    """The evaluator that trains it."""
    arguments = {"settings": QUICK, "recalibration_batches": 2, "device": "cpu", **arguments}
    return OneShot(elastic(), data or DIGITS(), path, **arguments)


@functools.cache
def everything():
    """All architectures of the space, and their MACs."""
    space = elastic()
    archs = list(enumerate_architectures(space))
    return archs, np.array([parameters_and_macs(space, arch)[1] for arch in archs])


@functools.cache
def made_up():
    """A predictor of an accuracy that rises with the MACs, but not alone."""
    space = elastic()
    archs = list(itertools.islice(spread_over_costs(space), 80))
    weights = np.random.default_rng(0).normal(size=60) * 0.02

    def value(arch):
        picks = [f"{label}{option}" for label, option in arch.picks]
        share = sum(weights[sum(map(ord, pick)) % 60] for pick in picks)
        return 0.1 * np.log10(parameters_and_macs(space, arch)[1]) + share

    pairs = [(arch, value(arch)) for arch in archs]
    return fit_surrogate(from_pairs(space, pairs, Metric("accuracy", "", "maximize")), "ridge")

"""The official NATS-Bench object (package ``nats_bench``), as a table.

Dong, Liu, Musial & Gabrys, "NATS-Bench", TPAMI 2021: the topology space is NAS-Bench-201's. Used
of it are ``len(api)``, ``api[index]``, ``api.get_more_info`` and ``api.get_cost_info``, means over
its runs. The package reads pickles, which can run any code: open files of a source you trust.

The validation of the ``cifar10`` column is that of the networks trained on ``cifar10-valid``, as in
the package's own ``simulate_train_eval``: those of ``cifar10`` were trained on all images. Its
FLOPs (millions) are multiply-accumulates; its latencies (s) are one device's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nas.errors import ConfigError, DataError, nearest
from nas.objective import Metric
from nas.tables.nasbench201 import EDGES, connected
from nas.tables.table import Quantity, Table

DATASETS = ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TRAININGS = ("12", "200")
DEVICE = "nats_bench"
_KEYS = {
    "validation_accuracy": ("valid-accuracy", "fraction", "maximize"),
    "validation_loss": ("valid-loss", "nats", "minimize"),
    "test_accuracy": ("test-accuracy", "fraction", "maximize"),
    "test_loss": ("test-loss", "nats", "minimize"),
    "train_loss": ("train-loss", "nats", "minimize"),
}


class NatsBench(Protocol):
    """What is used of ``nats_bench.create(…, "tss")``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> str: ...

    def get_more_info(
        self, index: int, dataset: str, iepoch: None = None, hp: str = "12", is_random: bool = True
    ) -> dict[str, Any]: ...

    def get_cost_info(self, index: int, dataset: str, hp: str = "12") -> dict[str, Any]: ...


def opened(path: str | Path) -> NatsBench:
    """The benchmark in an archive folder (``NATS-tss-…-simple``) or file (``….pickle.pbz2``).

    Raises:
        ConfigError: the package is not installed, or there is no such file.
    """
    if not Path(path).exists():
        raise ConfigError(f"there is no {path}")
    try:
        from nats_bench import create  # type: ignore[import-not-found]  # the user's own, optional
    except ImportError as error:
        raise ConfigError(
            "reading NATS-Bench's own files needs its package: pip install nats_bench"
        ) from error
    api: NatsBench = create(str(path), "tss", fast_mode=Path(path).is_dir(), verbose=False)
    return api


def converted(
    api: NatsBench,
    datasets: Sequence[str] = DATASETS,
    on_architecture: Callable[[int], None] | None = None,
) -> Table:
    """The table of what such an object holds.

    Args:
        datasets: the columns that are wanted.
        on_architecture: told how many are done.

    Raises:
        ConfigError: there is no such data set.
        DataError: an architecture's text or values are not as the package has them.
    """
    for name in datasets:
        if name not in DATASETS:
            raise ConfigError(f"NATS-Bench has no data set {name!r}: {nearest(name, DATASETS)}")
    count = len(api)
    shape = (len(datasets), count, 1)
    values = {name: np.full((*shape, len(TRAININGS)), np.nan) for name in _KEYS}
    seconds = np.full(shape, np.nan)
    counts = {name: np.zeros(shape[:2], np.int64) for name in ("parameters", "macs")}
    latency = np.full((1, count), np.nan)
    picks = np.empty((count, len(EDGES)), np.int64)
    for index in range(count):
        picks[index] = _positions(index, api[index])
        try:
            for column, dataset in enumerate(datasets):
                for point, hp in enumerate(TRAININGS):
                    info = _info(api, index, dataset, hp)
                    for name, (key, unit, _) in _KEYS.items():
                        if info.get(key) is not None:
                            scale = 0.01 if unit == "fraction" else 1.0
                            values[name][column, index, 0, point] = scale * info[key]
                    if point == 0 and info.get("train-per-time") is not None:
                        seconds[column, index, 0] = info["train-per-time"]
                cost = api.get_cost_info(index, dataset, hp=TRAININGS[0])
                counts["parameters"][column, index] = round(1e6 * cost["params"])
                counts["macs"][column, index] = round(1e6 * cost["flops"])
                if column == 0 and cost.get("latency"):
                    latency[0, index] = 1e3 * cost["latency"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"NATS-Bench, architecture {index}: {error!r}") from error
        if on_architecture is not None:
            on_architecture(index + 1)
    latency[:, ~connected(picks, OPERATIONS)] = np.nan
    return Table(
        name="NATS-Bench (tss)",
        space={"name": "nasbench201"},
        labels=tuple(f"{source}->{target}" for source, target in EDGES),
        options=(OPERATIONS,) * len(EDGES),
        picks=picks,
        datasets=tuple(datasets),
        seeds=(),
        quantities={
            name: Quantity(Metric(name, unit, direction), _epochs(), values[name])  # type: ignore[arg-type]  # one of the two
            for name, (_, unit, direction) in _KEYS.items()
            if not np.isnan(values[name]).all()
        },
        seconds_per_epoch=seconds,
        counts=counts,
        devices=() if np.isnan(latency).all() else (DEVICE,),
        latency_ms=latency,
        one_training=False,
        facts={"made with": "nats_bench, means over its runs"},
    )


def _epochs() -> tuple[int, ...]:
    return tuple(int(hp) for hp in TRAININGS)


def _info(api: NatsBench, index: int, dataset: str, hp: str) -> dict[str, Any]:
    info = dict(api.get_more_info(index, dataset, hp=hp, is_random=False))
    if dataset == "cifar10":
        other = api.get_more_info(index, "cifar10-valid", hp=hp, is_random=False)
        info |= {key: value for key, value in other.items() if key.startswith("valid-")}
    return info


def _positions(index: int, text: str) -> list[int]:
    """``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`` as positions in ``OPERATIONS``."""
    edges = re.findall(r"(\w+)~(\d)", str(text))
    if [int(source) for _, source in edges] != [source for source, _ in EDGES]:
        raise DataError(f"NATS-Bench, architecture {index}: {text!r} is not a cell of 6 edges")
    for operation, _ in edges:
        if operation not in OPERATIONS:
            raise DataError(
                f"NATS-Bench, architecture {index}: no operation {operation!r}: "
                f"{nearest(operation, OPERATIONS)}"
            )
    return [OPERATIONS.index(operation) for operation, _ in edges]

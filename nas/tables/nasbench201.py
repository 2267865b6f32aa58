"""NAS-Bench-201's published values, as one numpy file without pickle.

Arrays: ``ops`` (N, 6), positions in ``op_names`` of the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3;
``datasets`` (D,); accuracies in per cent ``val_acc_12``, ``test_acc_12``, ``test_acc_200`` (N, D),
means over runs; ``train_s_per_epoch_c10valid`` (N,), seconds of an epoch on half of CIFAR-10's
training images; ``params`` (N, D); ``flops_m`` (N, D), millions of multiply-accumulates;
``latency_devices`` (K,) and ``latency_ms`` (N, K).

The seconds are those of 25,000 images. The networks of the ``cifar10`` and ``cifar100`` columns
were trained on all 50,000, so an epoch of theirs costs twice that; ``cifar10-valid`` once, and
``ImageNet16-120``, 151,700 smaller images (16 × 16), 151,700 / 25,000 / 4 times.

A cell in which no way leads from the input to the output (341 of 15,625) is a network all the
same, trained and tested like any other, at chance. Its latency is that of what leads nowhere, and
on one of the phones close to zero, since it is left out there. Such latencies are masked (NaN) on
all devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.objective import Metric
from nas.tables.table import Quantity, Table

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
EPOCH_OF_C10_VALID = {
    "cifar10-valid": 1.0,
    "cifar10": 2.0,
    "cifar100": 2.0,
    "ImageNet16-120": 151_700 / 25_000 / 4,
}
_ACCURACIES = {
    "validation_accuracy": {12: "val_acc_12"},
    "test_accuracy": {12: "test_acc_12", 200: "test_acc_200"},
}

Arrays = Mapping[str, NDArray[Any]]


def is_published(arrays: Arrays) -> bool:
    """Whether a file's arrays are of this layout rather than the compact one."""
    return "ops" in arrays and "op_names" in arrays


def read_published(path: Path, arrays: Arrays) -> Table:
    """The table in such a file's arrays; ``DataError`` where they are something else."""
    ops = _array(path, arrays, "ops", ("N", len(EDGES)), {})
    sizes = {"N": len(ops), "D": len(_array(path, arrays, "datasets", ("D",), {}))}
    datasets = tuple(str(name) for name in arrays["datasets"])
    unknown = [name for name in datasets if name not in EPOCH_OF_C10_VALID]
    if unknown:
        raise DataError(
            f"{path}: 'datasets' names {unknown[0]!r}, expected some of "
            f"{', '.join(EPOCH_OF_C10_VALID)}"
        )
    names = tuple(str(name) for name in arrays["op_names"])
    quantities: dict[str, Quantity] = {}
    for name, columns in _ACCURACIES.items():
        points = {
            epochs: _array(path, arrays, column, ("N", "D"), sizes).T.astype(np.float64) / 100
            for epochs, column in columns.items()
            if column in arrays
        }
        if points:
            values = np.stack([points[epochs] for epochs in sorted(points)], axis=-1)
            quantities[name] = Quantity(
                Metric(name, "fraction", "maximize"), tuple(sorted(points)), values[:, :, None]
            )
    if not quantities:
        wanted = ", ".join(name for known in _ACCURACIES.values() for name in known.values())
        raise DataError(f"{path} has no accuracies: expected an array {wanted}")
    seconds = _array(path, arrays, "train_s_per_epoch_c10valid", ("N",), sizes)
    factors = np.array([EPOCH_OF_C10_VALID[name] for name in datasets])
    devices: tuple[str, ...] = ()
    latency = np.zeros((0, 0))
    if "latency_ms" in arrays or "latency_devices" in arrays:
        devices = tuple(
            str(name) for name in _array(path, arrays, "latency_devices", ("K",), sizes)
        )
        sizes["K"] = len(devices)
        latency = _array(path, arrays, "latency_ms", ("N", "K"), sizes).T.astype(np.float64)
        latency[:, ~connected(ops, names)] = np.nan
    table = Table(
        name=str(path),
        space={"name": "nasbench201"},
        labels=tuple(f"{source}->{target}" for source, target in EDGES),
        options=(names,) * len(EDGES),
        picks=ops.astype(np.int64),
        datasets=datasets,
        seeds=(),
        quantities=quantities,
        seconds_per_epoch=(factors[:, None] * seconds[None])[:, :, None].astype(np.float64),
        counts={
            "parameters": _array(path, arrays, "params", ("N", "D"), sizes).T.astype(np.int64),
            # To the thousandth of a million: what a float32 of millions holds of a whole number.
            "macs": np.rint(
                _array(path, arrays, "flops_m", ("N", "D"), sizes).T.astype(np.float64) * 1e6
            ).astype(np.int64),
        },
        devices=devices,
        latency_ms=latency,
        one_training=False,
    )
    for name, quantity in quantities.items():
        wrong = ~((quantity.values >= 0) & (quantity.values <= 1))
        if wrong.any():
            raise DataError(
                f"{path}: {name} of row {int(np.argwhere(wrong)[0][1])} is not from 0 to 100 %"
            )
    return table


def connected(ops: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Whether a way leads from the input of each cell, (N, 6) positions, to its output."""
    if "none" not in names:
        return np.ones(len(ops), bool)
    there = ops != names.index("none")
    reached = {0: np.ones(len(ops), bool)}
    for column, (source, target) in enumerate(EDGES):
        step = reached[source] & there[:, column]
        reached[target] = reached.get(target, np.zeros(len(ops), bool)) | step
    return reached[3]


def _array(
    path: Path, arrays: Arrays, name: str, shape: tuple[str | int, ...], sizes: Mapping[str, int]
) -> NDArray[Any]:
    """An array of a file, its shape checked; letters stand for sizes."""
    if name not in arrays:
        raise DataError(f"{path} has no array {name!r}, as a table of NAS-Bench-201 needs")
    array = arrays[name]
    expected = [sizes.get(size, size) if isinstance(size, str) else size for size in shape]
    fits = array.ndim == len(expected) and all(
        isinstance(size, str) or size == found
        for size, found in zip(expected, array.shape, strict=True)
    )
    if not fits:
        shown = ", ".join(map(str, expected))
        raise DataError(f"{path}: {name!r} has the shape {array.shape}, expected ({shown})")
    return array

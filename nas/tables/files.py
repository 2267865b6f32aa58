"""Tables on disk: one compact ``.npz`` without pickle, and the checksum in it.

The file holds ``format`` (``"nasforge-table/1"``), ``about`` (a JSON object: the space, its
choices, data sets, seeds, devices, quantities, how the table was made), ``picks``,
``seconds_per_epoch``, an array for each quantity and each count under its name, ``latency_ms``,
and ``checksum``: BLAKE2b over all the others. Shapes are those of ``nas.tables.Table``.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nas.errors import ConfigError, DataError, nearest
from nas.history import write_file
from nas.objective import Metric
from nas.tables.nasbench201 import is_published, read_published
from nas.tables.table import Quantity, Table

FORMAT = "nasforge-table/1"
COUNTS = ("parameters", "macs")
_RESERVED = ("format", "about", "picks", "seconds_per_epoch", "latency_ms", "checksum")
_FOLDER = Path(__file__).parent / "shipped"

Arrays = Mapping[str, NDArray[Any]]


def shipped() -> dict[str, Path]:
    """The tables that come with the package, by name: ``digits`` for ``digits_….npz``."""
    return {path.stem.partition("_")[0]: path for path in sorted(_FOLDER.glob("*.npz"))}


def find(table: str | Path) -> Path:
    """The file of a table: a shipped one's name, or a path.

    Raises:
        ConfigError: it is neither.
    """
    known = shipped()
    if str(table) in known:
        return known[str(table)]
    path = Path(table)
    if not path.is_file():
        raise ConfigError(
            f"there is no table {str(table)!r}: neither a file, nor one that comes with the "
            f"package; {nearest(str(table), known)}"
        )
    return path


def load(table: str | Path) -> Table:
    """Reads a table: the compact layout, or NAS-Bench-201's published values as ``nb201.npz``.

    Raises:
        ConfigError: there is no such file.
        DataError: it is damaged, or no table; the message names the file, the array and what was
            expected.
    """
    path = find(table)
    arrays = _arrays(path)
    return read_published(path, arrays) if is_published(arrays) else _compact(path, arrays)


def _arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise DataError(f"{path} is a single array, expected an .npz file of several")
            return {name: found[name] for name in found.files}
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no readable .npz file: {error}") from error


def _compact(path: Path, arrays: Arrays) -> Table:
    for name in _RESERVED:
        if name not in arrays:
            raise DataError(
                f"{path} is no table: it has no array {name!r}; it holds "
                f"{', '.join(arrays) or 'nothing'}"
            )
    if str(arrays["format"]) != FORMAT:
        raise DataError(f"{path}: 'format' is {str(arrays['format'])!r}, expected {FORMAT!r}")
    found = checksum(arrays)
    if str(arrays["checksum"]) != found:
        raise DataError(
            f"{path} is damaged: its arrays give the checksum {found}, 'checksum' says "
            f"{str(arrays['checksum'])!r}"
        )
    try:
        about = json.loads(str(arrays["about"]))
        quantities = {
            item["name"]: Quantity(
                Metric(item["name"], item["unit"], item["direction"]),
                tuple(item["epochs"]),
                _array(path, arrays, item["name"]).astype(np.float64),
            )
            for item in about["quantities"]
        }
        return Table(
            name=str(path),
            space=about["space"],
            labels=tuple(label for label, _ in about["choices"]),
            options=tuple(tuple(options) for _, options in about["choices"]),
            picks=arrays["picks"].astype(np.int64),
            datasets=tuple(about["datasets"]),
            seeds=tuple(about["seeds"]),
            quantities=quantities,
            seconds_per_epoch=arrays["seconds_per_epoch"].astype(np.float64),
            counts={name: _array(path, arrays, name).astype(np.int64) for name in COUNTS},
            devices=tuple(about["devices"]),
            latency_ms=arrays["latency_ms"].astype(np.float64),
            one_training=bool(about["one_training"]),
            facts=about["facts"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: 'about' is not what {FORMAT} holds: {error!r}") from error


def _array(path: Path, arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise DataError(f"{path} has no array {name!r}: {nearest(name, arrays)}")
    return arrays[name]


def save(table: Table, path: str | Path) -> int:
    """Writes a table, whole or not at all; returns the size of the file in bytes.

    Fractions keep single precision (they take few different values and compress well), other
    quantities, seconds and latencies half of it: three digits, more than a run's noise leaves.

    Raises:
        DataError: a quantity is named as something else in the file.
        JournalError: the disk does not take it.
    """
    about = {
        "space": dict(table.space),
        "choices": list(zip(table.labels, table.options, strict=True)),
        "datasets": table.datasets,
        "seeds": table.seeds,
        "devices": table.devices,
        "one_training": table.one_training,
        "quantities": [
            {
                "name": quantity.metric.name,
                "unit": quantity.metric.unit,
                "direction": quantity.metric.direction,
                "epochs": quantity.epochs,
            }
            for quantity in table.quantities.values()
        ],
        "facts": dict(table.facts),
    }
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "about": np.array(json.dumps(about, ensure_ascii=False)),
        "picks": table.picks.astype(np.int16),
        "seconds_per_epoch": _rounded(table.seconds_per_epoch),
        "latency_ms": _rounded(table.latency_ms),
    }
    for name, counts in table.counts.items():
        arrays[name] = counts
    for name, quantity in table.quantities.items():
        if name in (*_RESERVED, *COUNTS):
            raise DataError(f"{table.name}: a quantity cannot be named {name!r}")
        values = quantity.values
        arrays[name] = (
            values.astype(np.float32) if quantity.metric.unit == "fraction" else _rounded(values)
        )
    arrays["checksum"] = np.array(checksum(arrays))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy types the flags with the arrays
    write_file(Path(path), buffer.getvalue())
    return buffer.tell()


def facts_of_file(path: Path) -> dict[str, Any]:
    """Its size and, where it has one, its checksum."""
    arrays = _arrays(path)
    sums = {"checksum": str(arrays["checksum"])} if "checksum" in arrays else {}
    return {"bytes": path.stat().st_size, **sums}


def selected(table: Table, datasets: Sequence[str] | None) -> Table:
    """A table of some of its data sets, in that order; all of them if none is named."""
    if not datasets:
        return table
    columns = [table.dataset(name) for name in datasets]
    return replace(
        table,
        datasets=tuple(datasets),
        quantities={
            name: replace(quantity, values=quantity.values[columns])
            for name, quantity in table.quantities.items()
        },
        seconds_per_epoch=table.seconds_per_epoch[columns],
        counts={name: counts[columns] for name, counts in table.counts.items()},
    )


def _rounded(values: NDArray[np.float64]) -> NDArray[Any]:
    """Half precision where its range holds them (three digits), else single."""
    finite = np.abs(values[np.isfinite(values) & (values != 0)])
    fits = not finite.size or (finite.max() < 6e4 and finite.min() > 7e-5)
    return values.astype(np.float16 if fits else np.float32)


def checksum(arrays: Arrays) -> str:
    """BLAKE2b, 16 bytes in hex, over the names, kinds, shapes and contents of all arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        if name != "checksum":
            array = np.ascontiguousarray(arrays[name])
            little = array.astype(array.dtype.newbyteorder("<"))
            digest.update(f"{name} {little.dtype.str} {array.shape}\n".encode())
            digest.update(little.tobytes())
    return digest.hexdigest()

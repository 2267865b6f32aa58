"""Measured whole networks, as people keep them: CSV, JSON or npz, read without pickle.

=====  =======================================================================================
CSV    a header; the column ``architecture`` (any text that ``nas.space.parse`` reads), and one
       column of milliseconds for each device, named after it (``latency_ms`` for one)
JSON   a list of objects with the same names, or an object architecture → milliseconds
npz    ``arch`` (n, choices), the position of each choice's option, −1 where it is inactive;
       ``latency_ms`` (n,), or (n, K) with ``devices`` (K,)
=====  =======================================================================================

A latency that is empty, ``null`` or NaN is one that was not measured.
"""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.encoding import from_ordinal
from nas.errors import DataError, NasError
from nas.space import SearchSpace, parse

Measurements = dict[str, tuple[list[Architecture], NDArray[np.float64]]]
"""By device: the architectures, and the milliseconds of each (NaN where not measured)."""

_ARCHITECTURE = "architecture"


def read_measurements(path: str | Path, space: SearchSpace) -> Measurements:
    """What was measured, by device; a file of one device names it ``latency_ms``, if anything.

    Raises:
        DataError: the file cannot be read, or a line of it is no measured architecture of the
            space; the message names the line.
    """
    path = Path(path)
    readers = {".csv": _csv, ".json": _json, ".npz": _npz}
    if path.suffix not in readers:
        raise DataError(f"{path}: measured networks are a {', '.join(readers)} file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    found = readers[path.suffix](path, content, space)
    if not found or not next(iter(found.values()))[0]:
        raise DataError(f"{path} holds no measured network")
    return found


def _csv(path: Path, content: bytes, space: SearchSpace) -> Measurements:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = [(f"line {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV: {error}") from error
    return _rows(path, rows, space)


def _json(path: Path, content: bytes, space: SearchSpace) -> Measurements:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if isinstance(document, dict):
        document = [{_ARCHITECTURE: arch, "latency_ms": ms} for arch, ms in document.items()]
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise DataError(f"{path} must hold a list of objects, or an object architecture → ms")
    return _rows(path, [(f"entry {n}", row) for n, row in enumerate(document)], space)


def _rows(
    path: Path, rows: Sequence[tuple[str, Mapping[str, Any]]], space: SearchSpace
) -> Measurements:
    devices = [name for name in (rows[0][1] if rows else ()) if name != _ARCHITECTURE]
    archs: list[Architecture] = []
    latency = np.full((len(rows), len(devices)), np.nan)
    for number, (where, row) in enumerate(rows):
        text = row.get(_ARCHITECTURE)
        if text is None or not devices:
            raise DataError(
                f"{path}, {where}: expected {_ARCHITECTURE!r} and a latency in ms, got "
                f"{', '.join(map(repr, row))}"
            )
        try:
            archs.append(parse(space, text if isinstance(text, str) else json.dumps(text)))
        except NasError as error:
            raise DataError(f"{path}, {where}: {error}") from error
        for column, device in enumerate(devices):
            value = row.get(device)
            try:
                ms = np.nan if value in (None, "") else float(value)
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, {where}: {device!r} is {value!r}, no number") from error
            _check(path, where, device, ms)
            latency[number, column] = ms
    return {device: (archs, latency[:, column]) for column, device in enumerate(devices)}


def _check(path: Path, where: str, device: str, ms: float) -> None:
    """Raises ``DataError`` for what no network takes; NaN is one that was not measured."""
    if not (math.isnan(ms) or (math.isfinite(ms) and ms > 0)):
        raise DataError(f"{path}, {where}: {device!r} is {ms!r}, expected ms above 0")


def _npz(path: Path, content: bytes, space: SearchSpace) -> Measurements:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {
                name: file[name] for name in ("arch", "latency_ms", "devices") if name in file
            }
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path} is damaged, or no npz file: {error}") from error
    for name in ("arch", "latency_ms"):
        if name not in arrays:
            raise DataError(f"{path} has no array {name!r}")
    latency = arrays["latency_ms"]
    latency = latency[:, None] if latency.ndim == 1 else latency
    devices = [str(name) for name in arrays.get("devices", ())] or ["latency_ms"]
    if latency.dtype.kind not in "fiu" or latency.shape != (len(arrays["arch"]), len(devices)):
        raise DataError(
            f"{path}: latency_ms is {latency.dtype} of shape {latency.shape}, expected numbers "
            f"for {len(arrays['arch'])} networks and {len(devices)} devices"
        )
    archs = []
    for number, positions in enumerate(arrays["arch"].astype(np.int64)):
        try:
            archs.append(from_ordinal(space, positions))
        except NasError as error:
            raise DataError(f"{path}, network {number}: {error}") from error
    ms = latency.astype(np.float64)
    for number, row in enumerate(ms):
        for device, value in zip(devices, row, strict=True):
            _check(path, f"network {number}", device, float(value))
    return {device: (archs, ms[:, column]) for column, device in enumerate(devices)}

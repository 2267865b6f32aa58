"""A space's operations as files, to be measured on a device that is not here.

A pack is a folder, or a zip file, of ONNX files, a manifest and ``run.py``
(``nas.latency.runner``), which needs onnxruntime and numpy alone. What it writes on the device,
``nas.latency.importing`` makes a table of.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.components import describe
from nas.errors import ConfigError, DataError, InvalidArchitecture
from nas.history import write_file
from nas.latency.runner import MANIFEST
from nas.plain import plainest
from nas.space import SearchSpace, network, sample

FORMAT = "nasforge latency pack"
VERSION = 1
RUNNER = "run.py"
BACKEND = "onnxruntime"

OnFile = Callable[[int, int], None]
"""Told how many of how many files are made."""


@dataclass(frozen=True)
class Manifest:
    """What is in a pack.

    Attributes:
        id: tells packs apart; results say which one they are of.
        space: its description.
        batch: examples at once.
        titles: of the operations, for people, by key.
        networks: whole networks to check a table with, by digest.
    """

    id: str
    space: Any
    batch: int
    titles: dict[str, str]
    networks: dict[str, Architecture]


def pack(
    space: SearchSpace,
    networks: int = 0,
    batch: int = 1,
    seed: int = 0,
    on_file: OnFile | None = None,
) -> Iterator[tuple[str, bytes]]:
    """The files of a pack, each with its name; the manifest is the last.

    Args:
        networks: so many random networks go along, which say how well sums of operations tell
            what a whole one takes.
        batch: examples at once.
        seed: of those networks.

    Raises:
        ConfigError: a number is out of range, or onnx is not installed.
        ExportError: an operation cannot be written as ONNX.
    """
    import torch

    from nas.latency.backends import check, nothing, onnx_bytes
    from nas.latency.measure import Protocol
    from nas.latency.operations import operations

    check(BACKEND, Protocol(batch=batch))
    if networks < 0:
        raise ConfigError(f"networks must be zero or more, got {networks}")
    found = operations(space, batch=batch)
    archs = _random(space, networks, seed)
    total = len(found) + len(archs)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "space": describe(space),
        "batch": batch,
        "nothing": "nothing.onnx",
        "reference": "reference.onnx",
        "operations": [],
        "networks": [],
    }
    digest = hashlib.blake2b(json.dumps(manifest).encode(), digest_size=16)

    def written(kind: str, number: int, entry: dict[str, str], content: bytes) -> tuple[str, bytes]:
        file = f"{kind}/{number:04d}.onnx"
        manifest[kind].append({**entry, "file": file})
        digest.update(entry["key"].encode())
        if on_file is not None:
            on_file(len(manifest["operations"]) + len(manifest["networks"]), total)
        return file, content

    def whole(arch: Architecture) -> bytes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = network(space, arch).eval()
        return onnx_bytes(built, (torch.zeros(batch, *space.input),))

    yield "nothing.onnx", onnx_bytes(*nothing(BACKEND))
    yield "reference.onnx", whole(plainest(space))
    for number, operation in enumerate(found.values()):
        entry = {"key": operation.key, "title": operation.title}
        content = onnx_bytes(operation.module(space), operation.example())
        yield written("operations", number, entry, content)
    for number, arch in enumerate(archs):
        entry = {"key": arch.digest(), "arch": arch.to_json()}
        yield written("networks", number, entry, whole(arch))
    yield RUNNER, Path(__file__).with_name("runner.py").read_bytes()
    manifest["id"] = digest.hexdigest()
    yield MANIFEST, json.dumps(manifest, indent=1).encode()


def _random(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Different random architectures; fewer where the space soon has no other."""
    rng = np.random.default_rng([seed, 1])
    found: dict[Architecture, None] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        found[space.canonical(sample(space, rng))] = None
    return list(found)


def write_pack(out: Path, files: Iterator[tuple[str, bytes]]) -> int:
    """Writes a pack as a folder, or as one zip file where the name ends in ``.zip``.

    Returns:
        How many files it has.

    Raises:
        ConfigError: there is something else already.
        JournalError: the disk does not take it.
    """
    if out.suffix != ".zip":
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file: a pack is a folder, or a .zip")
        if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists():
            raise ConfigError(f"{out} holds other things: give an empty or a new folder")
        # Without it nothing is a pack until all of the new one is there.
        (out / MANIFEST).unlink(missing_ok=True)
        count = 0
        for name, content in files:
            write_file(out / name, content)
            count += 1
        return count
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            # Without the time of day, the same pack is the same file.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        count = len(archive.namelist())
    write_file(out, buffer.getvalue())
    return count


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a pack: of its folder, its zip file, or as a file by itself.

    Raises:
        DataError: there is no pack, or it is damaged.
    """
    path = Path(path)
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                text = archive.read(MANIFEST)
        else:
            text = (path / MANIFEST if path.is_dir() else path).read_bytes()
    except KeyError as error:
        raise DataError(f"{path} is no pack: it has no {MANIFEST}") from error
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} is no pack, or cannot be read: {reason}") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: its {MANIFEST} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{path}: its {MANIFEST} is not that of a pack")
    if document.get("version") != VERSION:
        raise DataError(
            f"{path} is a pack of version {document.get('version')!r}; this release reads {VERSION}"
        )
    try:
        return Manifest(
            str(document["id"]),
            document["space"],
            int(document["batch"]),
            {str(entry["key"]): str(entry["title"]) for entry in document["operations"]},
            {
                str(entry["key"]): Architecture.from_json(entry["arch"])
                for entry in document["networks"]
            },
        )
    except (KeyError, TypeError, ValueError, InvalidArchitecture) as error:
        raise DataError(f"{path}: its {MANIFEST} is damaged: {error!r:.200}") from error

"""Image files as they are distributed, to arrays: IDX, CIFAR-10's records, strips of PNG rows.

Every reader gives ``uint8`` images (N, C, H, W) and labels (N,), and answers a file that is
missing, cut short or of another kind with a ``DataError`` that names it. Nothing is unpickled.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

Pixels = NDArray[np.uint8]
Labelled = tuple[Pixels, NDArray[np.int64]]

RECORDS = 10_000
"""Images in each of CIFAR-10's files."""

_CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def read_idx(path: Path) -> Pixels:
    """An array of bytes in the IDX format, gzipped where the name ends in ``.gz``."""
    content = _content(path)
    # Two zeros, the type (8: unsigned bytes), the number of dimensions; then each size, 4 bytes.
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 4:
        begins = content[:4].hex(" ") or "nothing"
        raise DataError(f"{path} is not an IDX file of bytes: it begins with {begins}")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path} ends inside its header, after {len(content)} bytes")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{path} is damaged: {len(content)} bytes, but its header announces "
            f"{'×'.join(map(str, shape))}, which makes {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_idx_pair(folders: Sequence[Path], part: str, advice: str) -> Labelled:
    """The images and labels of one part (``train`` or ``t10k``) of an MNIST-like data set."""
    images_path = _first(folders, f"{part}-images-idx3-ubyte", advice)
    labels_path = _first(folders, f"{part}-labels-idx1-ubyte", advice)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
        raise DataError(
            f"{images_path} and {labels_path} do not belong together: "
            f"images of shape {images.shape}, labels of shape {labels.shape}"
        )
    return images[:, None], _checked_labels(labels, labels_path)


def read_cifar10(root: Path) -> tuple[Labelled, Labelled]:
    """CIFAR-10's training and test images, from the binary version or from PNG strips."""
    # What the archives unpack to: the binary version's, and npm's.
    folders = [root, root / "cifar-10-batches-bin", root / "package"]
    for folder in folders:
        if (folder / "data_batch_1.bin").exists():
            batches = [_records(folder / f"data_batch_{n}.bin") for n in range(1, 6)]
            return _joined(batches), _records(folder / "test_batch.bin")
        if (folder / "data_batch_1.png").exists():
            strips = [_strip(folder / f"data_batch_{n}.png") for n in range(1, 6)]
            return (
                _with_labels(np.concatenate(strips), folder, "train"),
                _with_labels(_strip(folder / "test_batch.png"), folder, "test"),
            )
    advice = (
        f"get the binary version (cifar-10-binary.tar.gz) from {_CIFAR_PAGE} and unpack it there"
    )
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").exists():
            raise DataError(
                f"{folder} holds the Python version of CIFAR-10, whose files are pickles, which "
                f"can run any code and are never loaded: {advice}"
            )
    raise DataError(
        f"there is no CIFAR-10 in {root}: neither data_batch_1.bin … data_batch_5.bin, "
        f"test_batch.bin nor the same as .png; {advice}"
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _first(folders: Sequence[Path], name: str, advice: str) -> Path:
    for folder in folders:
        for candidate in (folder / f"{name}.gz", folder / name):
            if candidate.exists():
                return candidate
    places = ", ".join(str(folder) for folder in folders)
    raise DataError(f"there is no {name}.gz and no {name} in {places}; {advice}")


def _records(path: Path) -> Labelled:
    # A record is the label, then 1,024 bytes each of red, green and blue.
    content = _content(path)
    if len(content) != RECORDS * 3073:
        raise DataError(
            f"{path} is damaged: {len(content)} bytes, expected {RECORDS} records of 3073"
        )
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), _checked_labels(records[:, 0], path)


def _strip(path: Path) -> Pixels:
    # A row of the picture is one image: its 1,024 pixels, row by row, each red, green, blue.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a picture") from error
    except (OSError, SyntaxError) as error:  # PIL's words for a missing and for a broken file
        raise DataError(f"{path} is missing or damaged: {error}") from error
    if pixels.shape != (RECORDS, 1024, 3):
        raise DataError(
            f"{path} is {pixels.shape[1]} wide and {pixels.shape[0]} high, expected a row of "
            f"1024 pixels for each of {RECORDS} images"
        )
    return np.ascontiguousarray(pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))


def _with_labels(images: Pixels, folder: Path, part: str) -> Labelled:
    # The package that ships the strips spells it so.
    names = (f"{part}_lables.json", f"{part}_labels.json")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise DataError(f"there is neither {names[0]} nor {names[1]} in {folder}")
    try:
        labels = json.loads(_content(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path} must be a list of whole numbers")
    if len(labels) != len(images):
        raise DataError(f"{path} has {len(labels)} labels for {len(images)} images")
    return images, _checked_labels(np.array(labels), path)


def _joined(parts: Sequence[Labelled]) -> Labelled:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _checked_labels(labels: NDArray[np.integer], path: Path) -> NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise DataError(
            f"{path} is damaged: label {wrong[0]} is {labels[wrong[0]]}, expected 0 to 9"
        )
    return labels.astype(np.int64)

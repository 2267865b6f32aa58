"""Where training runs and what it is fed: devices, batches, repeatable randomness."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from nas.data import Images, load_item
from nas.errors import ConfigError, nearest

Device = Literal["auto", "cpu", "cuda"]


def choose_device(device: Device) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one."""
    if device not in get_args(Device):
        raise ConfigError(f"there is no device {device!r}: {nearest(device, get_args(Device))}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError("device 'cuda': torch finds no GPU here; use 'cpu' or 'auto'")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and available) else "cpu")


def fetch(dataset: Dataset[Any], indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Items of a data set as one batch; at once where it is in memory, else one by one."""
    if type(dataset) is Subset:
        return fetch(dataset.dataset, torch.as_tensor(dataset.indices)[indices])
    if type(dataset) is Images:
        return dataset.batch(indices)
    if type(dataset) is TensorDataset:
        images, labels = dataset.tensors
        return images[indices].float(), labels[indices].long()
    items = [load_item(dataset, index, "data") for index in indices.tolist()]
    return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])


@contextlib.contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Torch's generators seeded, so many threads; all as it was afterwards."""
    before = torch.get_num_threads()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    gpus = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices=gpus):
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(before)

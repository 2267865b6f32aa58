"""A data set made on the spot: horizontal and vertical stripes, with noise."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from nas.data import Data, from_datasets


def stripes(examples: int = 120, size: int = 6) -> Data:
    """Noisy stripes across or down a small image: two classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(examples) % 2
    wave = torch.arange(size).remainder(2).float().expand(size, size)
    images = torch.stack([wave if label else wave.T for label in labels])[:, None]
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    return from_datasets(TensorDataset(images, labels), name="stripes", classes=2)

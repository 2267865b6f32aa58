"""Augmentation on batches of images, from torch's generator alone."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def resized(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """Images (N, C, H, W) of another height and width in pixels; ``None`` leaves them."""
    if resolution is None or images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(
        images, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False
    )


def augmented(
    images: torch.Tensor,
    crop_padding: int,
    flip: bool,
    batch: tuple[int, slice] | None = None,
) -> torch.Tensor:
    """Each image shifted by up to the padding in both directions, and mirrored half the time.

    Args:
        images: (N, C, H, W); examples of another shape are left as they are.
        crop_padding: in pixels; the borders are repeated.
        batch: where these images are a part of a batch, how many it has, and which these are:
            what happens to an image does not depend on how the batch is cut.
    """
    count, _, height, width = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    drawn, part = (count, slice(None)) if batch is None else batch
    if flip and count:
        mirrored = (torch.rand(drawn) < 0.5)[part].to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if crop_padding and count:
        padded = F.pad(images, [crop_padding] * 4, mode="replicate")
        offsets = torch.randint(2 * crop_padding + 1, (2, drawn, 1))[:, part]
        top, left = offsets.to(images.device)
        rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
        example = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        images = padded[example, channel, rows, columns]
    return images


def cutout(images: torch.Tensor, side: int) -> torch.Tensor:
    """Each image with a square of zeros, the mean of normalised pixels, at a random place.

    The centre lies anywhere in the image, so that the square may stick out of it. DeVries &
    Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.

    Args:
        images: (N, C, H, W); examples of another shape are left as they are.
        side: in pixels; 0 blanks nothing.
    """
    if side == 0 or images.ndim != 4:
        return images
    count, _, height, width = images.shape
    inside = []
    for size in (height, width):
        first = torch.randint(size, (count, 1)) - side // 2
        place = torch.arange(size)
        inside.append((place >= first) & (place < first + side))
    blank = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(blank.to(images.device), 0.0)


def mixup(images: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A batch mixed with itself in another order, one share for all.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    Args:
        images: (N, …).
        alpha: above 0: the share is drawn from Beta(alpha, alpha).

    Returns:
        The mixed batch, the order (N,) of what was mixed in, and the share of the first.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images))
    return images.lerp(images[order.to(images.device)], 1.0 - share), order, share

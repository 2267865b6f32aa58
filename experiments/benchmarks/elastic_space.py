"""A small once-for-all space for 28×28 images: the one whose elastic supernet the docs measure."""

from __future__ import annotations

from search_spaces.mbconv import MBConv, Stage


def elastic(
    channels: tuple[int, ...] = (8, 12, 20, 32),
    widths: tuple[int, ...] = (100,),
    head: int = 128,
    classes: int = 10,
    input: tuple[int, ...] = (1, 28, 28),
) -> MBConv:
    """A fixed block, then three stages of one to three inverted bottlenecks: kernel 3 or 5,
    expansion 2, 3 or 4.

    Args:
        channels: of the stages; the stem has the first's.
        widths: options of the width multiplier, in per cent.
        head: channels of the last convolution.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    first, *others = channels
    stages = [
        Stage(("ir",), (c,), (1, 2, 3), stride, kernels=(3, 5), expansions=(2, 3, 4))
        for c, stride in zip(others, (2, 2, 1), strict=True)
    ]
    return MBConv(
        (Stage(("ds_k3",), (first,)), *stages),
        stem=first,
        head=head,
        widths=widths,
        dropout=0.0,
        classes=classes,
        input=input,
    )

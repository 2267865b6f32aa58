"""A small MBConv space for 28×28 images: the one whose latencies the docs measure."""

from __future__ import annotations

from search_spaces.mbconv import MBConv, Stage


def mobile(
    channels: tuple[int, ...] = (16, 32, 64),
    stem: int = 16,
    head: int = 128,
    classes: int = 10,
    input: tuple[int, ...] = (1, 28, 28),
) -> MBConv:
    """Stages of one to three inverted bottlenecks: kernel 3, 5, 7; expansion 3, 6; with and
    without squeeze-and-excitation.

    Args:
        channels: of the stages; all but the first halve the size.
        stem: channels of the first convolution, which halves the size.
        head: channels of the last convolution.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    layout = tuple(
        Stage(
            ("ir",),
            (c,),
            (1, 2, 3),
            2 if number else 1,
            kernels=(3, 5, 7),
            expansions=(3, 6),
            squeezes=(0, 25),
            activation="relu",
        )
        for number, c in enumerate(channels)
    )
    return MBConv(
        layout,
        stem=stem,
        head=head,
        activation="relu",
        widths=(100,),
        dropout=0.0,
        classes=classes,
        input=input,
    )

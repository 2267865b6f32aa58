"""The search spaces of the papers, as configurations of ``MBConv``."""

from __future__ import annotations

from search_spaces.mbconv.layouts import (
    fbnet_layout,
    mnasnet_layout,
    ofa_layout,
    ofa_proxyless_layout,
    proxyless_layout,
    slimmable_layout,
)
from search_spaces.mbconv.points import V3_SQUEEZE
from search_spaces.mbconv.space import MBConv


def mnasnet(
    channels: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320),
    stem: int = 32,
    head: int = 1280,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """MnasNet's factorised hierarchical space: seven stages, each with its own kind of layers.

    A stage picks one operation (convolution, depthwise-separable, inverted bottleneck ×3 or ×6),
    kernel, squeeze-and-excitation, skip operation, filters (0.75, 1 or 1.25 times MobileNetV2's)
    and number of layers (MobileNetV2's, one less, one more) for all its layers.

    Tan et al., MnasNet, CVPR 2019. A skip, pooling included, is for layers that keep the shape;
    what the paper leaves open: filters are not rounded, pooling is a 3×3 average. The published
    MnasNet networks have filters outside of this grid (192 of 160, 112 of 96).

    Args:
        channels: of the seven stages of the network that the options are relative to.
        stem: channels of the first convolution.
        head: channels of the last convolution.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=mnasnet_layout(channels),
        stem=stem,
        head=head,
        activation="relu",
        widths=(100,),
        classes=classes,
        input=input,
        paper="Tan et al., MnasNet, CVPR 2019",
    )


def proxylessnas(
    channels: tuple[int, ...] = (16, 24, 40, 80, 96, 192, 320),
    stem: int = 32,
    head: int = 1280,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """ProxylessNAS: 21 blocks of kernel 3, 5, 7 and expansion 3, 6, or skipped.

    Cai, Zhu & Han, ProxylessNAS, ICLR 2019. A block that changes the shape is never skipped.

    Args:
        channels: of the seven stages, the first of which is a fixed block.
        stem: channels of the first convolution.
        head: channels of the last convolution.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=proxyless_layout(channels),
        stem=stem,
        head=head,
        widths=(100,),
        dropout=0.0,
        classes=classes,
        input=input,
        paper="Cai, Zhu & Han, ProxylessNAS, ICLR 2019",
    )


def fbnet(
    channels: tuple[int, ...] = (16, 24, 32, 64, 112, 184, 352),
    stem: int = 16,
    head: int = 1504,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """FBNet V1: 22 layers of nine blocks: kernel 3, 5; expansion 1 (in 1 or 2 groups), 3, 6; skip.

    Wu et al., FBNet, CVPR 2019. The skip of a layer that changes the shape is a 1×1 convolution,
    so all 9^22 architectures are there; one with expansion 1 has its first 1×1 convolution, too.
    The width of the head could not be checked against the authors' code, whose later networks have
    1984 channels there.

    Args:
        channels: of the seven stages of 1, 4, 4, 4, 4, 4 and 1 layers; even.
        stem: channels of the first convolution.
        head: channels of the last convolution.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=fbnet_layout(channels),
        stem=stem,
        head=head,
        activation="relu",
        widths=(100,),
        classes=classes,
        input=input,
        paper="Wu et al., FBNet, CVPR 2019",
    )


def ofa_mobilenet_v3(
    channels: tuple[int, ...] = (16, 24, 40, 80, 112, 160),
    stem: int = 16,
    head: int = 960,
    dense: int = 1280,
    widths: tuple[int, ...] = (100, 120),
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4)),
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """Once-for-all's MobileNetV3: elastic kernel, expansion, depth, width and resolution.

    Cai et al., Once-for-all, ICLR 2020. The layer before the classifier is MobileNetV3's, with a
    bias, which once-for-all's own leaves out: the largest network of width 100 has 7,666,040
    parameters here and 1,280 fewer there, of width 120 10,703,168 and 1,536 fewer.

    Args:
        channels: of the six stages, the first of which is a fixed block.
        stem: channels of the first convolution.
        head: channels of the last convolution.
        dense: width of the layer before the classifier.
        widths: options of the width multiplier, in per cent.
        resolutions: options of the image's height and width; an image of another size is scaled
            first. Empty: the image as it comes.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=ofa_layout(channels),
        stem=stem,
        head=head,
        dense=dense,
        activation="hswish",
        squeeze=V3_SQUEEZE,
        widths=widths,
        resolutions=resolutions,
        classes=classes,
        input=input,
        paper="Cai et al., Once-for-all, ICLR 2020",
    )


def ofa_proxylessnas(
    channels: tuple[int, ...] = (16, 24, 40, 80, 96, 192, 320),
    stem: int = 32,
    head: int = 1280,
    widths: tuple[int, ...] = (100, 130),
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4)),
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """Once-for-all's ProxylessNAS: elastic kernel, expansion, depth, width and resolution.

    Cai et al., Once-for-all, ICLR 2020. Of the 21 blocks that ProxylessNAS chooses from, the first
    2, 3 or 4 of a stage are taken; the last stage is one block. The authors' network is that of
    width 130; here widths are open in one space, as they are in ``ofa_mobilenet_v3``.

    Args:
        channels: of the seven stages, the first of which is a fixed block.
        stem: channels of the first convolution.
        head: channels of the last convolution.
        widths: options of the width multiplier, in per cent.
        resolutions: options of the image's height and width; an image of another size is scaled
            first. Empty: the image as it comes.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=ofa_proxyless_layout(channels),
        stem=stem,
        head=head,
        widths=widths,
        resolutions=resolutions,
        dropout=0.1,
        classes=classes,
        input=input,
        paper="Cai et al., Once-for-all, ICLR 2020",
    )


def slimmable_mobilenet_v2(
    channels: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320),
    stem: int = 32,
    head: int = 1280,
    widths: tuple[int, ...] = (35, 50, 75, 100),
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> MBConv:
    """Slimmable MobileNetV2: one network that runs at four widths.

    Yu et al., Slimmable Neural Networks, ICLR 2019. Finer ``widths``, as 35, 40, … 100, are the
    universally slimmable network's (Yu & Huang, ICCV 2019). As in the latter, widths share the
    scales of batch norms and their statistics are measured anew for a width that is taken out; the
    former keeps scales and statistics of its own for every width.

    Args:
        channels: of the seven stages.
        stem: channels of the first convolution.
        head: channels of the last convolution, which is never narrowed.
        widths: options of the width multiplier, in per cent.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """
    return MBConv(
        layout=slimmable_layout(channels),
        stem=stem,
        head=head,
        widths=widths,
        dropout=0.0,
        classes=classes,
        input=input,
        paper="Yu et al., Slimmable Neural Networks, ICLR 2019",
    )

"""Every kind of operation: its parameters, what makes its module, and the paper.

A kind is added by an entry of ``OPERATIONS`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nas.layers.cells import AsymmetricConv, DilConv, SepConv
from nas.layers.convolutions import ConvNormAct, DepthwiseSeparable, GroupedShuffle
from nas.layers.lightweight import (
    GhostBottleneck,
    GhostModule,
    MixBlock,
    OctaveConv,
    PartialConvBlock,
    ShiftBlock,
    StarBlock,
)
from nas.layers.reparam import RepGhostBottleneck, RepVGGBlock
from nas.layers.shuffle import (
    ShuffleBlock,
    ShuffleReduction,
    ShuffleXception,
    ShuffleXceptionReduction,
)
from nas.operations.makers import (
    Make,
    attend,
    fused,
    inverted,
    keeping,
    of_class,
    pool,
    shuffle,
    skip,
    squeeze,
    universal,
)
from nas.operations.parameters import (
    ACTIVATION,
    CHANNELS,
    DILATION,
    EXPANSION,
    GATE,
    GATED_ACTIVATION,
    GROUPS,
    HALVING_STRIDE,
    KERNEL,
    KERNEL_PAIR,
    KERNELS,
    NORM,
    PART,
    SQUEEZE,
    STRIDE,
    WINDOW,
    Parameter,
)
from nas.operations.values import FRACTION, WHOLE


@dataclass(frozen=True)
class Kind:
    """A kind of operation.

    Attributes:
        name: what its text begins with.
        summary: what it is, in a few words.
        paper: where it comes from; empty for what everybody has.
        parameters: its arguments, in the order of the text.
        make: the factory of its module, from the channels that come in and all arguments.
    """

    name: str
    summary: str
    paper: str
    parameters: tuple[Parameter, ...]
    make: Make


# ------------------------------------------------------------------------------- the table

_SEPARABLE = "Chollet, Xception, CVPR 2017; Liu et al., DARTS, ICLR 2019"
_KSO = (KERNEL, STRIDE, CHANNELS)

_KINDS = (
    Kind("none", "no connection", "", (), lambda c_in, given: None),
    Kind("skip", "the input; halved, a factorised reduction", "", (HALVING_STRIDE, CHANNELS), skip),
    Kind("max", "max pool", "", (WINDOW, STRIDE), pool(nn.MaxPool2d)),
    Kind(
        "avg",
        "average pool, without the padding",
        "",
        (WINDOW, STRIDE),
        pool(nn.AvgPool2d, count_include_pad=False),
    ),
    Kind(
        "conv",
        "convolution, norm, activation",
        "",
        (*_KSO, DILATION, GROUPS, NORM, ACTIVATION),
        of_class(ConvNormAct),
    ),
    Kind(
        "asym",
        "ReLU, 1×k and k×1 convolution, norm",
        "Szegedy et al., Rethinking Inception, CVPR 2016; Zoph et al., NASNet, CVPR 2018",
        _KSO,
        of_class(AsymmetricConv),
    ),
    Kind("sep", "ReLU, depthwise, pointwise, norm; twice", _SEPARABLE, _KSO, of_class(SepConv)),
    Kind(
        "dil",
        "ReLU, dilated depthwise, pointwise, norm",
        "Yu & Koltun, ICLR 2016; Liu et al., DARTS, ICLR 2019",
        (*_KSO, DILATION.by(2)),
        of_class(DilConv),
    ),
    Kind(
        "ds",
        "depthwise and pointwise convolution, each with norm and activation",
        "Howard et al., MobileNets, 2017",
        (*_KSO, ACTIVATION),
        of_class(DepthwiseSeparable),
    ),
    Kind(
        "gshuffle",
        "grouped pointwise, shuffle, depthwise, grouped pointwise",
        "Zhang et al., ShuffleNet, CVPR 2018",
        (KERNEL.by(3), HALVING_STRIDE, CHANNELS, GROUPS.by(3)),
        of_class(GroupedShuffle),
    ),
    Kind(
        "shuffle",
        "channel split, and a branch of pointwise, depthwise, pointwise",
        "Ma et al., ShuffleNet V2, ECCV 2018",
        (KERNEL, HALVING_STRIDE, EXPANSION.by(1.0), CHANNELS),
        shuffle(ShuffleBlock, ShuffleReduction),
    ),
    Kind(
        "xception",
        "channel split, and a branch of three separable convolutions",
        "Guo et al., Single Path One-Shot, ECCV 2020",
        (HALVING_STRIDE, EXPANSION.by(1.0), CHANNELS),
        shuffle(ShuffleXception, ShuffleXceptionReduction),
    ),
    Kind(
        "ir",
        "inverted residual (MBConv); the squeeze is of the input's channels",
        "Sandler et al., MobileNetV2, CVPR 2018; Tan et al., MnasNet, CVPR 2019",
        (KERNEL, STRIDE, EXPANSION, CHANNELS, GROUPS, SQUEEZE, GATED_ACTIVATION, GATE),
        inverted,
    ),
    Kind(
        "er",
        "fused inverted residual (Fused-MBConv)",
        "Gupta & Akin, EfficientNet-EdgeTPU, 2020",
        (KERNEL, STRIDE, EXPANSION, CHANNELS, ACTIVATION),
        fused,
    ),
    Kind(
        "uib",
        "universal inverted bottleneck",
        "Qin et al., MobileNetV4, ECCV 2024",
        (KERNEL_PAIR, STRIDE, EXPANSION, CHANNELS, ACTIVATION),
        universal,
    ),
    Kind(
        "ghostmod",
        "Ghost module",
        "Han et al., GhostNet, CVPR 2020",
        (KERNEL.by(1), STRIDE, CHANNELS, ACTIVATION),
        of_class(GhostModule),
    ),
    Kind(
        "ghost",
        "Ghost bottleneck; the squeeze is of the hidden channels",
        "Han et al., GhostNet, CVPR 2020",
        (KERNEL.by(3), STRIDE, EXPANSION.by(2.0), CHANNELS, SQUEEZE),
        of_class(GhostBottleneck),
    ),
    Kind(
        "mix",
        "inverted residual with depthwise kernels of several sizes",
        "Tan & Le, MixConv, BMVC 2019",
        (KERNELS, STRIDE, EXPANSION.by(6.0), CHANNELS, SQUEEZE, ACTIVATION),
        of_class(MixBlock),
    ),
    Kind(
        "oct",
        "octave convolution, norm, activation",
        "Chen et al., Drop an Octave, ICCV 2019",
        (
            KERNEL.by(3),
            STRIDE,
            CHANNELS,
            Parameter("a", "alpha", FRACTION, 0.25),
            ACTIVATION,
        ),
        of_class(OctaveConv),
    ),
    Kind(
        "shift",
        "pointwise, shift, pointwise, residual",
        "Wu et al., Shift, CVPR 2018",
        (KERNEL.by(3), STRIDE, EXPANSION.by(1.0), CHANNELS),
        of_class(ShiftBlock),
    ),
    Kind(
        "pconv",
        "partial convolution and two pointwise, residual",
        "Chen et al., FasterNet, CVPR 2023",
        (KERNEL.by(3), PART, EXPANSION.by(2.0), ACTIVATION),
        keeping(PartialConvBlock),
    ),
    Kind(
        "star",
        "two pointwise convolutions multiplied, residual",
        "Ma et al., Rewrite the Stars, CVPR 2024",
        (KERNEL.by(7), EXPANSION.by(4.0), ACTIVATION.by("relu6")),
        keeping(StarBlock),
    ),
    Kind(
        "repvgg",
        "3×3, 1×1 and identity branches, merged at export",
        "Ding et al., RepVGG, CVPR 2021",
        (STRIDE, CHANNELS, GROUPS, ACTIVATION),
        of_class(RepVGGBlock),
    ),
    Kind(
        "repghost",
        "Ghost bottleneck with sums in place of concatenations, merged at export",
        "Chen et al., RepGhost, 2022",
        (KERNEL.by(3), STRIDE, EXPANSION.by(1.5), CHANNELS, SQUEEZE),
        of_class(RepGhostBottleneck),
    ),
    Kind(
        "se",
        "squeeze-and-excitation",
        "Hu, Shen & Sun, CVPR 2018",
        (SQUEEZE.by(0.25), Parameter("d", "divisor", WHOLE, 1), GATE),
        squeeze,
    ),
    Kind(
        "eca",
        "efficient channel attention",
        "Wang et al., ECA-Net, CVPR 2020",
        (KERNEL.by(0),),
        attend,
    ),
)

OPERATIONS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""Every kind by its name."""

"""The published networks of the MBConv family by name, each in a space that it is a point of.

MobileNetV2 and V3, MnasNet and EfficientNet come in widths, so ``width=100`` is their
architecture; the ProxylessNAS networks are points of their search space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.points import Point
from search_spaces.mbconv.layouts import (
    EFFICIENTNET_B0,
    MNASNET_B1,
    MOBILENET_V2,
    MOBILENET_V3_LARGE,
    MOBILENET_V3_SMALL,
    proxyless_layout,
)
from search_spaces.mbconv.operations import Squeeze

V2 = "Sandler et al., MobileNetV2, CVPR 2018"
V3 = "Howard et al., Searching for MobileNetV3, ICCV 2019"
PROXYLESS = "Cai, Zhu & Han, ProxylessNAS, ICLR 2019"

V3_SQUEEZE = Squeeze(of="hidden", divisor=8, gate="hsigmoid")
V3_ENDS: Mapping[str, Any] = {"stem": 16, "activation": "hswish", "squeeze": V3_SQUEEZE}


def _proxyless(channels: Sequence[int], *stages: str) -> Point:
    """A network by its channels from stem to head, and its blocks, ``53`` for kernel 5, ×3."""
    stem, *inner, head = channels
    picks = []
    for number, (row, size) in enumerate(zip(stages, (4, 4, 4, 4, 4, 1), strict=True), start=2):
        blocks = [f"ir_k{block[0]}_e{block[1]}" for block in row.split()]
        blocks += ["skip"] * (size - len(blocks))
        picks += [f"stage{number}/block{i}/op={op}" for i, op in enumerate(blocks, start=1)]
    return Point(
        " ".join(picks),
        PROXYLESS,
        {
            "layout": proxyless_layout(inner),
            "stem": stem,
            "head": head,
            "widths": (100,),
            "dropout": 0.0,
            "paper": PROXYLESS,
        },
    )


POINTS: Mapping[str, Point] = {
    "mobilenet_v2": Point("width=100", V2, {"layout": MOBILENET_V2}),
    "mobilenet_v2_1_4": Point("width=140", V2, {"layout": MOBILENET_V2}),
    "mobilenet_v3_large": Point(
        "width=100",
        V3,
        {"layout": MOBILENET_V3_LARGE, "head": 960, "dense": 1280, "widths": (75, 100), **V3_ENDS},
    ),
    "mobilenet_v3_small": Point(
        "width=100",
        V3,
        {"layout": MOBILENET_V3_SMALL, "head": 576, "dense": 1024, "widths": (75, 100), **V3_ENDS},
    ),
    "mnasnet_b1": Point(
        "width=100",
        "Tan et al., MnasNet, CVPR 2019",
        {"layout": MNASNET_B1, "activation": "relu"},
    ),
    "efficientnet_b0": Point(
        "width=100",
        "Tan & Le, EfficientNet, ICML 2019",
        {
            "layout": EFFICIENTNET_B0,
            "activation": "swish",
            "squeeze": Squeeze(activation="swish"),
            "widths": (100, 110, 120, 140, 160, 180, 200),
        },
    ),
    "proxyless_mobile": _proxyless(
        (32, 16, 32, 40, 80, 96, 192, 320, 1280),
        "53 33",
        "73 33 53 53",
        "76 53 53 53",
        "56 53 53 53",
        "76 76 73 73",
        "76",
    ),
    "proxyless_cpu": _proxyless(
        (40, 24, 32, 48, 88, 104, 216, 360, 1432),
        "36 33 33 33",
        "36 33 33 53",
        "36 33",
        "56 33 33 33",
        "56 53 53 33",
        "56",
    ),
    "proxyless_gpu": _proxyless(
        (40, 24, 32, 56, 112, 128, 256, 432, 1728),
        "53",
        "73 33",
        "76 53",
        "56 33 53",
        "76 76 76 56",
        "76",
    ),
}

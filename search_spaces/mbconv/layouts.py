"""The stages of the published networks and spaces, as the papers' tables list them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from nas.errors import ConfigError
from search_spaces.mbconv.stage import Stage

MOBILENET_V2 = (
    Stage(("ds_k3",), (16,)),
    Stage(("ir_k3_e6",), (24,), (2,), stride=2),
    Stage(("ir_k3_e6",), (32,), (3,), stride=2),
    Stage(("ir_k3_e6",), (64,), (4,), stride=2),
    Stage(("ir_k3_e6",), (96,), (3,)),
    Stage(("ir_k3_e6",), (160,), (3,), stride=2),
    Stage(("ir_k3_e6",), (320,)),
)
"""Sandler et al., 2018, table 2."""

SEARCHED = (
    Stage(("ds_k3",), (16,)),
    *(
        Stage(("ir",), (c,), depths, stride, kernels=(3, 5, 7), expansions=(3, 6))
        for c, depths, stride in (
            (24, (1, 2, 3), 2),
            (32, (2, 3, 4), 2),
            (64, (2, 3, 4), 2),
            (96, (2, 3, 4), 1),
            (160, (2, 3, 4), 2),
            (320, (1,), 1),
        )
    ),
)
"""MobileNetV2's with open kernels, expansions and depths."""


def _v3(text: str, channels: int, stride: int, activation: str, squeezed: bool) -> Stage:
    squeezes = (25,) if squeezed else (0,)
    return Stage((text,), (channels,), (1,), stride, squeezes=squeezes, activation=activation)


MOBILENET_V3_LARGE = (
    _v3("ds_k3", 16, 1, "relu", False),
    _v3("ir_k3_e4", 24, 2, "relu", False),
    _v3("ir_k3_e3", 24, 1, "relu", False),
    _v3("ir_k5_e3", 40, 2, "relu", True),
    _v3("ir_k5_e3", 40, 1, "relu", True),
    _v3("ir_k5_e3", 40, 1, "relu", True),
    _v3("ir_k3_e6", 80, 2, "hswish", False),
    _v3("ir_k3_e2.5", 80, 1, "hswish", False),
    _v3("ir_k3_e2.3", 80, 1, "hswish", False),
    _v3("ir_k3_e2.3", 80, 1, "hswish", False),
    _v3("ir_k3_e6", 112, 1, "hswish", True),
    _v3("ir_k3_e6", 112, 1, "hswish", True),
    _v3("ir_k5_e6", 160, 2, "hswish", True),
    _v3("ir_k5_e6", 160, 1, "hswish", True),
    _v3("ir_k5_e6", 160, 1, "hswish", True),
)
"""Howard et al., 2019, table 1: a stage a row, since the rows differ."""

MOBILENET_V3_SMALL = (
    _v3("ds_k3", 16, 2, "relu", True),
    _v3("ir_k3_e4.5", 24, 2, "relu", False),
    _v3("ir_k3_e3.67", 24, 1, "relu", False),
    _v3("ir_k5_e4", 40, 2, "hswish", True),
    _v3("ir_k5_e6", 40, 1, "hswish", True),
    _v3("ir_k5_e6", 40, 1, "hswish", True),
    _v3("ir_k5_e3", 48, 1, "hswish", True),
    _v3("ir_k5_e3", 48, 1, "hswish", True),
    _v3("ir_k5_e6", 96, 2, "hswish", True),
    _v3("ir_k5_e6", 96, 1, "hswish", True),
    _v3("ir_k5_e6", 96, 1, "hswish", True),
)
"""Howard et al., 2019, table 2."""

MNASNET_B1 = (
    Stage(("ds_k3",), (16,), activation="relu"),
    Stage(("ir_k3_e3",), (24,), (3,), stride=2, activation="relu"),
    Stage(("ir_k5_e3",), (40,), (3,), stride=2, activation="relu"),
    Stage(("ir_k5_e6",), (80,), (3,), stride=2, activation="relu"),
    Stage(("ir_k3_e6",), (96,), (2,), activation="relu"),
    Stage(("ir_k5_e6",), (192,), (4,), stride=2, activation="relu"),
    Stage(("ir_k3_e6",), (320,), activation="relu"),
)
"""Tan et al., 2019: the network without squeeze-and-excitation."""

EFFICIENTNET_B0 = tuple(
    Stage((text,), (c,), (depth,), stride, squeezes=(25,), activation="swish")
    for text, c, depth, stride in (
        ("ds_k3", 16, 1, 1),
        ("ir_k3_e6", 24, 2, 2),
        ("ir_k5_e6", 40, 2, 2),
        ("ir_k3_e6", 80, 3, 2),
        ("ir_k5_e6", 112, 3, 1),
        ("ir_k5_e6", 192, 4, 2),
        ("ir_k3_e6", 320, 1, 1),
    )
)
"""Tan & Le, 2019, table 1."""


def _check(channels: Sequence[int], stages: int) -> None:
    if len(channels) != stages:
        raise ConfigError(f"channels must be {stages} numbers, one a stage; got {channels!r}")


def slimmable_layout(
    channels: Sequence[int] = (16, 24, 32, 64, 96, 160, 320),
) -> tuple[Stage, ...]:
    """Yu et al., 2019: MobileNetV2's, in which nothing but the width is open."""
    _check(channels, 7)
    pairs = zip(MOBILENET_V2, channels, strict=True)
    return tuple(dataclasses.replace(stage, channels=(c,)) for stage, c in pairs)


def proxyless_layout(channels: Sequence[int] = (16, 24, 40, 80, 96, 192, 320)) -> tuple[Stage, ...]:
    """Cai et al., 2019: a fixed first block, then 21 that choose among six, or are skipped."""
    operations = tuple(f"ir_k{k}_e{e}" for e, k in itertools.product((3, 6), (3, 5, 7)))
    _check(channels, 7)
    rows = zip(channels[1:], (4, 4, 4, 4, 4, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return (
        Stage(("ds_k3",), (channels[0],)),
        *(Stage((*operations, "skip"), (c,), (depth,), stride) for c, depth, stride in rows),
    )


def fbnet_layout(channels: Sequence[int] = (16, 24, 32, 64, 112, 184, 352)) -> tuple[Stage, ...]:
    """Wu et al., 2019, tables 1 and 2: 22 layers of nine blocks; a skip may reduce the shape."""
    operations = tuple(
        f"ir_k{k}_{rest}" for k, rest in itertools.product((3, 5), ("e1", "e1_g2", "e3", "e6"))
    )
    _check(channels, 7)
    rows = zip(channels, (1, 4, 4, 4, 4, 4, 1), (1, 2, 2, 2, 1, 2, 1), strict=True)
    return tuple(
        Stage((*operations, "skip1x1"), (c,), (depth,), stride, activation="relu")
        for c, depth, stride in rows
    )


def mnasnet_layout(
    channels: Sequence[int] = (16, 24, 32, 64, 96, 160, 320),
) -> tuple[Stage, ...]:
    """Tan et al., 2019, section 4.1: MobileNetV2's stages, each of 432 kinds (the single-block
    ones of 288: they cannot lose their block).
    """
    _check(channels, 7)
    rows = zip(channels, (1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1), strict=True)
    return tuple(
        Stage(
            ("conv", "ds", "ir_e3", "ir_e6"),
            (3 * c // 4, c, 5 * c // 4),
            tuple(depth + more for more in (-1, 0, 1) if depth + more),
            stride,
            kernels=(3, 5),
            squeezes=(0, 25),
            skips=("pool", "identity", "none"),
            activation="relu",
            shared=True,
        )
        for c, depth, stride in rows
    )


def ofa_layout(channels: Sequence[int] = (16, 24, 40, 80, 112, 160)) -> tuple[Stage, ...]:
    """Cai et al., 2020: MobileNetV3-Large's with elastic kernel, expansion and depth."""
    _check(channels, 6)
    rows = zip(
        channels[1:],
        (2, 2, 2, 1, 2),
        ("relu", "relu", "hswish", "hswish", "hswish"),
        (0, 25, 0, 25, 25),
        strict=True,
    )
    return (
        Stage(("ds_k3",), (channels[0],), activation="relu"),
        *(
            Stage(
                ("ir",),
                (c,),
                (2, 3, 4),
                stride,
                kernels=(3, 5, 7),
                expansions=(3, 4, 6),
                squeezes=(squeezed,),
                activation=activation,
            )
            for c, stride, activation, squeezed in rows
        ),
    )


def ofa_proxyless_layout(
    channels: Sequence[int] = (16, 24, 40, 80, 96, 192, 320),
) -> tuple[Stage, ...]:
    """Cai et al., 2020: ProxylessNAS's with elastic kernel, expansion and depth."""
    _check(channels, 7)
    rows = zip(channels[1:], (2, 2, 2, 1, 2, 1), strict=True)
    return (
        Stage(("ds_k3",), (channels[0],)),
        *(
            Stage(
                ("ir",),
                (c,),
                (1,) if number == 6 else (2, 3, 4),
                stride,
                kernels=(3, 5, 7),
                expansions=(3, 4, 6),
            )
            for number, (c, stride) in enumerate(rows, start=1)
        ),
    )

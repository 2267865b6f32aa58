"""The MBConv spaces hold the space contract."""

from __future__ import annotations

import pytest
from small_spaces import SMALL

from nas.testing import SpaceContract
from search_spaces.mbconv import MBConv, Squeeze, Stage


def tiny(*layout: Stage, **arguments) -> MBConv:
    given = {"stem": 4, "head": 8, "widths": (100,), "classes": 3, "input": (3, 9, 10)} | arguments
    return MBConv(layout, **given)


class TestMBConv(SpaceContract):
    def space(self):
        return SMALL["mbconv"]()

    def small(self):
        ir = {"kernels": (3, 5), "expansions": (1, 2)}
        return tiny(Stage(("ir",), (4, 6), (1, 2), **ir), resolutions=(8, 9), dense=4)


class TestMnasNet(SpaceContract):
    def space(self):
        return SMALL["mnasnet"]()

    def small(self):
        return tiny(
            Stage(
                ("conv", "ds", "ir_e3"),
                (4, 6),
                (1, 2, 3),
                kernels=(3, 5),
                squeezes=(0, 25),
                skips=("pool", "identity", "none"),
                shared=True,
            )
        )


@pytest.mark.slow
class TestProxylessNas(SpaceContract):
    def space(self):
        return SMALL["proxylessnas"]()

    def small(self):
        return tiny(Stage(("ir_k3_e2", "ir_k5_e2", "skip"), (6,), (4,), 2))


@pytest.mark.slow
class TestFBNet(SpaceContract):
    def space(self):
        return SMALL["fbnet"]()

    def small(self):
        return tiny(Stage(("ir_k3_e1", "ir_k3_e1_g2", "skip1x1"), (4,), (3,), 2))


class TestOnceForAll(SpaceContract):
    def space(self):
        return SMALL["ofa_mobilenet_v3"]()

    def small(self):
        return tiny(
            Stage(("ir",), (4,), (1, 3), kernels=(3, 5), expansions=(2,), squeezes=(50,)),
            widths=(100, 150),
            squeeze=Squeeze("hidden", 2, "swish", "hsigmoid"),
        )

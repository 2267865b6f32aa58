"""Every search space of the project, small enough for its networks to run in a moment."""

from __future__ import annotations

from collections.abc import Callable

from nas.space import SearchSpace


def _chain() -> SearchSpace:
    from search_spaces.chain import Chain

    return Chain(input=(3, 16, 16), widths=(4, 6), depths=(1, 2, 3))


def _grown_chain() -> SearchSpace:
    from search_spaces.grown_chain import GrownChain

    return GrownChain(layers=5, kernels=(1, 3), widths=(4, 6, 8), input=(3, 11, 11))


def _hierarchical() -> SearchSpace:
    from search_spaces.hierarchical import Hierarchical

    return Hierarchical(channels=3, motifs=3, motif_nodes=3, nodes=4, input=(3, 8, 8))


def _nasbench101() -> SearchSpace:
    from search_spaces.nasbench101 import NasBench101

    return NasBench101(channels=6, stacks=2, cells=1, classes=4, input=(3, 8, 8))


def _nasbench201() -> SearchSpace:
    from search_spaces.nasbench201 import NasBench201

    return NasBench201(channels=3, cells=1, input=(3, 8, 8))


def _enas_macro() -> SearchSpace:
    from search_spaces.enas_macro import EnasMacro

    return EnasMacro(layers=5, channels=4, growth=2, input=(3, 9, 9))


def _metaqnn() -> SearchSpace:
    from search_spaces.metaqnn import MetaQnn

    return MetaQnn(layers=6, widths=(3, 5), dense=(6, 4), input=(3, 11, 11))


def _nas_rl() -> SearchSpace:
    from search_spaces.nas_rl import NasRl

    return NasRl(layers=4, filters=(2, 3), strides=(1, 2), input=(3, 9, 9))


def _darts() -> SearchSpace:
    from search_spaces.darts import Darts

    return Darts(channels=4, cells=3, input=(3, 8, 8))


def _nasnet() -> SearchSpace:
    from search_spaces.nasnet import NasNet

    return NasNet(channels=4, cells=3, input=(3, 8, 8), blocks=3, projected=True)


def _pnas() -> SearchSpace:
    from search_spaces.pnas import Pnas

    return Pnas(channels=4, cells=3, input=(3, 8, 8), blocks=3, projected=True)


def _enas_micro() -> SearchSpace:
    from search_spaces.enas_micro import EnasMicro

    return EnasMicro(channels=4, cells=3, input=(3, 8, 8), blocks=3, projected=True)


def _mbconv() -> SearchSpace:
    from search_spaces.mbconv import MBConv, Stage

    ir = {"kernels": (3, 5), "expansions": (2, 3)}
    layout = (
        Stage(("ds_k3",), (4,)),
        Stage(("ir", "er"), (8, 16), (1, 2), 2, squeezes=(0,), **ir),
        Stage(("ir",), (16,), (1, 2, 3), 2, squeezes=(0, 25), **ir),
    )
    return MBConv(layout, stem=8, head=16, widths=(50, 100), input=(3, 20, 20), classes=10)


def _mnasnet() -> SearchSpace:
    from search_spaces.mbconv import mnasnet

    channels = (4, 4, 4, 8, 8, 8, 8)
    return mnasnet(channels, stem=4, head=16, classes=10, input=(3, 24, 24))


def _proxylessnas() -> SearchSpace:
    from search_spaces.mbconv import proxylessnas

    channels = (4, 4, 6, 6, 8, 8, 8)
    return proxylessnas(channels, stem=4, head=16, classes=10, input=(3, 24, 24))


def _fbnet() -> SearchSpace:
    from search_spaces.mbconv import fbnet

    channels = (4, 4, 6, 6, 8, 8, 8)
    return fbnet(channels, stem=4, head=16, classes=10, input=(3, 24, 24))


def _ofa_mobilenet_v3() -> SearchSpace:
    from search_spaces.mbconv import ofa_mobilenet_v3

    return ofa_mobilenet_v3(
        channels=(4, 8, 8, 8, 8, 8),
        stem=8,
        head=16,
        dense=16,
        resolutions=(20, 24, 28),
        classes=10,
        input=(3, 24, 24),
    )


def _ofa_proxylessnas() -> SearchSpace:
    from search_spaces.mbconv import ofa_proxylessnas

    return ofa_proxylessnas(
        channels=(4, 8, 8, 8, 8, 8, 8),
        stem=8,
        head=16,
        widths=(100, 150),
        resolutions=(20, 24),
        classes=10,
        input=(3, 24, 24),
    )


def _slimmable_mobilenet_v2() -> SearchSpace:
    from search_spaces.mbconv import slimmable_mobilenet_v2

    channels, widths = (8, 12, 16, 16, 24, 24, 32), tuple(range(30, 101, 2))
    return slimmable_mobilenet_v2(channels, 16, 16, widths, classes=10, input=(3, 24, 24))


def _resnet() -> SearchSpace:
    from search_spaces.resnet import ResNet

    return ResNet(
        channels=(8, 12, 16),
        depths=((1, 2), (1, 2, 3), (2,)),
        expansions=(25, 50),
        widths=(50, 75, 100),
        divisor=2,
        stem="cifar",
        stem_channels=4,
        classes=10,
        input=(3, 12, 12),
    )


def _spos() -> SearchSpace:
    from search_spaces.spos import Spos

    return Spos(4, (8, 12, 16, 20), (1, 2, 2, 1), 16, (0.5, 1.0, 1.5), 0.1, 10, (3, 24, 24))


def _autoformer() -> SearchSpace:
    from search_spaces.autoformer import AutoFormer

    return AutoFormer((8, 12, 16), (1, 2, 3), (1, 2), (150, 200), 4, 4, 2, 10, (3, 8, 12))


SMALL: dict[str, Callable[[], SearchSpace]] = {
    "autoformer": _autoformer,
    "chain": _chain,
    "darts": _darts,
    "enas_macro": _enas_macro,
    "enas_micro": _enas_micro,
    "fbnet": _fbnet,
    "grown_chain": _grown_chain,
    "hierarchical": _hierarchical,
    "mbconv": _mbconv,
    "metaqnn": _metaqnn,
    "mnasnet": _mnasnet,
    "nas_rl": _nas_rl,
    "nasbench101": _nasbench101,
    "nasbench201": _nasbench201,
    "nasnet": _nasnet,
    "ofa_mobilenet_v3": _ofa_mobilenet_v3,
    "ofa_proxylessnas": _ofa_proxylessnas,
    "pnas": _pnas,
    "proxylessnas": _proxylessnas,
    "resnet": _resnet,
    "slimmable_mobilenet_v2": _slimmable_mobilenet_v2,
    "spos": _spos,
}

"""What the papers say of the MBConv spaces: sizes, exact costs; and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from nas.components import create, describe
from nas.cost import architecture_cost
from nas.cost import count as cost_of
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import count, format_architecture, from_picks, network, parse, sample, validate
from search_spaces.mbconv import (
    MBConv,
    Squeeze,
    Stage,
    fbnet,
    mnasnet,
    ofa_mobilenet_v3,
    ofa_proxylessnas,
    proxylessnas,
    slimmable_mobilenet_v2,
)

PUBLISHED = {
    "mnasnet_b1": (4_383_312, 314_415_872),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v2_1_4": (6_108_776, 582_195_824),
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "efficientnet_b0": (5_288_548, 385_814_752),
    "proxyless_mobile": (4_080_512, 320_427_584),
    "proxyless_cpu": (4_361_648, 439_243_864),
    "proxyless_gpu": (7_119_848, 465_260_160),
}


def on_meta(space, arch):
    with torch.device("meta"):
        return network(space, arch)


def test_all_points_have_published_numbers():
    assert set(MBConv.points) == set(PUBLISHED)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_networks_cost_what_is_published(name):
    space, arch = published(f"mbconv:{name}")
    counted = cost_of(on_meta(space, arch), space.input)
    assert (counted.parameters, counted.macs) == PUBLISHED[name]
    analytic = architecture_cost(space, arch)
    assert (analytic.parameters, analytic.macs) == PUBLISHED[name]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_networks_take_settings(name):
    space, arch = published(f"mbconv:{name}", {"classes": 10, "input": "3x32x32"})
    assert space.input == (3, 32, 32)
    large, _ = published(f"mbconv:{name}")
    classifier = on_meta(large, arch).layers["classifier"].in_features
    counted = cost_of(on_meta(space, arch), space.input)
    assert counted.parameters == PUBLISHED[name][0] - 990 * (classifier + 1)


@pytest.mark.parametrize("name", ["proxyless_mobile", "proxyless_cpu", "proxyless_gpu"])
def test_proxyless_networks_lie_in_the_proxylessnas_space(name):
    space, arch = published(f"mbconv:{name}")
    channels = tuple(stage.channels[0] for stage in space.layout)
    searched = proxylessnas(channels, stem=space.stem, head=space.head)
    validate(searched, arch)
    assert searched == space


def test_widths_of_mobilenet_v3_are_timms():
    # timm's tf_mobilenetv3_large_075 has 3.99 M parameters, tf_mobilenetv3_small_075 2.04 M.
    for name, millions in (("large", 3.99), ("small", 2.04)):
        space, _ = published(f"mbconv:mobilenet_v3_{name}")
        narrow = architecture_cost(space, parse(space, "width=75"))
        assert round(narrow.parameters / 1e6, 2) == millions


# ------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("space", "size"),
    [
        # 432 kinds of a stage (4 operations, 2 kernels, 2 ratios, 3 skips, 3 filters, 3 lengths).
        (mnasnet(), 432**5 * 288**2),
        (proxylessnas(), 6**6 * 7**15),
        (fbnet(), 9**22),
        # About 2·10^19 for one width and resolution.
        (ofa_mobilenet_v3(), (9**2 + 9**3 + 9**4) ** 5 * 2 * 25),
        (ofa_proxylessnas(), (9**2 + 9**3 + 9**4) ** 5 * 9 * 2 * 25),
        (slimmable_mobilenet_v2(), 4),
    ],
    ids=["mnasnet", "proxylessnas", "fbnet", "ofa", "ofa_proxylessnas", "slimmable"],
)
def test_sizes_are_the_papers(space, size):
    assert count(space) == size


def test_fbnet_choices_are_the_tables_columns(benchmark_data):
    with np.load(benchmark_data("fbnet_latency.npz")) as table:
        shapes = {key: table[key].shape for key in table.files}
        rows = next(table[key] for key in table.files if table[key].shape[1:] == (22,))
    assert rows.min() == 0, shapes
    assert rows.max() == 8, shapes
    assert [len(choice.options) for choice in fbnet().choices] == [9] * 22


# --------------------------------------------------------------- costs, derived independently


def conv(c_in, c_out, kernel, size, groups=1):
    """Parameters with the norm's, and multiply-accumulates."""
    weights = c_in // groups * c_out * kernel**2
    return np.array([weights + 2 * c_out, weights * size**2])


def nearest_8(value):
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def ofa_cost(picks, classes=1000):
    """Once-for-all's network from the paper's table, without any of the space's code."""
    size, width = -(-picks["resolution"] // 2), picks["width"] / 100
    stem, first, head, dense = (nearest_8(c * width) for c in (16, 16, 960, 1280))
    total = conv(3, stem, 3, size) + conv(stem, stem, 3, size, stem) + conv(stem, first, 1, size)
    c_in = first
    for stage, (c, stride, squeezed) in enumerate(
        [(24, 2, 0), (40, 2, 1), (80, 2, 0), (112, 1, 1), (160, 2, 1)], start=2
    ):
        c = nearest_8(c * width)
        for block in range(1, picks[f"stage{stage}/depth"] + 1):
            hidden = c_in * picks[f"stage{stage}/block{block}/expansion"]
            kernel = picks[f"stage{stage}/block{block}/kernel"]
            total += conv(c_in, hidden, 1, size)
            size = -(-size // stride) if block == 1 else size
            total += conv(hidden, hidden, kernel, size, hidden) + conv(hidden, c, 1, size)
            if squeezed:
                inside = nearest_8(hidden / 4)
                total += [2 * hidden * inside + hidden + inside, 2 * hidden * inside]
            c_in = c
    total += conv(c_in, head, 1, size)
    total += [head * dense + dense + dense * classes + classes, head * dense + dense * classes]
    return tuple(total.tolist())


def test_once_for_all_costs_what_the_paper_describes():
    space = ofa_mobilenet_v3()
    rng = np.random.default_rng(0)
    extremes = []
    for pick in (min, max):
        made = {}
        while (step := space.legal(made)) is not None:
            made[step[0].label] = pick(step[1])
        extremes.append(from_picks(space, made))
    costs = []
    for arch in [*extremes, *(sample(space, rng) for _ in range(10))]:
        counted = cost_of(on_meta(space, arch), space.input)
        costs.append((counted.parameters, counted.macs))
        assert costs[-1] == ofa_cost(arch.as_dict())
        analytic = architecture_cost(space, arch)
        assert (analytic.parameters, analytic.macs) == costs[-1]
    assert costs[0] == min(costs)
    assert costs[1] == max(costs)


@pytest.mark.parametrize("make", [MBConv, mnasnet, proxylessnas, fbnet])
def test_costs_are_those_of_the_built_network(make):
    space = make()
    rng = np.random.default_rng(1)
    for _ in range(4):
        arch = sample(space, rng)
        assert architecture_cost(space, arch) == cost_of(on_meta(space, arch), space.input)


# ------------------------------------------------------------------------- what the parts mean


def test_a_resolution_scales_the_image_first():
    space = MBConv(
        (Stage(("ds_k3",), (8,)),),
        stem=8,
        head=8,
        widths=(100,),
        resolutions=(8, 12),
        input=(3, 12, 12),
        classes=2,
    )
    one, other = (network(space, parse(space, f"resolution={size}")) for size in (8, 12))
    other.load_state_dict(one.state_dict())
    assert set(one.layers) - set(other.layers) == {"resize"}
    x = torch.randn(2, 3, 12, 12)
    small = nn.functional.interpolate(x, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(one.eval()(x), other.eval()(small))


def test_what_is_skipped_is_not_in_the_network():
    space, arch = published("mbconv:proxyless_gpu")
    names = [name.split("_")[0] for name in on_meta(space, arch).layers if "block" in name]
    assert [names.count(f"stage{number}") for number in range(1, 8)] == [1, 1, 2, 2, 3, 4, 1]


def test_description_of_a_network_is_plain(tmp_path):
    space, arch = published("mbconv:mobilenet_v3_small")
    file = tmp_path / "space.json"
    file.write_text(json.dumps(describe(space)))
    again = create("spaces", json.loads(file.read_text()), "space")
    assert again == space
    assert again.choices == space.choices
    assert json.loads(file.read_text())["name"] == "mbconv"
    assert parse(again, format_architecture(space, arch)) == arch


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"operations": ("mb_k3",)}, "no block 'mb'"),
        ({"operations": ("ir_k4_e3",)}, "k4 in 'ir_k4_e3': expected an odd"),
        ({"operations": ("ir_k3_q3",)}, "'q3' in 'ir_k3_q3': expected kNUMBER, eNUMBER, gNUMBER"),
        ({"operations": ("ir_k0_e3",)}, "k0"),
        ({"operations": ("ir_k3_e0",)}, "e0"),
        ({"operations": ("ir_k3",)}, "expansion must be given once"),
        ({"operations": ("ir_e3",)}, "kernel must be given once"),
        ({"kernels": (3,)}, "kernel must be given once"),
        ({"expansions": (3,)}, "expansion must be given once"),
        ({"operations": ("ds_k3",), "expansions": (3, 6)}, "'ds_k3' has no expansion"),
        ({"operations": ("ir_k3",), "expansions": (2.5, 3)}, "whole numbers"),
        ({"operations": ("ir_k3",), "expansions": (-1,)}, "positive"),
        ({"operations": ("ir_e3",), "kernels": (2,)}, "kernels must be odd"),
        ({"operations": "ir_k3_e3"}, "tuple of options"),
        ({"operations": ("skip",)}, "only skips"),
        ({"operations": ("er_k3_e3",), "squeezes": (25,)}, "cannot be squeezed"),
        ({"operations": ("ir_k3_e3_g2",), "squeezes": (25,)}, "cannot be squeezed"),
        ({"operations": ("ir_k3_e3", "skip"), "depths": (1, 2)}, "depths cannot be open"),
        ({"operations": ("ir_k3_e3", "skip"), "skips": ("none",)}, "skips must be"),
        ({"operations": ("ir_k3_e3", "skip"), "shared": True}, "share their pick"),
        ({"channels": ()}, "at least one option"),
        ({"channels": (8, 8)}, "equal options"),
        ({"channels": (0,)}, "at least 1, got 0"),
        ({"channels": (2.5,)}, "whole numbers"),
        ({"depths": (0, 1)}, "depths"),
        ({"stride": 0}, "stride"),
        ({"skips": ("idenity",)}, "'identity'"),
        ({"activation": "relu7"}, "no activation 'relu7'"),
    ],
)
def test_stages_refuse(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Stage(**({"operations": ("ir_k3_e3",), "channels": (8,)} | arguments))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layout": ()}, "at least one stage"),
        ({"stem": 0}, "stem"),
        ({"dense": -1}, "dense"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "relu7"}, "no activation 'relu7'"),
        ({"widths": ()}, "widths"),
        ({"resolutions": (0, 4)}, "resolutions"),
        ({"input": (32, 32)}, "channels, height, width"),
        ({"input": (3, 0, 32)}, "positive"),
        ({"classes": 0}, "classes"),
    ],
)
def test_mbconv_refuses(arguments, says):
    with pytest.raises((ConfigError, InvalidArchitecture), match=says):
        MBConv(**arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"of": "outside"}, "no of 'outside'"),
        ({"gate": "relu"}, "gate"),
        ({"divisor": 0}, "divisor"),
    ],
)
def test_squeeze_refuses(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Squeeze(**arguments)


@pytest.mark.parametrize(
    "factory",
    [
        mnasnet,
        proxylessnas,
        fbnet,
        ofa_mobilenet_v3,
        ofa_proxylessnas,
        slimmable_mobilenet_v2,
    ],
)
def test_factories_refuse_other_numbers_of_stages(factory):
    with pytest.raises(ConfigError, match="one a stage"):
        factory(channels=(8, 8))


def test_unknown_fields_of_a_stage_are_errors():
    document = json.loads(json.dumps(describe(MBConv())))
    document["layout"][1]["kernel"] = [3]
    with pytest.raises(ConfigError, match=r"layout\[1\] has no 'kernel'.*'kernels'"):
        create("spaces", document, "space")


def test_stages_are_values():
    assert dataclasses.replace(Stage(("ds_k3",), (8,)), stride=2).stride == 2
    assert hash(MBConv()) == hash(MBConv())

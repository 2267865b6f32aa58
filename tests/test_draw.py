"""Pictures of architectures."""

from __future__ import annotations

import re

import numpy as np
import pytest
from small_spaces import SMALL

from nas.cost import architecture_breakdown
from nas.draw import channels_of, draw
from nas.encoding import HasGraphs
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import parse, sample
from search_spaces.autoformer import AutoFormer


def texts(picture: bytes) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.decode())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_space_can_be_drawn(name):
    space = SMALL[name]()
    arch = sample(space, np.random.default_rng(0))
    picture = draw(space, arch)
    assert picture.startswith(b"<?xml")
    assert texts(picture)
    assert draw(space, arch) == picture  # the same file, byte for byte


def test_a_cell_shows_what_takes_part_and_nothing_else():
    space = SMALL["nasbench201"]()
    arch = parse(space, "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|")
    assert isinstance(space, HasGraphs)
    # The two convolutions lead nowhere: the way to the output is the skip.
    assert sorted(texts(draw(space, arch))) == ["cell", "input", "output", "skip_connect"]


def test_both_inputs_and_every_edge_of_a_published_cell_are_drawn():
    space, arch = published("darts:DARTS_V2")
    shown = texts(draw(space, arch))
    assert shown.count("sep_conv_3x3") == 5
    assert shown.count("dil_conv_3x3") == 1
    assert shown.count("max_pool_3x3") == 5
    assert shown.count("second_input") == shown.count("input") == 2


def test_layers_are_drawn_in_order_with_their_shapes():
    space, arch = published("mbconv:mobilenet_v2")
    shown = texts(draw(space, arch))
    assert shown.index("32×112×112") < shown.index("24×56×56") < shown.index("320×7×7")
    assert "+ InvertedBottleneck" in shown
    assert shown.count("+ InvertedBottleneck") == 10


def test_layers_of_a_transformer_show_their_heads_and_are_as_high_as_tokens_are_wide():
    point = AutoFormer.points["AutoFormer_T"]
    space = AutoFormer(**point.arguments)
    arch = parse(space, point.architecture)
    shown = texts(draw(space, arch))
    assert (shown.count("heads 3"), shown.count("heads 4")) == (12, 1)
    assert (shown.count("hidden 576"), shown.count("hidden 768")) == (3, 4)
    assert shown.index("kernel (16, 16)") < shown.index("197×192")
    layers = architecture_breakdown(space, arch)
    assert {channels_of(row) for row in layers if row.path.endswith("norm")} == {192}


def test_other_formats_and_refusals():
    space = SMALL["chain"]()
    arch = sample(space, np.random.default_rng(1))
    assert draw(space, arch, "png").startswith(b"\x89PNG")
    assert draw(space, arch, "pdf").startswith(b"%PDF")
    with pytest.raises(ConfigError, match="'svg'"):
        draw(space, arch, "svgg")
    with pytest.raises(InvalidArchitecture):
        draw(SMALL["nasbench201"](), arch)

"""The sizes of the elastic spaces' networks, to the integer, against networks written out."""

from __future__ import annotations

import re
from pathlib import Path

import plain_networks as plain
import pytest
import torch
from torch import nn

from nas.cost import architecture_cost, count
from nas.points import published
from nas.space import from_picks, network, parse
from search_spaces.mbconv import ofa_mobilenet_v3, ofa_proxylessnas, slimmable_mobilenet_v2
from search_spaces.resnet import ResNet

DOCS = (Path(__file__).parents[1] / "docs" / "spaces.md").read_text()
SECTION = DOCS.split("## Largest and smallest sub-networks\n")[1].split("\n## ")[0]


def extreme(space, pick, **fixed):
    """The architecture of the largest or the smallest options, but for what is given."""
    picks = {}
    while (step := space.legal(picks)) is not None:
        choice, options = step
        picks[choice.label] = fixed.get(choice.label, pick(options))
    return from_picks(space, picks)


def plain_ofa(width, largest, dense_bias=True):
    """Once-for-all's MobileNetV3 by the paper's table: stages of channels, stride, squeeze."""
    k, e, d = (7, 6, 4) if largest else (3, 3, 2)
    stem, first, *stages, head, dense = (
        plain.rounded(c * width / 100) for c in (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    )
    rows = [
        (c, d, stride, k, e, squeezed)
        for c, stride, squeezed in zip(
            stages, (2, 2, 2, 1, 2), (False, True, False, True, True), strict=True
        )
    ]
    return plain.mobile(stem, first, rows, head, dense, dense_bias)


def plain_ofa_proxyless(width, largest):
    k, e, d = (7, 6, 4) if largest else (3, 3, 2)
    stem, first, *stages, head = (
        plain.rounded(c * width / 100) for c in (32, 16, 24, 40, 80, 96, 192, 320, 1280)
    )
    shapes = zip(stages, (d, d, d, d, d, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return plain.mobile(stem, first, [(c, n, s, k, e, False) for c, n, s in shapes], head)


def plain_slimmable(width, largest):
    stem, first, *stages = (
        plain.rounded(c * width / 100) for c in (32, 16, 24, 32, 64, 96, 160, 320)
    )
    shapes = zip(stages, (2, 3, 4, 3, 3, 1), (2, 2, 2, 1, 2, 1), strict=True)
    return plain.mobile(stem, first, [(c, n, s, 3, 6, False) for c, n, s in shapes], 1280)


def plain_resnet(width, largest):
    stem, *stages = (plain.rounded(c * width / 100) for c in (64, 256, 512, 1024, 2048))
    depths, ratio = ((4, 4, 6, 4), 0.35) if largest else ((2, 2, 4, 2), 0.2)
    rows = [(d, plain.rounded(c * ratio), c) for d, c in zip(depths, stages, strict=True)]
    return plain.resnet(stem, rows)


SPACES = {
    "ofa_mobilenet_v3": (ofa_mobilenet_v3, plain_ofa),
    "ofa_proxylessnas": (ofa_proxylessnas, plain_ofa_proxyless),
    "slimmable_mobilenet_v2": (slimmable_mobilenet_v2, plain_slimmable),
    "resnet": (ResNet, plain_resnet),
}


def rows_of_docs():
    for line in SECTION.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0].strip("`") in SPACES:
            numbers = [int(cell.replace(",", "")) for cell in cells[3:]]
            yield cells[0].strip("`"), int(cells[1]), cells[2], numbers


ROWS = list(rows_of_docs())


def sized(name, size):
    """The space for images of a size, and its label of the resolution, where it has one."""
    make, _ = SPACES[name]
    if name.startswith("ofa"):
        return make(), {"resolution": size}
    return make(input=(3, size, size)), {}


@pytest.mark.parametrize(("name", "width", "which", "numbers"), ROWS)
def test_sizes_are_those_of_networks_written_out_and_of_the_docs(name, width, which, numbers):
    parameters, *macs = numbers
    largest = which == "largest"
    for size, expected in zip((128, 224), macs, strict=True):
        written = SPACES[name][1](width, largest)
        assert plain.counted(written, size) == (parameters, expected)
        space, fixed = sized(name, size)
        labels = [choice.label for choice in space.choices if choice.label.endswith("width")]
        arch = extreme(space, max if largest else min, **fixed, **dict.fromkeys(labels, width))
        analytic = architecture_cost(space, arch)
        assert (analytic.parameters, analytic.macs) == (parameters, expected)
        with torch.device("meta"):
            built = network(space, arch)
        assert count(built, space.input) == analytic


def test_the_docs_have_every_extreme():
    assert {(name, width, which) for name, width, which, _ in ROWS} == {
        *(("ofa_mobilenet_v3", w, which) for w in (100, 120) for which in ("smallest", "largest")),
        *(("ofa_proxylessnas", w, which) for w in (100, 130) for which in ("smallest", "largest")),
        ("slimmable_mobilenet_v2", 35, "smallest"),
        ("slimmable_mobilenet_v2", 50, ""),
        ("slimmable_mobilenet_v2", 75, ""),
        ("slimmable_mobilenet_v2", 100, "largest"),
        ("resnet", 65, "smallest"),
        ("resnet", 100, "largest"),
    }


def test_the_code_that_the_docs_show_gives_their_numbers(capsys):
    exec(re.search(r"```python\n(.*?)```", SECTION, flags=re.DOTALL).group(1), {})
    shown = re.search(r"```\n\n    (.*?)\n", SECTION).group(1)
    assert capsys.readouterr().out.strip() == shown
    assert any(shown.startswith(f"{numbers[0]} ") for *_, numbers in ROWS)


@pytest.mark.parametrize(("width", "bias"), [(100, 1280), (120, 1536)])
def test_once_for_alls_own_code_has_a_bias_less(width, bias):
    ours, _ = plain.counted(plain_ofa(width, True), 224)
    theirs, _ = plain.counted(plain_ofa(width, True, dense_bias=False), 224)
    assert ours - theirs == bias
    assert f"{theirs:,}" in SECTION


# Of the MobileNetV2s that its authors released, in millions: parameters rounded, without those of
# norms; multiply-accumulates at 128×128 and 224×224, cut.
PUBLISHED = {
    35: (1.66, 20, 59),
    50: (1.95, 32, 97),
    75: (2.61, 69, 209),
    100: (3.47, 99, 300),
}


@pytest.mark.parametrize("width", PUBLISHED)
def test_slimmable_widths_cost_what_is_published(width):
    parameters, *macs = PUBLISHED[width]
    for size, expected in zip((128, 224), macs, strict=True):
        space = slimmable_mobilenet_v2(input=(3, size, size))
        arch = parse(space, f"width={width}")
        found = architecture_cost(space, arch)
        with torch.device("meta"):
            norms = [m for m in network(space, arch).modules() if isinstance(m, nn.BatchNorm2d)]
        of_norms = sum(2 * norm.num_features for norm in norms)
        assert round((found.parameters - of_norms) / 1e6, 2) == parameters
        assert found.macs // 10**6 == expected


def test_the_widest_slimmable_network_is_mobilenet_v2():
    space, arch = published("mbconv:mobilenet_v2")
    slimmable = slimmable_mobilenet_v2()
    found = architecture_cost(slimmable, parse(slimmable, "width=100"))
    assert found == architecture_cost(space, arch)
    assert (found.parameters, found.macs) == (3_504_872, 300_774_272)


# ----------------------------------------------------------------------------------- ResNet


RESNET50 = (25_557_032, 4_089_184_256)
ROWS_50 = [(3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048)]


def test_resnet50_costs_what_is_published():
    space, arch = published("resnet:resnet50")
    assert plain.counted(plain.resnet(64, ROWS_50), 224) == RESNET50
    with torch.device("meta"):
        counted = count(network(space, arch), space.input)
    assert (counted.parameters, counted.macs) == RESNET50
    assert architecture_cost(space, arch) == counted


def test_resnet101_and_resnet152_do_too():
    for depths, expected in (
        ((3, 4, 23, 3), (44_549_160, 7_801_405_440)),
        ((3, 8, 36, 3), (60_192_808, 11_513_626_624)),
    ):
        space = ResNet(depths=tuple((d,) for d in depths), expansions=(25, 50))
        found = architecture_cost(space, extreme(space, min, **full_width(space)))
        assert (found.parameters, found.macs) == expected


def full_width(space):
    return {choice.label: 100 for choice in space.choices if choice.label.endswith("/width")}


def test_resnet50_computes_what_the_network_written_out_does():
    channels, small = (16, 32, 48, 64), {"classes": 5, "input": (3, 40, 40)}
    space, arch = published("resnet:resnet50", {"channels": channels, "stem_channels": 8, **small})
    torch.manual_seed(0)
    ours = network(space, arch).eval()
    rows = [(d, plain.rounded(c / 4), c) for d, c in zip((3, 4, 6, 3), channels, strict=True)]
    theirs = plain.resnet(8, rows, classes=5, device="cpu").eval()
    # The order in which weights are made is the same in both: a swapped norm would show.
    state = {}
    for (name, tensor), (_, other) in zip(
        theirs.state_dict().items(), ours.state_dict().items(), strict=True
    ):
        if tensor.is_floating_point():
            other.copy_(torch.rand(other.shape) if other.dim() == 1 else torch.randn(other.shape))
        state[name] = other.clone()
    theirs.load_state_dict(state)
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        out = ours(x)
        torch.testing.assert_close(theirs(x), out)
    assert out.std() > 0

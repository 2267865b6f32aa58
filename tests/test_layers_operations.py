"""Light-weight operations against plain ones that compute the same, and whole networks of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.cost import count
from nas.export.merge import merge
from nas.layers import GlobalAveragePool
from nas.layers.convolutions import ConvNormAct, GroupedShuffle, channel_shuffle
from nas.layers.lightweight import (
    GhostModule,
    MixedDepthwise,
    OctaveConv,
    PartialConvBlock,
    Shift,
    StarBlock,
)
from nas.operations import parse_operation


def test_channels_are_shuffled_as_torch_does():
    x = torch.randn(2, 12, 3, 4)
    for groups in (1, 2, 3, 4, 6, 12):
        assert torch.equal(channel_shuffle(x, groups), nn.ChannelShuffle(groups)(x))


def test_a_convolution_has_a_bias_where_nothing_norms_it():
    assert ConvNormAct(4, 8, 3).layers[0].bias is None
    assert ConvNormAct(4, 8, 3, norm="group").layers[0].bias is None
    assert ConvNormAct(4, 8, 3, norm="none").layers[0].bias is not None


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("extra", [0, 1, 7])
def test_a_shift_is_a_depthwise_convolution_with_a_single_one(kernel_size, extra):
    places = kernel_size**2
    channels = 2 * places + extra % places
    kernels = torch.zeros(channels, 1, kernel_size, kernel_size)
    for channel in range(channels):
        place = channel // 2 if channel < 2 * places else places // 2
        kernels[channel, 0, place // kernel_size, place % kernel_size] = 1
    x = torch.randn(2, channels, 5, 6)
    expected = F.conv2d(x, kernels, padding=kernel_size // 2, groups=channels)
    shift = Shift(channels, kernel_size)
    assert torch.equal(shift(x), expected)
    assert count(shift, (channels, 5, 6)).macs == 0
    assert not shift.state_dict()


def test_a_mixed_convolution_is_one_depthwise_convolution_of_padded_kernels():
    module = MixedDepthwise(11, (3, 5, 7), stride=2)
    assert [conv.weight.shape[0] for conv in module.convs] == [5, 3, 3]
    kernels = [
        F.pad(conv.weight, [(7 - size) // 2] * 4)
        for conv, size in zip(module.convs, (3, 5, 7), strict=True)
    ]
    x = torch.randn(2, 11, 9, 10)
    expected = F.conv2d(x, torch.cat(kernels), stride=2, padding=3, groups=11)
    torch.testing.assert_close(module(x), expected)


def test_an_octave_convolution_is_a_plain_one_where_the_image_is_even():
    """Of 2×2 blocks of one colour nothing is lost at half the size; with a 1×1 kernel."""
    module = OctaveConv(8, 12, kernel_size=1, alpha=0.5).eval()
    high, low = module.to_high, module.to_low
    kernel = torch.cat(
        [
            torch.cat([high[0].weight, high[1].weight], dim=1),
            torch.cat([low[0].weight, low[1].weight], dim=1),
        ]
    )
    x = torch.randn(2, 8, 3, 4).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.relu(F.conv2d(x, kernel) / (1 + module.norms[0].eps) ** 0.5)
    torch.testing.assert_close(module(x), expected)


def test_the_low_octave_sees_the_image_at_half_its_size():
    module = OctaveConv(8, 8, kernel_size=3, alpha=0.25).eval()
    x = torch.randn(2, 8, 6, 8)
    small = F.avg_pool2d(x, 2)
    kernel = torch.cat([module.to_low[0].weight, module.to_low[1].weight], dim=1)
    low = F.relu(F.conv2d(small, kernel, padding=1) / (1 + module.norms[1].eps) ** 0.5)
    expected = low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(module(x)[:, 6:], expected)


def test_a_partial_convolution_is_a_plain_one_that_copies_the_rest():
    module = PartialConvBlock(8, part=4).eval()
    kernel = torch.zeros(8, 8, 3, 3)
    kernel[:2, :2] = module.conv.weight.detach()
    kernel[range(2, 8), range(2, 8), 1, 1] = 1
    x = torch.randn(2, 8, 5, 6)
    expected = x + module.mix(F.conv2d(x, kernel, padding=1))
    torch.testing.assert_close(module(x), expected)


def test_a_ghost_module_makes_its_second_half_from_the_first():
    module = GhostModule(6, 9, kernel_size=3).eval()
    x = torch.randn(2, 6, 5, 5)
    y = module(x)
    first = y[:, :5]
    torch.testing.assert_close(first, F.relu(module.primary(x)))
    torch.testing.assert_close(y[:, 5:], F.relu(module.cheap(first))[:, :4])


def test_a_star_multiplies_two_views_of_the_same():
    """Scaling either branch scales what is added."""
    module = StarBlock(6, activation="identity").eval()
    with torch.no_grad():
        module.project[1].bias.zero_()
        module.project[0][1].running_mean.zero_()
        x = torch.randn(2, 6, 8, 8)
        added = module(x) - x
        for tensor in module.value.parameters():
            tensor.mul_(-2)
        torch.testing.assert_close(module(x) - x, -2 * added)
        for tensor in module.gate.parameters():
            tensor.mul_(-2)
        torch.testing.assert_close(module(x) - x, 4 * added)


@pytest.mark.parametrize(("c_out", "stride"), [(12, 1), (36, 1), (36, 2)])
def test_a_grouped_block_shuffles_between_its_convolutions(c_out, stride):
    module = GroupedShuffle(12, c_out, stride=stride, groups=3).eval()
    x = torch.randn(2, 12, 7, 8)
    y = nn.ChannelShuffle(3)(F.relu(module.compress(x)))
    y = module.expand(module.depthwise(y))
    if stride == 2:
        y = torch.cat([F.avg_pool2d(x, 3, 2, 1), y], dim=1)
    elif c_out == 12:
        y = x + y
    torch.testing.assert_close(module(x), F.relu(y))


@pytest.mark.parametrize(
    "text",
    [
        "ghost_se0.25",
        "repghost_se0.25",
        "mix_k3.5_se0.25",
        "shift",
        "pconv",
        "star",
        "ir_k3_e4",
        "ir_k3_e1_se0.25",
        "er_k3_e2",
        "uib_k3.3_e2",
    ],
)
def test_a_residual_block_that_adds_nothing_gives_its_input(text):
    """Every tensor at zero: what is left is the way around."""
    (block,) = chain(16, [text])
    block.load_state_dict(
        {name: torch.zeros_like(tensor) for name, tensor in block.state_dict().items()}
    )
    x = torch.rand(2, 16, 6, 6)
    assert torch.equal(block.eval()(x), x)
    if text.startswith(("pconv", "star")):
        return  # their shape stays
    head, *tokens = text.split("_")
    (block,) = chain(16, ["_".join([head, *tokens, "o24"])])
    block.load_state_dict(
        {name: torch.zeros_like(tensor) for name, tensor in block.state_dict().items()}
    )
    assert not block.eval()(x).any()


@torch.no_grad()
def test_a_squeeze_gates_the_hidden_channels_of_its_block():
    for text in ("ghost_se0.25", "repghost_se0.25", "mix_k3_se0.25", "ir_k3_e4_se0.25"):
        (block,) = chain(16, [text])
        block.eval()
        x = torch.randn(2, 16, 6, 6)
        added = block(x) - x
        for name, tensor in block.state_dict().items():
            if ".weigh." in name:
                tensor.fill_(-9.0)  # the gate is shut
        shut = block(x) - x
        assert float(shut.abs().max()) < 0.01 * float(added.abs().max())


# ------------------------------------------------------------------------- whole networks


def chain(c_in: int, texts: list[str]) -> list[nn.Module]:
    layers = []
    for text in texts:
        operation = parse_operation(text)
        factory = operation.factory(c_in)
        assert factory is not None
        layers.append(factory())
        c_in = operation.c_out(c_in)
    return layers


def ghost_network(kind: str, blocks: str) -> nn.Module:
    """Of kernel, hidden and given channels, squeeze and stride a block."""
    texts, c = ["conv_k3_s2_o16"], 16
    for block in blocks.split("|"):
        size, hidden, c_out, squeezed, stride = map(int, block.split())
        squeeze = "_se0.25" if squeezed else ""
        texts.append(f"{kind}_k{size}_s{stride}_e{hidden / c}_o{c_out}{squeeze}")
        c = c_out
    return nn.Sequential(
        *chain(3, [*texts, "conv_k1_o960"]),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(960, 1280, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1280, 1000),
    )


def ghostnet() -> nn.Module:
    return ghost_network(
        "ghost",
        "3 16 16 0 1|3 48 24 0 2|3 72 24 0 1|5 72 40 1 2|5 120 40 1 1|3 240 80 0 2|3 200 80 0 1|"
        "3 184 80 0 1|3 184 80 0 1|3 480 112 1 1|3 672 112 1 1|5 672 160 1 2|5 960 160 0 1|"
        "5 960 160 1 1|5 960 160 0 1|5 960 160 1 1",
    )


def repghostnet() -> nn.Module:
    return ghost_network(
        "repghost",
        "3 8 16 0 1|3 24 24 0 2|3 36 24 0 1|5 36 40 1 2|5 60 40 1 1|3 120 80 0 2|3 100 80 0 1|"
        "3 120 80 0 1|3 120 80 0 1|3 240 112 1 1|3 336 112 1 1|5 336 160 1 2|5 480 160 0 1|"
        "5 480 160 1 1|5 480 160 0 1|5 480 160 1 1",
    )


def repvgg_a0() -> nn.Module:
    texts = ["repvgg_s2_o48"]
    for depth, width in ((2, 48), (4, 96), (14, 192), (1, 1280)):
        texts += [f"repvgg_s2_o{width}", *["repvgg"] * (depth - 1)]
    return nn.Sequential(*chain(3, texts), GlobalAveragePool(), nn.Linear(1280, 1000))


def fasternet_t0() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 40, 4, 4, bias=False), nn.BatchNorm2d(40)]
    for width, depth in ((40, 1), (80, 2), (160, 8), (320, 2)):
        if width > 40:
            layers.append(nn.Conv2d(width // 2, width, 2, 2, bias=False))
            layers.append(nn.BatchNorm2d(width))
        layers += chain(width, ["pconv_gelu"] * depth)
    head = nn.Conv2d(320, 1280, 1, bias=False), nn.GELU(), nn.Flatten(), nn.Linear(1280, 1000)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), *head)


def starnet_s1() -> nn.Module:
    texts = ["conv_k3_s2_o32_relu6"]
    for width, depth in ((24, 2), (48, 2), (96, 8), (192, 3)):
        texts += [f"conv_k3_s2_o{width}_linear", *["star"] * depth]
    head = nn.BatchNorm2d(192), GlobalAveragePool(), nn.Linear(192, 1000)
    return nn.Sequential(*chain(3, texts), *head)


@pytest.mark.parametrize(
    ("make", "millions", "million_macs"),
    [
        (ghostnet, 5.2, 141),
        (lambda: merge(repghostnet()), 4.1, 142),
        (repvgg_a0, 9.1, None),  # in training: no MACs are published
        (lambda: merge(repvgg_a0()), 8.3, 1361),
        (fasternet_t0, 3.9, 335),
        (starnet_s1, 2.9, 422),
    ],
)
def test_networks_of_these_blocks_have_the_sizes_published(make, millions, million_macs):
    """As the papers round them, but for StarNet's MACs (425 there, which count its norms too)."""
    with torch.device("meta"):
        cost = count(make(), (3, 224, 224))
    assert round(cost.parameters / 1e6, 1) == millions
    assert million_macs in (None, round(cost.macs / 1e6))

"""Vision Transformers: AutoFormer's search space and its layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exporting import export_and_run, randomised
from small_spaces import SMALL
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.cost import architecture_cost
from nas.cost import count as cost_of
from nas.errors import ConfigError, InvalidArchitecture
from nas.layers.cells import DropPath
from nas.layers.transformer import RelativeAttention, RelativePositions, SelfAttention
from nas.space import count, enumerate_architectures, format_architecture, network, parse, sample
from nas.supernet import Supernet
from nas.supernet.relaxed import tensor_names
from nas.testing import SpaceContract
from nas.training.drop_path import branches, dropping
from search_spaces.autoformer import AutoFormer

# 28 × 28 pixels as 7 × 7 patches.
SMALL_IMAGES = AutoFormer(
    embeddings=(32, 48, 64),
    depths=(2, 3, 4),
    heads=(2, 3, 4),
    head_dim=16,
    patch=4,
    classes=10,
    input=(1, 28, 28),
)


class TestAutoFormer(SpaceContract):
    def space(self):
        return SMALL["autoformer"]()

    def small(self):
        return AutoFormer((4, 8), (1, 2), (1, 2), (100, 110), 2, 4, 1, 3, (1, 8, 8))


@pytest.mark.slow
class TestAutoFormerWithoutRelativePositions(SpaceContract):
    def space(self):
        return AutoFormer((8, 12), (1, 2), (1, 2), (150, 200), 4, 3, 0, 5, (1, 9, 6))


# --------------------------------------------------------------------------------- sizes


def reference_cost(space, arch):
    """The published network's parameters and MACs, without any of the space's code."""
    picks, dim = arch.as_dict(), arch["embedding"]
    side = space.input[1] // space.patch
    n, reach = side**2 + 1, 2 * (2 * space.max_relative_position + 2)
    parameters = (space.patch**2 * space.input[0] + 1) * dim + (n + 1) * dim  # patches, places
    macs = space.patch**2 * space.input[0] * dim * side**2
    for number in range(1, picks["depth"] + 1):
        inner = space.head_dim * picks[f"layer{number}/heads"]
        hidden = int(dim * (picks[f"layer{number}/ratio"] / 100))
        parameters += 2 * 2 * dim  # norms
        parameters += (dim + 1) * 3 * inner + (inner + 1) * dim
        parameters += 2 * reach * space.head_dim  # of keys and of values
        parameters += (dim + 1) * hidden + (hidden + 1) * dim
        macs += n * (4 * dim * inner + 2 * dim * hidden)
        macs += 2 * n**2 * inner
        # Keys: every patch with the class token's vector and those of rows and columns; values:
        # rows and columns.
        macs += side**2 * inner + 2 * side**2 * 2 * side * inner
    parameters += 2 * dim + (dim + 1) * space.classes
    return parameters, macs + dim * space.classes


@pytest.mark.parametrize(
    ("name", "parameters"),
    # What the count function of the authors' code gives; the paper says 5.7, 22.9 and 54 million.
    [("AutoFormer_T", 5_867_944), ("AutoFormer_S", 22_891_432), ("AutoFormer_B", 53_691_688)],
)
def test_published_networks_have_the_parameters_of_the_authors_count(name, parameters):
    point = AutoFormer.points[name]
    space = AutoFormer(**point.arguments)
    arch = parse(space, point.architecture)
    assert reference_cost(space, arch)[0] == parameters
    analytic = architecture_cost(space, arch)
    assert (analytic.parameters, analytic.macs) == reference_cost(space, arch)
    with torch.device("meta"):
        built = network(space, arch).eval()
    assert sum(p.numel() for p in built.parameters()) == parameters
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        built(torch.empty(1, *space.input, device="meta"))
    assert 2 * analytic.macs == counter.get_total_flops()


@pytest.mark.parametrize("farthest", [0, 14])
def test_attentions_products_are_counted(farthest):
    space = AutoFormer((32,), (2,), (2, 3), (400,), 16, 4, farthest, 10, (1, 28, 28))
    arch = sample(space, np.random.default_rng(0))
    with torch.device("meta"):
        built = network(space, arch).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        built(torch.empty(1, *space.input, device="meta"))
    assert 2 * cost_of(built, space.input).macs == counter.get_total_flops()


def test_sizes():
    assert count(AutoFormer()) == 3 * (4**12 + 4**13 + 4**14)
    small = TestAutoFormer().small()
    assert len(list(enumerate_architectures(small))) == count(small) == 2 * (4 + 16)


def test_the_paper_reports_a_network_its_space_has_not():
    with pytest.raises(InvalidArchitecture, match="ratio"):
        parse(AutoFormer(), AutoFormer.points["AutoFormer_T"].architecture)


def test_text_is_read_back():
    for arch in (sample(SMALL_IMAGES, np.random.default_rng(seed)) for seed in range(5)):
        text = format_architecture(SMALL_IMAGES, arch)
        assert text.startswith(f"embedding={arch['embedding']} depth={arch['depth']} layer1/heads=")
        assert parse(SMALL_IMAGES, text) == arch


def test_ratios_of_one_width_are_one_network():
    space = TestAutoFormer().small()
    narrow = parse(space, "embedding=4 depth=1 layer1/heads=1 layer1/ratio=110")
    assert space.canonical(narrow)["layer1/ratio"] == 100  # 4.4 channels are 4
    networks = {
        tuple(tuple(t.shape) for t in network(space, arch).state_dict().values())
        for arch in enumerate_architectures(space)
    }
    assert len(networks) == len({*map(space.canonical, enumerate_architectures(space))})


# -------------------------------------------------------------------------------- layers


def vector(table, token, farthest, distance):
    """What was learnt of one distance, given in rows or columns; ``None`` for the class token."""
    if distance is None:
        return token
    return table[max(-farthest, min(farthest, distance)) + farthest]


@pytest.mark.parametrize("farthest", [1, 2, 5])
def test_relative_positions_are_those_of_a_loop(farthest):
    rows, columns, heads, d = 3, 4, 2, 5
    torch.manual_seed(0)
    layer = RelativeAttention(6, heads, d, rows, columns, farthest).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    n = 1 + rows * columns
    x = torch.randn(2, n, 6, dtype=torch.double)
    packed = layer.qkv(x)  # queries of all heads, then keys, then values
    places = [None, *((row, column) for row in range(rows) for column in range(columns))]

    def seen(positions, i, j):
        near = None in (places[i], places[j])
        down, across = (None, None) if near else np.subtract(places[j], places[i])
        return vector(positions.vertical, positions.token[0], farthest, down) + vector(
            positions.horizontal, positions.token[1], farthest, across
        )

    taken = torch.zeros(2, n, heads * d, dtype=torch.double)
    for head in range(heads):
        q, k, v = (packed[:, :, (s * heads + head) * d :][:, :, :d] for s in range(3))
        for i in range(n):
            keys = [k[:, j] + seen(layer.keys, i, j) for j in range(n)]
            scores = torch.stack([(q[:, i] * key).sum(1) for key in keys], dim=1) / math.sqrt(d)
            weights = scores.softmax(dim=1)
            for j in range(n):
                value = v[:, j] + seen(layer.values, i, j)
                taken[:, i, head * d : (head + 1) * d] += weights[:, j, None] * value
    torch.testing.assert_close(layer(x), layer.out(taken), rtol=1e-12, atol=1e-12)


def test_attention_without_relative_positions_is_torchs():
    torch.manual_seed(0)
    layer = SelfAttention(12, 3, 4)
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.out.weight,
            "out_proj.bias": layer.out.bias,
        }
    )
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(layer(x), reference(x, x, x)[0])
    other = RelativeAttention(12, 3, 4, rows=2, columns=3, farthest=2)
    other.load_state_dict(other.state_dict() | layer.state_dict())
    with torch.no_grad():
        for positions in (other.keys, other.values):
            for parameter in positions.parameters():
                parameter.zero_()
    torch.testing.assert_close(other(x), layer(x))


def test_drop_path_leaves_attention_and_mlp_out():
    torch.manual_seed(0)
    built = network(SMALL_IMAGES, sample(SMALL_IMAGES, np.random.default_rng(0))).train()
    layers = [name for name in built.layers if name.startswith("layer")]
    assert len(branches(built)) == 2 * len(layers)
    x = torch.randn(4, *SMALL_IMAGES.input)
    plain = built(x)
    with dropping(built, 1 - 1e-6) as schedule:
        schedule(1.0)
        tokens = built.layers["tokens"](built.layers["patches"](x))
        bare = built.layers["pool"](built.layers["norm"](tokens))
        assert torch.equal(built(x), built.layers["classifier"](bare))
    assert torch.equal(built(x), plain)
    assert not any(isinstance(module, DropPath) for module in built.modules())


# ------------------------------------------------------------------------ shared weights


def shared_positions(larger, smaller):
    """Where a smaller attention's inner width lies in a larger one's."""
    return torch.cat([torch.arange(smaller) + part * larger for part in range(3)])


@pytest.fixture(scope="module")
def supernet():
    made = Supernet(SMALL_IMAGES)
    made.load_state_dict(randomised(made, seed=0))
    return made.eval()


def shared_tensors(supernet, of):
    """Those of the largest network, by their names in a smaller one."""
    tensors = dict(of(supernet.largest))
    return {name: tensors[own] for name, own in tensor_names(supernet.largest).items()}


def test_fifty_networks_over_views_are_the_fixed_ones_to_the_bit(supernet):
    torch.manual_seed(0)
    rng, x = np.random.default_rng(0), torch.randn(2, *SMALL_IMAGES.input)
    shared = shared_tensors(supernet, nn.Module.named_parameters)
    for _ in range(50):
        arch = sample(SMALL_IMAGES, rng)
        fixed = network(SMALL_IMAGES, arch).eval()
        extracted = supernet.extract(arch)
        fixed.load_state_dict(extracted.state_dict())
        out = fixed(x)
        assert out.isfinite().all()
        assert torch.equal(extracted(x), out)
        viewed = supernet.network(arch)
        assert torch.equal(viewed(x), out)
        out.square().sum().backward()
        supernet.zero_grad()
        viewed(x).square().sum().backward()
        for name, parameter in fixed.named_parameters():
            whole = shared[name].grad
            part = whole[tuple(slice(size) for size in parameter.shape)]
            if ".qkv." in name:
                rows = shared_positions(len(whole) // 3, len(parameter) // 3)
                part = whole[rows] if whole.dim() == 1 else whole[rows, : parameter.shape[1]]
            # Torch writes a matrix's gradient as a transposed product or not by its strides, which
            # are a view's here: the classifier's may end in another last bit.
            atol = 1e-6 * parameter.grad.abs().max() if name == "layers.classifier.weight" else 0
            torch.testing.assert_close(part, parameter.grad, rtol=0, atol=float(atol), msg=name)
            elsewhere = whole.double().square().sum() - part.double().square().sum()
            assert abs(elsewhere) <= 1e-9 * part.double().square().sum(), name


def test_queries_keys_and_values_are_the_leading_ones_of_each(supernet):
    arch = parse(
        SMALL_IMAGES,
        "embedding=48 depth=2 layer1/heads=2 layer1/ratio=350 layer2/heads=3 layer2/ratio=400",
    )
    extracted = supernet.extract(arch).state_dict()
    shared = shared_tensors(supernet, nn.Module.state_dict)
    for layer, inner in (("layer1", 32), ("layer2", 48)):
        for name in ("weight", "bias"):
            key = f"layers.{layer}.attention.body.1.qkv.{name}"
            small, large = extracted[key], shared[key]
            assert len(large) == 3 * 64
            for part in range(3):
                of = large[64 * part : 64 * part + inner]
                expected = of[:, :48] if name == "weight" else of
                assert torch.equal(small[inner * part : inner * (part + 1)], expected)
        out = f"layers.{layer}.attention.body.1.out.weight"
        assert torch.equal(extracted[out], shared[out][:48, :inner])


def test_nearer_relative_positions_lie_in_the_middle():
    near, far = RelativePositions(3, 3, 1, 4), RelativePositions(3, 3, 2, 4)
    for table in ("vertical", "horizontal"):
        (small, _), (large, _) = near.layouts()[table], far.layouts()[table]
        assert [large.index(distance) for distance in small] == [1, 2, 3]
        assert (len(small), len(large)) == (len(getattr(near, table)), len(getattr(far, table)))


def test_exported_files_run_alone_and_are_clean(tmp_path):
    export_and_run(SMALL["autoformer"](), tmp_path)


# -------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"embeddings": ()}, "embeddings must be numbers of at least 1"),
        ({"heads": (0, 2)}, "heads must be numbers of at least 1"),
        ({"depths": (0,)}, "depths"),
        ({"ratios": (-100,)}, "ratios"),
        ({"embeddings": (8,), "ratios": (4,)}, "has no width"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
        ({"max_relative_position": -1}, "max_relative_position must be at least 0"),
        ({"classes": 0}, "classes"),
        ({"patch": 15}, "15 × 15 pixels do not fill an image of 224 × 224"),
        ({"input": (3, 224, 220)}, "patch must divide both"),
        ({"input": (224, 224)}, "channels, height, width"),
    ],
)
def test_autoformer_refuses(arguments, says):
    with pytest.raises(ConfigError, match=says):
        AutoFormer(**arguments)

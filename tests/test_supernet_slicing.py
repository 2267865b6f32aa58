"""How a smaller network's tensors are cut from the shared ones: what each entry stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nas.builder import Builder
from nas.described import described
from nas.errors import UnsupportedRequest
from nas.space import enumerate_architectures, network, parse
from nas.supernet import Supernet
from nas.supernet.slicing import layouts_of, part


def cut(layer: nn.Module, smaller: nn.Module, name: str) -> torch.Tensor:
    """The part of a layer's tensor that a smaller layer has."""
    shared = layer.state_dict()[name]
    large, small = layouts_of(layer), layouts_of(smaller)
    shape = smaller.state_dict()[name].shape
    return part(shared, large.get(name), small.get(name), shape, name).reshape(shape)


# ------------------------------------------------------------------------------ torch's layers


@pytest.mark.parametrize(
    ("large", "small", "taken"),
    [
        (nn.Linear(5, 6), nn.Linear(2, 3), np.s_[:3, :2]),
        (nn.Conv2d(4, 6, 5), nn.Conv2d(2, 3, 3), np.s_[:3, :2, 1:4, 1:4]),
        (nn.Conv1d(4, 6, 7), nn.Conv1d(4, 6, 1), np.s_[:, :, 3:4]),
        (nn.Conv2d(4, 4, 4), nn.Conv2d(4, 4, 2), np.s_[:, :, 1:3, 1:3]),
        (nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(4, 4, 3, groups=4), np.s_[:4]),
        # As many groups, each narrower: the leading channels of every group.
        (
            nn.Conv2d(8, 12, 1, groups=2),
            nn.Conv2d(4, 6, 1, groups=2),
            np.s_[[0, 1, 2, 6, 7, 8], :2],
        ),
        # Groups as wide, fewer of them: the leading groups.
        (nn.Conv2d(8, 12, 1, groups=4), nn.Conv2d(4, 6, 1, groups=2), np.s_[:6]),
        (nn.ConvTranspose2d(4, 6, 3), nn.ConvTranspose2d(2, 3, 1), np.s_[:2, :3, 1:2, 1:2]),
        (nn.LayerNorm(6), nn.LayerNorm(4), np.s_[:4]),
        (nn.RMSNorm(6), nn.RMSNorm(4), np.s_[:4]),
        (nn.GroupNorm(2, 6), nn.GroupNorm(2, 4), np.s_[:4]),
        (nn.Embedding(7, 6), nn.Embedding(5, 4), np.s_[:5, :4]),
        (nn.PReLU(6), nn.PReLU(4), np.s_[:4]),
    ],
    ids=lambda value: str(value) if isinstance(value, nn.Module) else "",
)
def test_a_smaller_layer_has_the_entries_that_stand_for_the_same(large, small, taken):
    expected = large.weight.detach().numpy()[taken]
    assert expected.shape == tuple(small.weight.shape)
    assert np.array_equal(cut(large, small, "weight").numpy(), expected)


def test_batch_norm_gives_its_statistics_too():
    large, small = nn.BatchNorm2d(6), nn.BatchNorm2d(4)
    with torch.no_grad():
        large.running_var.copy_(torch.rand(6))
    assert torch.equal(cut(large, small, "running_var"), large.running_var[:4])
    assert torch.equal(cut(large, small, "num_batches_tracked"), large.num_batches_tracked)


def test_the_queries_of_a_smaller_attention_are_queries():
    large = nn.MultiheadAttention(8, 4)
    small = nn.MultiheadAttention(4, 2)
    packed = cut(large, small, "in_proj_weight")
    for mine, theirs in zip(packed.chunk(3), large.in_proj_weight.chunk(3), strict=True):
        assert torch.equal(mine, theirs[:4, :4])
    assert torch.equal(cut(large, small, "out_proj.weight"), large.out_proj.weight[:4, :4])


@pytest.mark.parametrize(
    ("large", "small", "says"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4), "4 entries are more than 3"),
        (nn.Conv2d(2, 2, 5), nn.Conv2d(2, 2, 4), "positions .* do not lie among"),
        (nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2), "2 entries are more than 1"),
        (nn.LayerNorm((4, 6, 6)), nn.LayerNorm((4, 5, 5)), "no rule"),
    ],
)
def test_what_is_no_part_is_refused_by_name(large, small, says):
    with pytest.raises(UnsupportedRequest, match=f"^weight: .*{says}"):
        cut(large, small, "weight")


# ------------------------------------------------------------------------------------- laws


@st.composite
def nested(draw):
    """The factors of a dimension, large and small."""
    large = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return tuple(large), tuple(draw(st.integers(1, size)) for size in large)


@given(st.lists(nested(), min_size=1, max_size=2))
def test_a_nested_part_is_the_leading_entries_of_each_factor(dimensions):
    large, small = zip(*dimensions, strict=True)
    shape = torch.Size(math.prod(sizes) for sizes in small)
    shared = torch.arange(math.prod(map(math.prod, large))).view([math.prod(s) for s in large])
    found = part(shared, large, small, shape, "x").reshape(shape)
    factors = [size for sizes in large for size in sizes]
    kept = [slice(size) for sizes in small for size in sizes]
    assert torch.equal(found, shared.view(factors)[tuple(kept)].reshape(shape))


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_part_of_a_part_is_a_part(large, small):
    """Cutting in two steps is cutting once: sub-networks of sub-networks agree."""
    large, middle, small = sorted((large, small, (large + small) // 2), reverse=True)
    layers = [nn.Conv1d(size, 2 * size, 2 * size - 1) for size in (large, middle, small)]
    once = cut(layers[0], layers[2], "weight")
    with torch.no_grad():
        layers[1].weight.copy_(cut(layers[0], layers[1], "weight"))
    assert torch.equal(cut(layers[1], layers[2], "weight"), once)


# --------------------------------------------------------------------- a layer of one's own


class Attention(nn.Module):
    """Packed queries, keys and values, with a bias for every distance of two tokens."""

    def __init__(self, dim: int, heads: int, head_dim: int, tokens: int, told: str) -> None:
        super().__init__()
        self.told = told
        self.dim = dim
        self.heads = heads
        self.head_dim = head_dim
        self.tokens = tokens
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, dim)
        self.distances = nn.Parameter(torch.randn(heads, 2 * tokens - 1))
        index = torch.arange(tokens)
        self.register_buffer("index", index[:, None] - index + tokens - 1, persistent=False)

    def layouts(self):
        if self.told in ("nothing", "another name", "another size"):
            wrong = {"another name": {"kqv.weight": (1, 2)}, "another size": {"qkv.bias": (9,)}}
            return wrong.get(self.told, {})
        inner = (3, self.heads, self.head_dim)
        return {
            "qkv.weight": (inner, self.dim),
            "qkv.bias": (inner,),
            "distances": (self.heads, range(1 - self.tokens, self.tokens)),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.distances[:, self.index]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(out.transpose(1, 2).flatten(2))


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def attention_network(builder: Builder, told: str = "all") -> nn.Module:
    dim = builder.number("dim", (4, 6))
    heads = builder.number("heads", (1, 2, 3))
    tokens = builder.number("tokens", (4, 8))
    layer = Attention(dim, heads, 2, tokens, told)
    return nn.Sequential(Pooled(tokens), nn.Linear(3, dim), layer, Mean(), nn.Linear(dim, 5))


class Pooled(nn.Module):
    """(N, 8, 3) to so many tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool1d(x.transpose(1, 2), self.tokens).transpose(1, 2)


def space(told="all"):
    return described(attention_network, input=(8, 3), classes=5, arguments={"told": told})


def test_a_layer_states_how_its_tensors_are_packed():
    own = space()
    supernet = Supernet(own)
    x = torch.randn(3, 8, 3)
    largest = supernet.extract(parse(own, "dim=6 heads=3 tokens=8"))
    for arch in enumerate_architectures(own):
        dim, heads, tokens = (arch.as_dict()[label] for label in ("dim", "heads", "tokens"))
        found = supernet.extract(arch)
        shared, mine = largest[2], found[2]
        ours = mine.qkv.weight.view(3, heads, 2, dim)
        assert torch.equal(ours, shared.qkv.weight.view(3, 3, 2, 6)[:, :heads, :, :dim])
        middle = slice(8 - tokens, 7 + tokens)
        assert torch.equal(mine.distances, shared.distances[:heads, middle])
        assert torch.equal(mine.out.weight, shared.out.weight[:dim, : 2 * heads])
        view = supernet.network(arch)
        fixed = network(own, arch)
        fixed.load_state_dict(found.state_dict())
        assert torch.equal(view(x), found(x))
        assert torch.equal(fixed(x), found(x))


def test_what_is_computed_follows_the_shared_tensors_and_gives_them_gradients():
    own = space()
    supernet = Supernet(own)
    arch = parse(own, "dim=4 heads=2 tokens=4")
    view, x = supernet.network(arch), torch.randn(3, 8, 3)
    for _ in range(3):
        alone = supernet.extract(arch)
        alone(x).square().sum().backward()
        supernet.zero_grad()
        view(x).square().sum().backward()
        shared = supernet.tensors["2.qkv.weight"]
        mine = shared.grad.view(3, 3, 2, 6)
        assert torch.equal(mine[:, :2, :, :4].reshape(12, 4), alone[2].qkv.weight.grad)
        assert int((mine != 0).sum()) == int((alone[2].qkv.weight.grad != 0).sum()) > 0
        with torch.no_grad():
            for parameter in supernet.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad


def test_the_used_part_of_a_packed_tensor_is_where_its_gradient_is():
    own = space()
    supernet = Supernet(own)
    for arch in enumerate_architectures(own):
        supernet.zero_grad()
        supernet.network(arch)(torch.randn(3, 8, 3)).square().sum().backward()
        for parameter, mask in supernet.used_parts([arch]).items():
            assert parameter.grad[~mask].eq(0).all()
            assert parameter.grad[mask].ne(0).any()


def test_a_parameter_without_a_rule_is_refused_by_name():
    own = space("nothing")
    supernet = Supernet(own)
    with pytest.raises(
        UnsupportedRequest, match=r"2\.distances: there is no rule .*\(1, 7\).*layouts"
    ):
        supernet.network(parse(own, "dim=6 heads=1 tokens=4"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("another name", r"Attention\.layouts names a tensor 'kqv\.weight'.*qkv\.weight"),
        ("another size", r"Attention\.layouts says 'qkv\.bias' is \(9,\).*it has shape \(18,\)"),
    ],
)
def test_a_layout_that_is_not_about_the_layer_is_refused(told, says):
    with pytest.raises(UnsupportedRequest, match=says):
        Supernet(space(told)).network(parse(space(told), "dim=6 heads=3 tokens=4"))

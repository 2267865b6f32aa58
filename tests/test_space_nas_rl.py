"""NAS-RL: the three rules that make every choice a network, and the order of its layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from exporting import export_and_run
from torch.nn import functional as F

from nas.cost import count as cost
from nas.encoding import paths
from nas.errors import ConfigError
from nas.space import count, enumerate_architectures, from_picks, network, sample, validate
from nas.testing import SpaceContract
from search_spaces.nas_rl import NasRl, concatenate

SMALL = NasRl(layers=4, filters=(2, 3), strides=(1, 2), input=(3, 9, 8))


class TestNasRl(SpaceContract):
    def space(self):
        return SMALL

    def small(self):
        return NasRl(layers=3, heights=(1, 3), widths=(5,), filters=(2, 3))


@pytest.mark.slow
class TestNasRlAtStride1(SpaceContract):
    def space(self):
        return NasRl(layers=6, filters=(2, 3), input=(1, 5, 5), classes=3)


def test_size_is_its_formula():
    assert count(NasRl()) == (4 * 4 * 4) ** 15 * 2 ** (15 * 14 // 2)
    assert count(SMALL) == (4 * 4 * 2 * 2 * 2) ** 4 * 2**6
    assert len(NasRl().choices) == 15 * 3 + 15 * 14 // 2


# ------------------------------------------------------------------------------ the network


def picks_of(space, shapes, sources):
    picks = {}
    for layer, shape in enumerate(shapes):
        picks |= {f"layer{layer}/{what}": value for what, value in shape.items()}
        picks |= {f"layer{layer}/from{s}": int(s in sources[layer]) for s in range(layer)}
    return from_picks(space, picks)


def test_concatenation_pads_at_the_bottom_and_the_right():
    small, large = torch.randn(2, 3, 2, 4), torch.randn(2, 1, 5, 3)
    joined = concatenate([small, large])
    assert joined.shape == (2, 4, 5, 4)
    assert torch.equal(joined[:, :3, :2, :4], small)
    assert torch.equal(joined[:, 3:, :5, :3], large)
    assert (joined[:, :3, 2:] == 0).all()
    assert (joined[:, 3:, :, 3:] == 0).all()


def test_network_follows_the_papers_rules():
    shape = {"height": 3, "width": 1, "stride_height": 1, "stride_width": 1, "filters": 2}
    shapes = [shape, shape | {"filters": 3}, shape | {"stride_width": 2}, shape]
    # 1 reads nothing, 2 reads both, 3 reads 0; nobody reads 2 and 3.
    model = network(SMALL, picks_of(SMALL, shapes, [(), (), (0, 1), (0,)]))
    assert model.sources == ((), (), (0, 1), (0,))
    assert model.ends == (2, 3)
    convs = [layer.conv for layer in model.layers]
    assert [conv.in_channels for conv in convs] == [3, 3, 5, 2]
    assert [conv.kernel_size for conv in convs] == [(3, 1)] * 4
    assert [conv.stride for conv in convs] == [(1, 1), (1, 1), (1, 2), (1, 1)]
    assert model.head[1].in_features == 4


def test_forward_is_that_of_an_independent_reading():
    rng = np.random.default_rng(0)
    padded = 0
    for seed in range(20):
        arch = sample(SMALL, rng)
        picks = arch.as_dict()
        torch.manual_seed(seed)
        model = network(SMALL, arch).eval()
        x = torch.randn(2, *SMALL.input)
        outputs, unread = [], set()
        for number, layer in enumerate(model.layers):
            read = [s for s in range(number) if picks[f"layer{number}/from{s}"]]
            unread = (unread - set(read)) | {number}
            joined, mixed = joined_by_hand([outputs[s] for s in read]) if read else (x, False)
            padded += mixed
            height, width = picks[f"layer{number}/height"], picks[f"layer{number}/width"]
            out = F.conv2d(
                joined,
                layer.conv.weight,
                stride=(
                    picks[f"layer{number}/stride_height"],
                    picks[f"layer{number}/stride_width"],
                ),
                padding=(height // 2, width // 2),
            )
            outputs.append(torch.relu(out / (1 + layer.norm.eps) ** 0.5))
        joined, mixed = joined_by_hand([outputs[s] for s in sorted(unread)])
        padded += mixed
        expected = model.head[1](joined.mean(dim=(2, 3)))
        torch.testing.assert_close(model(x), expected)
    assert padded > 5


def joined_by_hand(maps):
    height, width = (max(m.shape[axis] for m in maps) for axis in (2, 3))
    joined = torch.zeros(2, sum(m.shape[1] for m in maps), height, width)
    start = 0
    for m in maps:
        joined[:, start : start + m.shape[1], : m.shape[2], : m.shape[3]] = m
        start += m.shape[1]
    return joined, len({m.shape[2:] for m in maps}) > 1


def test_costs_of_the_papers_size():
    space = NasRl()
    rng = np.random.default_rng(0)
    for _ in range(3):
        arch = sample(space, rng)
        picks = arch.as_dict()
        filters = [picks[f"layer{i}/filters"] for i in range(15)]
        read = [[s for s in range(i) if picks[f"layer{i}/from{s}"]] for i in range(15)]
        weights = sum(
            picks[f"layer{i}/height"]
            * picks[f"layer{i}/width"]
            * filters[i]
            * (sum(filters[s] for s in read[i]) or 3)
            for i in range(15)
        )
        last = sum(filters[i] for i in range(15) if not any(i in several for several in read))
        with torch.device("meta"):
            found = cost(network(space, arch), space.input)
        assert found.parameters == weights + 2 * sum(filters) + 10 * last + 10
        assert found.macs == 1024 * weights + 10 * last


# ------------------------------------------------------------------------ order and graphs


def orders(sources):
    """Every order in which a layer comes after those it reads."""
    for order in itertools.permutations(range(len(sources))):
        place = {layer: index for index, layer in enumerate(order)}
        if all(place[s] < place[layer] for layer in place for s in sources[layer]):
            yield place


@pytest.mark.parametrize(
    # With one shape they are the unlabelled acyclic graphs of so many vertices (OEIS A003087).
    ("layers", "heights", "forms"),
    [(1, (1,), 1), (2, (1,), 2), (3, (1,), 6), (4, (1,), 31), (5, (1,), 302), (4, (1, 3), None)],
)
def test_networks_that_differ_in_order_alone_have_one_form(layers, heights, forms):
    space = NasRl(layers=layers, heights=heights, widths=(1,), filters=(2,))
    classes, found = set(), {}
    for arch in enumerate_architectures(space):
        picks = arch.as_dict()
        shapes = [picks[f"layer{i}/height"] for i in range(layers)]
        sources = [[s for s in range(i) if picks[f"layer{i}/from{s}"]] for i in range(layers)]
        smallest = min(
            tuple(
                (shapes[layer], tuple(sorted(place[s] for s in sources[layer])))
                for layer in sorted(place, key=place.__getitem__)
            )
            for place in orders(sources)
        )
        classes.add(smallest)
        canonical = space.canonical(arch)
        validate(space, canonical)
        assert found.setdefault(smallest, canonical) == canonical
    assert len(set(found.values())) == len(classes)
    assert forms is None or len(classes) == forms


def of_sources(space, sources):
    shape = {"height": 1, "width": 1, "filters": 2}
    return picks_of(space, [shape] * space.layers, sources)


NOTHING = ()
SYMMETRIC = {
    "alone": [NOTHING] * 14,
    "pairs": [NOTHING] * 7 + [(i,) for i in range(7)],
    "triples": [(i - 1,) if i % 3 else NOTHING for i in range(14)],
    "one ring": [NOTHING] * 7 + [tuple(sorted((i, (i + 1) % 7))) for i in range(7)],
    # Layer by layer like one ring: only the whole tells them apart.
    "two rings": [NOTHING] * 7
    + [tuple(sorted((i, (i + 1) % 3))) for i in range(3)]
    + [tuple(sorted((3 + i, 3 + (i + 1) % 4))) for i in range(4)],
    "all but one": [NOTHING] * 7 + [tuple(j for j in range(7) if j != i) for i in range(7)],
}


@pytest.mark.slow
def test_symmetric_networks_have_one_form_each():
    space = NasRl(layers=14, heights=(1,), widths=(1,), filters=(2,))
    rng = np.random.default_rng(0)
    forms = set()
    for sources in SYMMETRIC.values():
        canonical = space.canonical(of_sources(space, sources))
        forms.add(canonical)
        for _ in range(4):
            order = []
            while len(order) < 14:
                ready = [i for i in range(14) if i not in order and set(sources[i]) <= set(order)]
                order.append(int(rng.choice(ready)))
            moved = [sorted(order.index(s) for s in sources[layer]) for layer in order]
            assert space.canonical(of_sources(space, moved)) == canonical
    assert len(forms) == len(SYMMETRIC)


def test_canonical_network_computes_the_same():
    rng = np.random.default_rng(3)
    moved = 0
    for seed in range(25):
        arch = sample(SMALL, rng)
        canonical = SMALL.canonical(arch)
        torch.manual_seed(seed)
        one, other = network(SMALL, arch).eval(), network(SMALL, canonical).eval()
        x = torch.randn(2, *SMALL.input)
        moved += arch != canonical
        # Of all orders one turns the network into its canonical form: weights moved along.
        assert any(
            torch.allclose(relisted(one, other, place)(x), one(x), rtol=1e-4, atol=1e-6)
            for place in orders(one.sources)
            if all(
                other.sources[place[layer]] == tuple(sorted(place[s] for s in sources))
                and other.layers[place[layer]].conv.weight.shape
                == one.layers[layer].conv.weight.shape
                for layer, sources in enumerate(one.sources)
            )
        )
    assert moved > 5


def relisted(one, other, place):
    """``other`` with the weights of ``one``, whose layers are at other places."""

    def reordered(weight, sources):
        """Blocks of input channels in the order of the sources' new places."""
        if not sources:
            return weight
        sizes = [one.layers[s].c_out for s in sources]
        blocks = dict(zip(sources, weight.split(sizes, dim=1), strict=True))
        return torch.cat([blocks[s] for s in sorted(sources, key=place.__getitem__)], dim=1)

    with torch.no_grad():
        for layer, sources in enumerate(one.sources):
            given = one.layers[layer].conv.weight
            other.layers[place[layer]].conv.weight.copy_(reordered(given, sources))
        other.head[1].weight.copy_(reordered(one.head[1].weight, one.ends))
        other.head[1].bias.copy_(one.head[1].bias)
    return other


def test_graph_of_a_network():
    shape = {"height": 3, "width": 5, "stride_height": 1, "stride_width": 2, "filters": 2}
    arch = picks_of(SMALL, [shape] * 4, [(), (), (0, 1), (0,)])
    graph = SMALL.graphs(arch)["network"]
    assert graph.operations == ("input", *["conv_k3x5_o2_s1x2"] * 4, "output")
    assert graph.links == {(0, 1), (0, 2), (1, 3), (2, 3), (1, 4), (3, 5), (4, 5)}
    assert max(map(len, paths(graph))) == 2
    assert len(set(SMALL.graph_operations)) == 4 * 4 * 2 * 2 * 2
    chain = picks_of(SMALL, [shape] * 4, [(), (0,), (1,), (2,)])
    assert max(map(len, paths(SMALL.graphs(chain)["network"]))) == SMALL.longest_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"heights": (2,)}, "heights must be odd"),
        ({"widths": ()}, "widths must be positive"),
        ({"filters": (0,)}, "filters"),
        ({"strides": (-1,)}, "strides"),
        ({"filters": (8, 8)}, "equal options"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises((ConfigError, ValueError), match=says):
        NasRl(**arguments)


def test_exported_networks_run_alone(tmp_path):
    export_and_run(SMALL, tmp_path)

"""NAS-Bench-101: published counts and hashes, which cells are equal, and how they are written."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from exporting import assert_clean, isolated, randomised
from torch import nn

from nas.builder import FixedBuilder
from nas.cost import count as cost
from nas.encoding import path_encoding
from nas.export import export
from nas.points import published
from nas.space import count, enumerate_architectures, from_picks, network, parse, sample, validate
from nas.testing import SpaceContract
from search_spaces.nasbench101 import NasBench101
from search_spaces.nasbench101_cells import (
    OPERATIONS,
    cell_hash,
    edges,
    smallest_form,
    taking_part,
    vertex_channels,
)

TINY = NasBench101(channels=6, stacks=2, cells=1, classes=4, input=(3, 7, 6))
# The first cell of the benchmark's own table, with its hash and its number of parameters, as
# printed in the documentation of several projects that read it.
FIRST = (
    [
        [0, 1, 0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    ["input", *(OPERATIONS[i] for i in (0, 2, 0, 0, 1)), "output"],
)
FIRST_HASH = "00005c142e6f48ac74fdcf73e3439874"


class TestNasBench101(SpaceContract):
    def space(self):
        return TINY

    def small(self):
        return NasBench101(channels=4, stacks=1, cells=1, vertices=4, links=5)


class TestNasBench101OfOneStack(SpaceContract):
    networks = 4

    def space(self):
        return NasBench101(
            channels=5, stacks=1, cells=2, vertices=5, links=6, input=(1, 5, 5), classes=3
        )

    def small(self):
        return NasBench101(channels=4, stacks=1, cells=1, vertices=5, links=4)


# ------------------------------------------------------------------------- published numbers


def test_parameters_of_the_benchmarks_networks():
    # 2,694,282: the example in the benchmark's code. MACs are ours.
    for arch, parameters, macs in (
        (published("nasbench101:inception")[1], 2_694_282, 402_002_944),
        (parse(NasBench101(), f"{FIRST[0]} {FIRST[1]}"), 8_555_530, 1_261_835_264),
    ):
        space = NasBench101()
        with torch.device("meta"):
            model = network(space, arch)
        found = cost(model, space.input)
        assert (found.parameters, found.macs) == (parameters, macs)


def test_hash_of_the_benchmarks_first_cell():
    assert cell_hash(*FIRST) == FIRST_HASH
    space = NasBench101()
    assert space.cell_hash(parse(space, f"ModelSpec(matrix={FIRST[0]}, ops={FIRST[1]})")) == (
        FIRST_HASH
    )


# What compute_vertex_channels of the benchmark's code is tested to give.
@pytest.mark.parametrize(
    ("vertices", "links", "c_out", "expected"),
    [
        (4, [(0, 1), (1, 2), (2, 3)], 16, [16, 16]),
        (5, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)], 8, [8, 8, 8]),
        (4, [(0, 1), (0, 2), (1, 3), (2, 3)], 15, [8, 7]),
        (5, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)], 8, [3, 3, 2]),
        (5, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)], 9, [5, 5, 4]),
        (5, [(0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4)], 15, [8, 7, 7]),
        (2, [(0, 1)], 5, []),
    ],
)
def test_vertex_channels(vertices, links, c_out, expected):
    channels = vertex_channels(frozenset(links), range(vertices), c_out)
    assert [channels[vertex] for vertex in range(1, vertices - 1)] == expected


# ------------------------------------------------------------------------- how many there are


def whole_cells(vertices, most=9):
    """All links of cells of which every vertex takes part, found without the space."""
    for number in range(2 ** len(edges(vertices))):
        links = [edge for i, edge in enumerate(edges(vertices)) if number >> i & 1]
        if len(links) <= most and (
            {source for source, _ in links} == set(range(vertices - 1))
            and {target for _, target in links} == set(range(1, vertices))
        ):
            yield frozenset(links)


def distinct(vertices):
    """The forms of all cells with so many vertices and at most 9 links."""
    labels = list(itertools.product(range(3), repeat=vertices - 2))
    return {
        smallest_form(links, label, vertices) for links in whole_cells(vertices) for label in labels
    }


def hash_of(links, label, vertices):
    matrix = [[int((u, v) in links) for v in range(vertices)] for u in range(vertices)]
    return cell_hash(matrix, ["input", *(OPERATIONS[i] for i in label), "output"])


@pytest.mark.parametrize(("vertices", "number"), [(2, 1), (3, 6), (4, 84), (5, 2441)])
def test_distinct_cells_of_few_vertices(vertices, number):
    # The benchmark's 423,624 cells by their vertices begin like this.
    forms = distinct(vertices)
    assert len(forms) == number
    assert len({hash_of(links, label, vertices) for links, label in forms}) == number


def test_distinct_cells_equal_a_search_by_permutation():
    # Written without the space: two cells are one if a permutation maps one to the other.
    classes = []
    for links in whole_cells(4):
        for label in itertools.product(range(3), repeat=2):
            swapped = {0: 0, 1: 2, 2: 1, 3: 3}
            other = frozenset((swapped[u], swapped[v]) for u, v in links)
            if (other, label[::-1]) not in classes:
                classes.append((links, label))
    assert len(classes) == 84


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_there_are_423624_distinct_cells():
    counts, hashes = [], set()
    for vertices in range(2, 8):
        forms = distinct(vertices)
        counts.append(len(forms))
        # Hash and isomorphism agree: different forms have different hashes.
        hashes |= {hash_of(links, label, vertices) for links, label in forms}
    assert counts == [1, 6, 84, 2441, 62010, 359082]
    assert len(hashes) == sum(counts) == 423624


def test_size_counts_the_sequences_of_picks():
    assert NasBench101().size() == 9_100_558
    space = NasBench101(vertices=4, links=4)
    assert space.size() == sum(1 for _ in enumerate_architectures(space))


# --------------------------------------------------------------------------------- legality


def test_every_cell_is_connected_and_has_at_most_nine_links():
    rng = np.random.default_rng(0)
    space = NasBench101()
    ways = Counter()
    for draw in (lambda: sample(space, rng), lambda: space.sample_uniformly(rng)):
        for _ in range(300):
            arch = draw()
            validate(space, arch)
            matrix = np.zeros((7, 7), dtype=int)
            for u, v in edges(7):
                matrix[u, v] = arch[f"{u}->{v}"]
            assert matrix.sum() <= 9
            reach = np.linalg.matrix_power(matrix + np.eye(7, dtype=int), 6) > 0
            assert reach[0, 6]
            inner = [v for v in range(1, 6) if reach[0, v] and reach[v, 6]]
            assert [label for label in arch if label.startswith("op")] == [f"op{v}" for v in inner]
            ways[len(inner)] += 1
    assert set(ways) == set(range(6))


def test_no_link_is_refused_that_leads_on():
    # Exhaustive for a small space: every connected matrix with few enough links is reached.
    space = NasBench101(vertices=5, links=4)
    matrices = {tuple(v for k, v in a.picks if "->" in k) for a in enumerate_architectures(space)}
    expected = set()
    for bits in itertools.product((0, 1), repeat=10):
        links = {edge for edge, bit in zip(edges(5), bits, strict=True) if bit}
        reached = {0}
        for _ in range(4):
            reached |= {v for u, v in links if u in reached}
        if 4 in reached and len(links) <= 4:
            expected.add(bits)
    assert matrices == expected


def test_sample_uniformly_is_uniform():
    space = NasBench101(vertices=4, links=4)
    every = list(enumerate_architectures(space))
    assert count(space) == len(every)
    rng = np.random.default_rng(0)
    n = 40 * len(every)
    seen = Counter(space.sample_uniformly(rng) for _ in range(n))
    assert set(seen) == set(every)
    statistic = sum((seen[arch] - 40) ** 2 / 40 for arch in every)
    freedom = len(every) - 1
    # Chi-square is about normal here: 4 standard deviations either way.
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


# ------------------------------------------------------------------------------ equal cells


def shuffled(space, arch, rng):
    """The same cell with its vertices in another order and unused ones among them."""
    links = {edge for edge in edges(7) if arch["{}->{}".format(*edge)]}
    kept = taking_part(frozenset(links), 7)
    while True:
        places = sorted(rng.choice(np.arange(1, 6), size=len(kept) - 2, replace=False).tolist())
        order = rng.permutation(np.array(kept[1:-1], dtype=int)).tolist()
        place = {0: 0, 6: 6} | dict(zip(order, places, strict=True))
        moved = {(place[u], place[v]) for u, v in links if u in kept and v in kept}
        if all(u < v for u, v in moved):
            break
    picks = {f"{u}->{v}": int((u, v) in moved) for u, v in edges(7)}
    return from_picks(space, picks | {f"op{place[v]}": arch[f"op{v}"] for v in kept[1:-1]}), place


def test_isomorphic_cells_have_one_form_and_one_hash():
    rng = np.random.default_rng(0)
    space, changed = NasBench101(), 0
    for _ in range(200):
        arch = space.sample_uniformly(rng)
        other, _ = shuffled(space, arch, rng)
        changed += other != arch
        assert space.canonical(other) == space.canonical(arch)
        assert space.cell_hash(other) == space.cell_hash(arch)
        assert space.cell_hash(space.canonical(arch)) == space.cell_hash(arch)
        assert (path_encoding(space, other) == path_encoding(space, arch)).all()
    assert changed > 150


def test_canonical_form_is_the_least_of_all_orders():
    rng = np.random.default_rng(1)
    space = NasBench101(vertices=5)
    for _ in range(100):
        arch = space.sample_uniformly(rng)
        matrix, operations = space.model_spec(arch)
        n = len(matrix)
        forms = []
        for order in itertools.permutations(range(1, n - 1)):
            old = [0, *order, n - 1]
            moved = [[matrix[old[u]][old[v]] for v in range(n)] for u in range(n)]
            if not np.tril(moved).any():
                bits = [moved[u][v] for u, v in edges(n)]
                forms.append((bits, [OPERATIONS.index(operations[o]) for o in order], moved))
        _, least, moved = min(forms)
        found = space.model_spec(space.canonical(arch))
        assert found == (moved, ["input", *(OPERATIONS[i] for i in least), "output"])


def test_isomorphic_cells_compute_the_same():
    # 60 channels divide evenly among up to five vertices.
    space = NasBench101(channels=60, stacks=1, cells=1, classes=3, input=(2, 5, 5))
    rng = np.random.default_rng(3)
    moved = 0
    for _ in range(25):
        arch = space.sample_uniformly(rng)
        other, place = shuffled(space, arch, rng)
        one, two = network(space, arch).eval(), network(space, other).eval()
        one.load_state_dict(randomised(one, seed=0))
        cell, twin = one[1][0], two[1][0]
        for vertex, operation in cell.operations.items():
            twin.operations[str(place[int(vertex)])].load_state_dict(operation.state_dict())
        for vertex, projection in cell.projections.items():
            twin.projections[str(place[int(vertex)])].load_state_dict(projection.state_dict())
        two[0].load_state_dict(one[0].state_dict())
        two[3].load_state_dict(one[3].state_dict())
        # What reads the concatenation reads its parts in the other order.
        joined = [v for v in cell.inputs[-1] if v]
        width = 60 // max(1, len(joined))
        order = sorted(range(len(joined)), key=lambda i: place[joined[i]])
        channels = [i * width + c for i in order for c in range(width)]
        if joined:
            moved += order != sorted(order)
            with torch.no_grad():
                two[3].weight.copy_(one[3].weight[:, channels])
            if "6" in twin.projections:
                _permute(twin.projections["6"], channels)
        x = torch.randn(2, *space.input)
        with torch.no_grad():
            torch.testing.assert_close(two(x), one(x), rtol=1e-4, atol=1e-4)
    assert moved > 3


def _permute(projection, channels):
    with torch.no_grad():
        norm = projection.norm
        for tensor in (projection.conv.weight, norm.weight, norm.bias):
            tensor.copy_(tensor[channels].clone())
        for tensor in (norm.running_mean, norm.running_var):
            tensor.copy_(tensor[channels].clone())


# ---------------------------------------------------------------------------------- networks


def test_network_is_what_was_picked():
    space = NasBench101(channels=10, stacks=2, cells=1, classes=4)
    arch = parse(space, "3x3~0 pool~1 1x1~0 - 3x3~2+3 out~0+1+3+5")
    cell = network(space, arch)[1][2]
    # 20 channels among vertices 1, 3 and 5: 7, 7 and 6; vertex 2 is as wide as vertex 5.
    assert cell.channels == (7, 6, 7, 0, 6, 20)
    convolutions = {
        name: (m.in_channels, m.out_channels, m.kernel_size[0])
        for name, m in cell.named_modules()
        if isinstance(m, nn.Conv2d)
    }
    assert convolutions == {
        "projections.1.conv": (10, 7, 1),
        "projections.3.conv": (10, 7, 1),
        "projections.6.conv": (10, 20, 1),
        "operations.1.conv": (7, 7, 3),
        "operations.3.conv": (7, 7, 1),
        "operations.5.conv": (6, 6, 3),
    }


def test_forward_equals_the_definition():
    space = NasBench101(channels=7, stacks=1, cells=1)
    arch = parse(space, "3x3~0 pool~1 1x1~0+1 3x3~2+3 out~0+1+4")
    cell = network(space, arch)[1][0].eval()
    x = torch.randn(2, 7, 6, 6)
    projection, operation = cell.projections, cell.operations
    v1 = operation["1"](projection["1"](x))
    v2 = nn.functional.max_pool2d(v1[:, :3], 3, 1, 1)
    v3 = operation["3"](projection["3"](x) + v1[:, :3])
    v4 = operation["4"](v2 + v3)
    expected = torch.cat([v1, v4], dim=1) + projection["6"](x)
    torch.testing.assert_close(cell(x), expected)


def test_weights_of_a_vertex_have_one_name_in_all_architectures():
    builder = FixedBuilder(TINY, parse(TINY, "- 3x3~0 - - - out~2"))
    names = builder.shared_names(TINY.build(builder))
    assert "1.0.operations.2.conv3x3-bn-relu.conv.weight" in names.values()


DRIVER = """
import runpy, sys, torch
x = torch.load("x.pt", weights_only=True)
outputs = []
for number in range(5):
    made = runpy.run_path(f"{number}/model.py")
    model = made["build"]().eval()
    model.load_state_dict(made["load"](f"{number}/model.safetensors"))
    outputs.append(model(x).detach())
assert not {"nas", "search_spaces"} & {name.split(".")[0] for name in sys.modules}
torch.save(outputs, "out.pt")
"""


def test_exported_networks_run_alone(tmp_path):
    rng = np.random.default_rng(5)
    x = torch.randn(2, *TINY.input, generator=torch.Generator().manual_seed(1))
    torch.save(x, tmp_path / "x.pt")
    expected = []
    for number in range(5):
        arch = TINY.sample_uniformly(rng)
        model = network(TINY, arch).eval()
        weights = randomised(model, seed=number)
        model.load_state_dict(weights)
        export(TINY, arch, tmp_path / str(number), weights)
        with torch.no_grad():
            expected.append(model(x))
    assert_clean(tmp_path)
    done = isolated("-c", DRIVER, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(map(torch.equal, outputs, expected))

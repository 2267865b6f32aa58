"""Hierarchical motifs and the flat graph: legality at each level, counts, equal networks."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from exporting import assert_clean, isolated, randomised
from torch import nn

from nas.cost import count as cost
from nas.encoding import HasGraphs, HasPaths, graph_of_edges, path_encoding, paths
from nas.errors import ConfigError, UnsupportedRequest
from nas.export import export
from nas.space import count, enumerate_architectures, from_picks, network, sample
from nas.testing import SpaceContract
from search_spaces.hierarchical import FlatMotif, Hierarchical
from search_spaces.hierarchical_graphs import PRIMITIVES, count_connected

TINY = Hierarchical(channels=3, motifs=3, motif_nodes=3, nodes=4, classes=4, input=(2, 9, 6))


class TestHierarchical(SpaceContract):
    networks = 4

    def space(self):
        return TINY

    def small(self):
        return Hierarchical(motifs=1, motif_nodes=3, nodes=3)


class TestTwoCellsAStage(SpaceContract):
    networks = 3

    def space(self):
        return Hierarchical(channels=2, cells=2, motifs=2, nodes=3, input=(1, 5, 5))


class TestFlatMotif(SpaceContract):
    networks = 4

    def space(self):
        return FlatMotif(channels=2, nodes=5, input=(2, 8, 7))

    def small(self):
        return FlatMotif(nodes=3)


# ------------------------------------------------------------------------------- the space


def test_the_papers_sizes():
    space = Hierarchical()
    assert (space.motifs, space.motif_nodes, space.nodes) == (6, 4, 5)
    assert len(space.choices) == 6 * 6 + 10
    assert len(FlatMotif().choices) == 55
    motif = count_connected(4, 6)
    assert space.size() == motif**6 * count_connected(5, 6)
    assert FlatMotif().size() == count_connected(11, 6)


@pytest.mark.parametrize(("nodes", "operations"), [(2, 6), (3, 6), (4, 2), (4, 6), (5, 1)])
def test_count_of_connected_graphs(nodes, operations):
    edges = [(s, t) for t in range(1, nodes) for s in range(t)]
    connected = 0
    for present in itertools.product((False, True), repeat=len(edges)):
        matrix = np.eye(nodes, dtype=int)
        for (s, t), there in zip(edges, present, strict=True):
            matrix[s, t] = there
        if np.linalg.matrix_power(matrix, nodes)[0, -1]:
            connected += operations ** sum(present)
    assert count_connected(nodes, operations) == connected


def test_every_graph_leads_from_input_to_output():
    rng = np.random.default_rng(0)
    for space in (Hierarchical(), FlatMotif(nodes=6)):
        absent = Counter()
        for _ in range(100):
            arch = sample(space, rng)
            for graph in space.graphs(arch).values():
                assert paths(graph)
            absent.update(label for label, option in arch.picks if option == "none")
        # Only an edge that is the last hope is never none.
        assert len(absent) > 0.7 * len(space.choices)


def test_a_link_is_refused_only_where_the_output_would_be_cut_off():
    space = FlatMotif(nodes=4)
    edges = ["0->1", "0->2", "1->2", "0->3", "1->3", "2->3"]
    seen = {
        tuple(arch[f"cell/{edge}"] != "none" for edge in edges)
        for arch in enumerate_architectures(FlatMotif(nodes=4))
        if set(arch.as_dict().values()) <= {"none", "identity"}
    }
    expected = {
        (a, b, c, d, e, f)
        for a, b, c, d, e, f in itertools.product((False, True), repeat=6)
        if d or (a and e) or (b and f) or (a and c and f)
    }
    assert seen == expected
    assert count(space) == sum(6 ** sum(bits) for bits in expected)


def test_samples_cover_all_options_and_are_uniform_where_nothing_is_refused():
    rng = np.random.default_rng(0)
    space = Hierarchical(motifs=2)
    archs = [sample(space, rng) for _ in range(4000)]
    # The first edge of a motif is free.
    seen = Counter(arch["motif1/0->1"] for arch in archs)
    expected = len(archs) / 7
    statistic = sum((n - expected) ** 2 / expected for n in seen.values())
    assert set(seen) == {"none", *PRIMITIVES}
    assert statistic < 28  # chi-square with 6 degrees of freedom: above with probability 1e-4


# ------------------------------------------------------------------------------ equal networks


def test_canonical_network_computes_the_same():
    rng = np.random.default_rng(1)
    changed = 0
    for space in (TINY, FlatMotif(channels=2, nodes=5, input=(2, 8, 7))):
        for _ in range(25):
            arch = sample(space, rng)
            canonical = space.canonical(arch)
            changed += canonical != arch
            one, other = network(space, arch).eval(), network(space, canonical).eval()
            weights = randomised(one, seed=0)
            one.load_state_dict(weights)
            # Motifs are numbered anew, but the places of their tensors stay.
            other.load_state_dict(weights)
            x = torch.randn(2, *space.input)
            with torch.no_grad():
                assert torch.equal(one(x), other(x))
    assert changed > 25


def motif(number, **edges):
    names = {"a": "0->1", "b": "0->2", "c": "1->2"}
    return {f"motif{number}/{names[edge]}": option for edge, option in edges.items()}


def cell(*options):
    edges = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
    return {f"cell/{edge}": option for edge, option in zip(edges, options, strict=True)}


def test_canonical_form_by_example():
    arch = from_picks(
        TINY,
        {
            **motif(1, a="conv_1x1", b="none", c="identity"),
            **motif(2, a="conv_1x1", b="max_pool_3x3", c="none"),
            **motif(3, a="none", b="max_pool_3x3", c="identity"),
            # 0->1 by motif 3 and on by motif 2, which is the same; 0->2 leads nowhere.
            **cell("motif3", "motif1", "none", "motif1", "motif2", "none"),
        },
    )
    assert TINY.canonical(arch) == from_picks(
        TINY,
        {
            **motif(1, a="none", b="max_pool_3x3", c="none"),
            **motif(2, a="conv_1x1", b="none", c="identity"),
            **motif(3, a="none", b="identity", c="none"),
            **cell("motif1", "none", "none", "motif2", "motif1", "none"),
        },
    )


# ---------------------------------------------------------------------------------- networks


def test_nodes_concatenate_and_motifs_come_back_to_the_width_of_their_input():
    arch = from_picks(
        TINY,
        {
            **motif(1, a="identity", b="conv_1x1", c="separable_conv_3x3"),
            **motif(2, a="max_pool_3x3", b="avg_pool_3x3", c="depthwise_conv_3x3"),
            **motif(3, a="none", b="identity", c="none"),
            **cell("motif1", "motif2", "motif3", "none", "none", "motif1"),
        },
    )
    made = network(TINY, arch).eval()
    made.load_state_dict(randomised(made, seed=0))
    graph = made[1][0]
    x = torch.randn(2, 3, 6, 5)

    def run(motif, x):
        inner, reduce = motif
        return reduce(torch.cat(inner_edges(inner.edges, x), dim=1))

    def inner_edges(edges, x):
        first = edges["0_1"](x) if "0_1" in edges else None
        terms = [edges["0_2"](x)]
        return terms if first is None else [*terms, edges["1_2"](first)]

    edges = graph.edges
    assert set(edges) == {"0_1", "0_2", "1_2", "2_3"}
    node2 = torch.cat([run(edges["0_2"], x), run(edges["1_2"], run(edges["0_1"], x))], dim=1)
    assert node2.shape[1] == 6
    expected = run(edges["2_3"], node2)
    assert expected.shape[1] == 6
    torch.testing.assert_close(graph(x), expected)
    # The last motif takes 6 channels; its convolutions give the stage's 3.
    inner = edges["2_3"][0].edges
    assert (inner["0_2"].c_in, inner["0_2"].c_out) == (6, 3)
    assert isinstance(inner["0_1"], nn.Identity)
    assert (inner["1_2"].c_in, inner["1_2"].c_out) == (6, 3)
    assert (made[1][1].c_in, made[1][1].c_out, made[1][1].stride) == (6, 6, 2)
    assert (made[1][5].c_out, made[1][5].stride) == (12, 1)


def test_placements_of_a_motif_share_no_weights():
    arch = from_picks(
        TINY,
        {
            **motif(1, a="none", b="separable_conv_3x3", c="none"),
            **motif(2, a="none", b="identity", c="none"),
            **motif(3, a="none", b="identity", c="none"),
            **cell("motif1", "none", "none", "none", "motif1", "none"),
        },
    )
    first, second = network(TINY, arch)[1][0].edges.values()
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_parameters_and_macs_in_closed_form():
    # A cell of one edge, whose motif is a separable convolution: at width c it has
    # 9c + c² + 2c, its reduction c² + 2c, and the separable convolution after it likewise.
    space = Hierarchical()
    picks = {choice.label: "none" for choice in space.choices}
    picks |= {f"motif{number}/0->3": "identity" for number in range(1, 7)}
    picks |= {"motif2/0->3": "separable_conv_3x3", "cell/0->4": "motif2"}
    found = cost(network(space, from_picks(space, picks)), space.input)
    parameters = macs = 0
    for c, c_out, side, side_out in ((16, 32, 32, 16), (32, 64, 16, 8), (64, 64, 8, 8)):
        motif_weights = 9 * c + c * c + c * c
        parameters += motif_weights + 2 * c + 2 * c + 9 * c + c * c_out + 2 * c_out
        macs += motif_weights * side**2 + (9 * c + c * c_out) * side_out**2
    stem = 9 * 3 * 16
    assert found.parameters == parameters + stem + 2 * 16 + 64 * 10 + 10
    assert found.macs == macs + stem * 32**2 + 64 * 10


def test_graphs_show_motifs_and_cell_and_have_no_bounded_paths():
    arch = sample(TINY, np.random.default_rng(0))
    graphs = TINY.graphs(arch)
    assert list(graphs) == ["motif1", "motif2", "motif3", "cell"]
    assert graphs["cell"].operations[1:-1] == tuple(
        option for label, option in arch.picks if label.startswith("cell/")
    )
    assert graphs["motif1"] == graph_of_edges(
        {(s, t): arch[f"motif1/{s}->{t}"] for s, t in ((0, 1), (0, 2), (1, 2))}
    )
    assert isinstance(TINY, HasGraphs)
    assert not isinstance(TINY, HasPaths)
    with pytest.raises(UnsupportedRequest, match="does not bound its paths"):
        path_encoding(TINY, arch)
    assert path_encoding(TINY, arch, longest=2).shape == (4 * (1 + 9 + 81),)


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
        arch = sample(TINY, rng)
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


@pytest.mark.parametrize(
    ("space", "arguments", "says"),
    [
        (Hierarchical, {"channels": 0}, "hierarchical: channels must be at least 1, got 0"),
        (Hierarchical, {"cells": 0}, "cells"),
        (Hierarchical, {"classes": 0}, "classes"),
        (Hierarchical, {"motifs": 0}, "motifs"),
        (Hierarchical, {"motif_nodes": 1}, "motif_nodes must be at least 2"),
        (Hierarchical, {"nodes": 1}, "nodes"),
        (Hierarchical, {"input": (3, 8)}, r"\(3, 8\)"),
        (FlatMotif, {"nodes": 1}, "hierarchical_flat: nodes must be at least 2"),
        (FlatMotif, {"input": (8,)}, r"\(8,\)"),
    ],
)
def test_arguments_are_refused(space, arguments, says):
    with pytest.raises(ConfigError, match=says):
        space(**arguments)

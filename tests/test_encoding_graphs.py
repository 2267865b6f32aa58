"""Encodings of cells: exact examples, refusals, and what each shows of a graph."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nas.encoding import (
    CellGraph,
    HasGraphs,
    HasPaths,
    adjacency,
    graph_tensors,
    path_count,
    path_encoding,
    paths,
)
from nas.encoding.graphs import MOST_PATHS
from nas.errors import InvalidArchitecture, NasError, UnsupportedRequest
from nas.space import from_picks, parse, sample
from nas.testing.toys import NestedSpace
from search_spaces.nasbench201 import NasBench201

NESTED = NestedSpace()
SHALLOW = from_picks(NESTED, {"depth": 1, "width0": 4, "activation": "tanh"})
NB201 = NasBench201(channels=2, cells=1)
CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


@pytest.mark.parametrize("encode", [adjacency, graph_tensors, path_encoding])
def test_an_architecture_of_another_space_is_not_encoded(encode):
    with pytest.raises(InvalidArchitecture, match="nested/v1"):
        encode(NB201, SHALLOW)


@pytest.mark.parametrize("encode", [adjacency, graph_tensors, path_encoding])
def test_a_space_without_cells_has_no_cell_encoding(encode):
    assert not isinstance(NESTED, HasGraphs)
    with pytest.raises(UnsupportedRequest, match="'nested/v1' is not made of cells"):
        encode(NESTED, SHALLOW)


@pytest.mark.parametrize(
    ("operations", "links", "says"),
    [
        (("input",), set(), "begin with 'input'"),
        (("conv", "output"), set(), "begin with 'input'"),
        (("input", "conv"), set(), "end with 'output'"),
        (("input", "conv", "output"), {(1, 0)}, r"\(1, 0\)"),
        (("input", "conv", "output"), {(1, 1)}, r"\(1, 1\)"),
        (("input", "conv", "output"), {(0, 3)}, r"\(0, 3\)"),
        (("input", "conv", "output"), {(-1, 2)}, r"\(-1, 2\)"),
    ],
)
def test_cell_graphs_check_themselves(operations, links, says):
    with pytest.raises(NasError, match=says):
        CellGraph(operations, frozenset(links))


def test_paths_of_a_graph_with_a_direct_link():
    graph = CellGraph(
        ("input", "a", "b", "none", "output"),
        frozenset({(0, 4), (0, 1), (1, 2), (2, 4), (1, 4), (0, 3), (3, 4)}),
    )
    assert paths(graph) == {(), ("a",), ("a", "b")}


def test_adjacency_of_a_nasbench201_cell():
    arch = parse(NB201, CELL)
    ((matrix, operations),) = adjacency(NB201, arch).values()
    assert matrix.shape == (8, 8)
    assert operations.shape == (8, 7)
    # Vertices: input, 0->1, 0->2, 1->2, 0->3, 1->3, 2->3, output; rows are where links start.
    assert [np.flatnonzero(row).tolist() for row in matrix] == [
        [1, 2, 4],
        [3, 5],
        [6],
        [6],
        [7],
        [7],
        [7],
        [],
    ]
    # Columns: input, output, none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
    assert operations.argmax(axis=1).tolist() == [0, 6, 4, 3, 4, 3, 2, 1]
    assert (operations.sum(axis=1) == 1).all()


def test_path_encoding_of_a_nasbench201_cell():
    vector = path_encoding(NB201, parse(NB201, CELL))
    assert vector.shape == (1 + 4 + 16 + 64,)
    # Without none, in the order skip, 1x1, 3x3, pool: [1x1] is 1 + 1; [pool, skip] is 5 + 3·4 + 0.
    assert np.flatnonzero(vector).tolist() == [2, 17]


def test_path_encoding_equals_a_walk_through_the_nodes():
    names = ["skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    ways = [way for length in range(4) for way in itertools.product(names, repeat=length)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        arch = sample(NB201, rng)
        present = set()
        for middle in ((), (1,), (2,), (1, 2)):
            nodes = (0, *middle, 3)
            present.add(tuple(arch[f"{a}->{b}"] for a, b in itertools.pairwise(nodes)))
        expected = [float(way in present) for way in ways]
        assert path_encoding(NB201, arch).tolist() == expected


def test_graph_tensors_of_a_nasbench201_cell():
    ((operations, edge_index),) = graph_tensors(NB201, parse(NB201, CELL)).values()
    assert operations.argmax(axis=1).tolist() == [0, 6, 4, 3, 4, 3, 2, 1]
    assert operations.dtype == np.float32
    assert edge_index.dtype == np.int64
    assert edge_index.flags.c_contiguous
    # Vertices as above: input to 0->1, 0->2 and 0->3, then each edge to those it leads to.
    assert edge_index.tolist() == [
        [0, 0, 0, 1, 1, 2, 3, 4, 5, 6],
        [1, 2, 4, 3, 5, 6, 6, 7, 7, 7],
    ]


class Misdescribed:
    """A space of cells that says less of them than it shows."""

    name = "misdescribed/v1"
    choices = NESTED.choices
    legal = NESTED.legal
    longest_path = 1
    graph_operations = ("a", "none")

    def __init__(self, *operations):
        self.operations = operations

    def graphs(self, arch):
        last = len(self.operations) + 1
        links = frozenset(itertools.pairwise(range(last + 1)))
        return {"cell": CellGraph(("input", *self.operations, "output"), links)}


def test_a_space_that_misdescribes_its_cells_is_named():
    arch = type(SHALLOW)(Misdescribed.name, SHALLOW.picks)
    assert path_encoding(Misdescribed("a"), arch).tolist() == [0, 1]
    with pytest.raises(UnsupportedRequest, match=r"'misdescribed/v1': the path \('a', 'a'\)"):
        path_encoding(Misdescribed("a", "a"), arch)
    with pytest.raises(UnsupportedRequest, match="'aa': did you mean 'a'"):
        adjacency(Misdescribed("aa"), arch)


def test_a_graph_without_links_has_no_edges():
    class Unlinked(Misdescribed):
        def graphs(self, arch):
            return {"cell": CellGraph(("input", "a", "output"), frozenset())}

    arch = type(SHALLOW)(Misdescribed.name, SHALLOW.picks)
    (graph,) = graph_tensors(Unlinked(), arch).values()
    assert graph.edge_index.shape == (2, 0)
    assert (adjacency(Unlinked(), arch)["cell"].matrix == 0).all()


def test_truncated_paths_are_the_beginning_of_all_paths():
    rng = np.random.default_rng(1)
    for _ in range(50):
        arch = sample(NB201, rng)
        whole = path_encoding(NB201, arch)
        for longest in range(5):
            part = path_encoding(NB201, arch, longest=longest)
            assert part.shape == (path_count(NB201, longest),)
            shared = min(len(part), len(whole))
            assert (part[:shared] == whole[:shared]).all()
            assert not part[shared:].any()


class Unbounded:
    """A space of cells with graphs of any length."""

    name = "unbounded/v1"
    choices = NESTED.choices
    legal = NESTED.legal
    graph_operations = ("a", "none", "b")

    def graphs(self, arch):
        links = frozenset(itertools.pairwise(range(42)))
        return {"cell": CellGraph(("input", *"ab" * 20, "output"), links)}


def test_paths_that_are_too_many_are_refused():
    space = Unbounded()
    arch = type(SHALLOW)(space.name, SHALLOW.picks)
    assert isinstance(space, HasGraphs)
    assert not isinstance(space, HasPaths)
    with pytest.raises(UnsupportedRequest, match="'unbounded/v1' does not bound its paths"):
        path_encoding(space, arch)
    assert not path_encoding(space, arch, longest=3).any()
    assert 2**19 - 1 < MOST_PATHS < 2**20 - 1
    with pytest.raises(UnsupportedRequest, match="1,048,575 paths of at most 19 operations"):
        path_encoding(space, arch, longest=19)
    with pytest.raises(UnsupportedRequest, match="at least 0, got -1"):
        path_encoding(space, arch, longest=-1)

"""Encodings: exact examples, refusals, and what each shows of a cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.encoding import (
    CellGraph,
    HasGraphs,
    adjacency,
    from_one_hot,
    from_ordinal,
    from_tokens,
    one_hot,
    ordinal,
    path_encoding,
    paths,
    tokens,
    vocabulary_size,
)
from nas.errors import InvalidArchitecture, NasError, UnsupportedRequest
from nas.space import enumerate_architectures, from_picks, parse, sample
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201

NESTED = NestedSpace()
SHALLOW = from_picks(NESTED, {"depth": 1, "width0": 4, "activation": "tanh"})
NB201 = NasBench201(channels=2, cells=1)
CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"


def test_examples_of_a_conditional_space():
    assert vocabulary_size(NESTED) == 12
    assert one_hot(NESTED, SHALLOW).tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert ordinal(NESTED, SHALLOW).tolist() == [0, 1, -1, -1, 1]
    assert tokens(NESTED, SHALLOW) == [0, 4, 11]


@pytest.mark.parametrize("space", [NESTED, FlatSpace(), Chain(depths=(1, 2))], ids=lambda s: s.name)
def test_encodings_agree_with_each_other(space):
    for arch in itertools.islice(enumerate_architectures(space), 300):
        assert np.flatnonzero(one_hot(space, arch)).tolist() == sorted(tokens(space, arch))
        active = [choice.label in arch for choice in space.choices]
        assert (ordinal(space, arch) >= 0).tolist() == active


ONE_HOT = one_hot(NESTED, SHALLOW)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (ONE_HOT[:-1], "one vector of 12 numbers"),
        (ONE_HOT[None], "shape"),
        (["a"] * 12, "numbers"),
        ([[1], [1, 2]], "one vector of 12 numbers"),
        (ONE_HOT * np.nan, "finite"),
        (ONE_HOT * 0.5, "0.5 at 'depth', expected 0 or 1"),
        (np.ones(12), "'depth' has 3 options at once: 1, 2, 3"),
        (np.zeros(12), "no pick for 'depth'"),
        (ONE_HOT + np.eye(12)[5], "'width1' is not active"),
    ],
)
def test_nonsense_is_not_one_hot(vector, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_one_hot(NESTED, vector)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ([0, 1, -1, -1], "one vector of 5 numbers"),
        ([0, 1, -1, -1, 2], "2 at 'activation', expected a whole number from 0 to 1"),
        ([0, 1, -1, -1, -2], "-2 at 'activation'"),
        ([0, 0.5, -1, -1, 0], "0.5 at 'width0'"),
        ([0, -1, -1, -1, 0], "no pick for 'width0'"),
        ([0, 1, 0, -1, 0], "'width1' is not active"),
        ([0, 1, None, -1, 0], "numbers"),
        ([0, 1, np.inf, -1, 0], "finite"),
    ],
)
def test_nonsense_is_not_ordinal(vector, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_ordinal(NESTED, vector)


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ([], "0 are too few, 'depth' is still open"),
        ([0, 4], "2 are too few, 'activation' is still open"),
        ([0, 4, 11, 11], "complete after 3, but 4 are given"),
        ([4, 0, 11], r"4 at position 0, expected one of \[0, 1, 2\] for 'depth'"),
        ([0, 4, 12], "12 at position 2"),
        ([0, 4, -1], "-1 at position 2"),
        ([0, 4, "tanh"], "'tanh' at position 2"),
        ([0, 4, [11]], "position 2"),
    ],
)
def test_nonsense_is_not_a_token_sequence(sequence, says):
    with pytest.raises(InvalidArchitecture, match=says):
        from_tokens(NESTED, sequence)


@given(st.lists(st.integers(-1, 12), max_size=6))
def test_any_token_sequence_is_an_architecture_or_refused(sequence):
    try:
        arch = from_tokens(NESTED, sequence)
    except InvalidArchitecture:
        return
    assert tokens(NESTED, arch) == sequence


def test_an_architecture_of_another_space_is_not_encoded():
    for encode in (one_hot, ordinal, tokens):
        with pytest.raises(InvalidArchitecture, match="nested/v1"):
            encode(FlatSpace(), SHALLOW)
    for encode in (adjacency, path_encoding):
        with pytest.raises(InvalidArchitecture, match="nested/v1"):
            encode(NB201, SHALLOW)


# ---------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("encode", [adjacency, path_encoding])
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

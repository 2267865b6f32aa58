"""The notations of NAS-Bench-101's cells, and its graphs."""

from __future__ import annotations

import numpy as np
import pytest

from nas.encoding import paths
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import parse, sample
from search_spaces.nasbench101 import NasBench101

SPACE = NasBench101(channels=8)
CONV3, CONV1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"


def test_matrix_and_compact_notation_mean_the_same():
    matrix = "[[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]"
    operations = f"['input', '{CONV3}', '{POOL}', 'output']"
    arch = parse(SPACE, "3x3~0 pool~0+1 out~1+2")
    for text in (
        f"{matrix} {operations}",
        f"{matrix}, {operations}",
        f"ModelSpec(matrix={matrix}, ops={operations})",
        f"api.ModelSpec(\n  matrix={matrix},\n  ops={operations},\n)".replace("'", '"'),
    ):
        assert parse(SPACE, text) == arch
    # The output is the last vertex of the space, whatever the matrix's size.
    assert SPACE.format(arch) == "3x3~0 pool~0+1 - - - out~1+2"
    assert SPACE.model_spec(arch) == (
        [[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        ["input", CONV3, POOL, "output"],
    )


def test_what_takes_no_part_is_written_and_read():
    text = "3x3~0 -~1 - pool~1 -~0+4 out~0+4"
    arch = parse(SPACE, text)
    assert [label for label in arch if label.startswith("op")] == ["op1", "op4"]
    assert SPACE.format(arch) == text
    assert SPACE.format(SPACE.canonical(arch)) == "3x3~0 pool~1 - - - out~0+2"


def test_model_spec_is_read_back_as_the_same_cell():
    rng = np.random.default_rng(0)
    for _ in range(50):
        arch = sample(SPACE, rng)
        matrix, operations = SPACE.model_spec(arch)
        again = parse(SPACE, f"{matrix} {operations}")
        assert SPACE.canonical(again) == SPACE.canonical(arch)


def test_links_that_lead_nowhere_are_left_out_only_where_there_are_too_many():
    def matrix(*links):
        return [[int((u, v) in links) for v in range(7)] for u in range(7)]

    way = ((0, 1), (1, 6))
    idle = ((0, 2), (0, 3), (0, 4), (0, 5), (2, 3), (2, 4), (2, 5))
    operations = ["input", *[CONV1] * 5, "output"]
    assert SPACE.format(parse(SPACE, f"{matrix(*way, *idle)} {operations}")).count("+") > 0
    crowded = parse(SPACE, f"{matrix(*way, *idle, (3, 4))} {operations}")
    assert SPACE.format(crowded) == "1x1~0 - - - - out~1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected 2 to 7 vertices, got 1"),
        ("3x3~0", "'3x3~0' is no vertex 1 .* with the name out"),
        ("3x3~0 out~", "no way leads"),
        ("5x5~0 out~1", "3x3 or 1x1 or pool or -"),
        ("3x3~1 out~1", "'1', expected numbers below 1"),
        ("3x3~0+x out~1", "expected numbers below 1"),
        ("-~0 out~1", "vertex 1 takes part but has no operation"),
        ("3x3~0 " * 6 + "out~1", "expected 2 to 7 vertices, got 8"),
        ("3x3~0 3x3~0+1 3x3~0+1+2 3x3~0+1+2 out~1+2+3+4", "13 links .* at most 9"),
        ("[[0, 1], [0, 0]]", "expected a matrix and operations"),
        ("[[0, 1], [0, 0]] ['input', 'output'] x", "expected a matrix and operations"),
        ("[[0, x], [0, 0]] ['input', 'output']", "expected a matrix and operations"),
        ("[[0, 1], [0]] ['input', 'output']", "must be square"),
        ("[[0, 1, 0], [0, 0, 0]] ['input', 'output']", "must be square"),
        ("[[0, 1], [1, 0]] ['input', 'output']", "1 in row 1, column 0 .* 0, as links lead"),
        ("[[0, 2], [0, 0]] ['input', 'output']", "2 in row 0, column 1 .* 0 or 1"),
        ("[[0, 1], [0, 0]] ['output', 'input']", "expected 2 operations from 'input'"),
        ("[[0, 1], [0, 0]] ['input', 'maxpool3x3', 'output']", "expected 2 operations"),
        ("[[0, 0], [0, 0]] ['input', 'output']", "no way leads"),
        (
            "[[0,1,0],[0,0,1],[0,0,0]] ['input', 'maxpool', 'output']",
            "no operation 'maxpool': did you mean 'maxpool3x3'",
        ),
    ],
)
def test_other_text_is_refused(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        SPACE.parse(text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": 4}, "channels must be at least 5, got 4"),
        ({"stacks": 0}, "stacks"),
        ({"cells": 0}, "cells"),
        ({"classes": 0}, "classes"),
        ({"vertices": 8}, "vertices must be from 2 to 7, got 8"),
        ({"vertices": 1}, "vertices"),
        ({"links": 0}, "links must be at least 1"),
        ({"input": (32, 32)}, r"\(32, 32\)"),
    ],
)
def test_arguments_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        NasBench101(**arguments)


def test_graph_shows_what_takes_part():
    graph = SPACE.graphs(parse(SPACE, "3x3~0 -~1 - pool~1 -~0+4 out~0+4"))["cell"]
    assert graph.operations == ("input", CONV3, "none", "none", POOL, "none", "output")
    assert graph.links == {(0, 1), (1, 4), (4, 6), (0, 6)}
    assert paths(graph) == {(), (CONV3, POOL)}

"""Architectures as SVG in the page's own colours, light and dark: cells as graphs, else layers.

``nas.draw`` says what is drawn and where; its own pictures are for paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from nas.architecture import Architecture
from nas.cost import LayerCost
from nas.draw import alive_vertices, blocks_of, channels_of, detail_of, is_input, kind_of, places_of
from nas.encoding import CellGraph, HasGraphs
from nas.page.markup import text
from nas.space import SearchSpace

COLOURS = 12
"""Fill colours that the style sheet has: ``k0`` … ``k11``."""

_LETTER = 6.2
_ROW = 7
_LINE = 14


def drawn(space: SearchSpace, arch: Architecture, layers: Sequence[LayerCost]) -> str:
    """An architecture as SVG elements: one a cell, or one of all layers.

    Args:
        layers: of its network; not asked for where the space is made of cells.
    """
    if isinstance(space, HasGraphs):
        names = [name for name in space.graph_operations if not name.endswith("input")]
        graphs = space.graphs(arch)
        return "".join(
            (f"<figcaption>{text(name)}</figcaption>" if len(graphs) > 1 else "")
            + _cell(graph, names)
            for name, graph in graphs.items()
        )
    return _chain(blocks_of(layers))


def _svg(width: float, height: float, body: str, label: str) -> str:
    return (
        f'<svg class=drawing width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role=img aria-label="{text(label)}">{body}</svg>'
    )


# ------------------------------------------------------------------------------------ cells


def _cell(graph: CellGraph, names: Sequence[str]) -> str:
    alive = alive_vertices(graph)
    places = places_of(graph, alive)
    widest = max(len(graph.operations[vertex]) for vertex in alive) * _LETTER + 18
    step_x, step_y = widest + 34, 46.0
    top = max(y for _, y in places.values())
    at = {v: (widest / 2 + 4 + x * step_x, 30 + (top - y) * step_y) for v, (x, y) in places.items()}
    lowest = max(y for _, y in at.values())
    edges = []
    for source, target in sorted(graph.links):
        if source in at and target in at and not is_input(graph, target):
            (x0, y0), (x1, y1) = at[source], at[target]
            x0, x1 = x0 + _half(graph, source), x1 - _half(graph, target)
            edges.append(_edge(x0, y0, x1, y1, step_x))
    nodes = [
        _node(*at[v], graph.operations[v], _half(graph, v), _colour(graph.operations[v], names))
        for v in alive
    ]
    width = max(x for x, _ in at.values()) + widest / 2 + 4
    label = "cell: " + ", ".join(graph.operations[vertex] for vertex in alive)
    return _svg(width, lowest + 34, "".join(edges + nodes), label)


def _half(graph: CellGraph, vertex: int) -> float:
    return (len(graph.operations[vertex]) * _LETTER + 18) / 2


def _colour(operation: str, names: Sequence[str]) -> str:
    return f"k{list(names).index(operation) % COLOURS}" if operation in names else "kend"


def _node(x: float, y: float, name: str, half: float, colour: str) -> str:
    return (
        f'<rect class={colour} x="{x - half:.1f}" y="{y - 13:.1f}" width="{2 * half:.1f}" '
        f'height=26 rx=8 /><text x="{x:.1f}" y="{y + 4:.1f}">{text(name)}</text>'
    )


def _edge(x0: float, y0: float, x1: float, y1: float, step: float) -> str:
    """A curve from the right of one vertex to the left of another, with its head."""
    # A straight line over a column would run through what stands there.
    lift = 0.0 if x1 - x0 < step else (-30.0 if y0 + y1 <= 60 else 30.0)
    reach = max(16.0, 0.4 * (x1 - x0))
    return (
        f'<path class=edge d="M{x0:.1f} {y0:.1f}C{x0 + reach:.1f} {y0 + lift:.1f} '
        f'{x1 - reach:.1f} {y1 + lift:.1f} {x1 - 1:.1f} {y1:.1f}"/>'
        f'<path class=head d="M{x1:.1f} {y1:.1f}l-7 -3.5v7z"/>'
    )


# ----------------------------------------------------------------------------------- layers


def _chain(blocks: Sequence[LayerCost]) -> str:
    kinds = sorted({kind_of(block) for block in blocks})
    widest = max(channels_of(block) for block in blocks)
    most = max(block.macs for block in blocks) or 1
    step, height = 97.0, 136.0
    rows = math.ceil(len(blocks) / _ROW)
    columns = math.ceil(len(blocks) / rows)
    body = []
    for place, block in enumerate(blocks):
        left, top = (place % columns) * step + 2, (place // columns) * height
        colour = f"k{kinds.index(kind_of(block)) % COLOURS}"
        tall = 42 + 46 * math.sqrt(channels_of(block) / widest)
        body.append(_block(block, left, top + 94, tall, colour, block.macs / most))
        if place + 1 < len(blocks) and (place + 1) % columns:
            body.append(f'<path class=head d="M{left + 94:.1f} {top + 70:.1f}l-6 -3.5v7z"/>')
    label = "layers: " + ", ".join(kind_of(block) for block in blocks)
    return _svg(columns * step - 7, rows * height, "".join(body), label)


def _block(
    block: LayerCost, left: float, bottom: float, tall: float, colour: str, share: float
) -> str:
    middle = left + 42.5
    name = _wrapped(kind_of(block))
    details = [x for x in detail_of(block).split("\n") if x][: 4 - len(name)]
    written = "".join(
        f'<text class={"b" if row < len(name) else "d"} x="{middle:.1f}" '
        f'y="{bottom - tall / 2 + 4 + 11 * (row - (len(name + details) - 1) / 2):.1f}">'
        f"{text(line)}</text>"
        for row, line in enumerate(name + details)
    )
    shape = "×".join(map(str, block.output[1:]))
    return (
        f"<g><title>{text(block.type)}, {block.macs:,} MACs, "
        f"{block.parameters:,} parameters</title>"
        f'<rect class={colour} x="{left:.0f}" y="{bottom - tall:.1f}" width=85 '
        f'height="{tall:.1f}" rx=6 />{written}'
        f'<text class=d x="{middle:.1f}" y="{bottom + 14:.0f}">{text(shape)}</text>'
        f'<rect class=track x="{left:.0f}" y="{bottom + 21:.0f}" width=85 height=4 rx=2 />'
        f'<rect class=share x="{left:.0f}" y="{bottom + 21:.0f}" '
        f'width="{max(0.5, 85 * share):.1f}" height=4 rx=2 /></g>'
    )


def _wrapped(name: str) -> list[str]:
    """A class's name in two lines at most, broken before a capital letter."""
    lines = [""]
    for word in re.findall(r"\+ |[A-Z]?[^A-Z+]+|[A-Z]+|\+", name):
        if lines[-1].strip("+ ") and len(lines[-1] + word) > _LINE and len(lines) < 2:
            lines.append("")
        lines[-1] += word
    return [line if len(line) <= _LINE else line[: _LINE - 1] + "…" for line in lines]


def legend(space: SearchSpace) -> str:
    """What a drawing's sizes mean; empty for cells, which say it themselves."""
    if isinstance(space, HasGraphs):
        return ""
    return "Height: channels. Below each layer: its output's shape, and its share of the MACs."

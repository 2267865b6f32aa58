"""Pictures of architectures: cells as graphs, other networks as the row of their layers."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture
from nas.cost import LayerCost, architecture_breakdown
from nas.encoding import CellGraph, HasGraphs
from nas.errors import ConfigError, nearest
from nas.space import SearchSpace, validate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
_COLOURS = (
    "#8ecae6",
    "#ffb703",
    "#95d5b2",
    "#f4978e",
    "#cdb4db",
    "#ffd6a5",
    "#a3b18a",
    "#bde0fe",
    "#e5989b",
    "#d4a373",
    "#90dbf4",
    "#b8c0ff",
)
_ENDS = "#e9ecef"


def draw(space: SearchSpace, arch: Architecture, format: str = "svg") -> bytes:
    """An architecture as a picture.

    Of a space made of cells each cell is drawn as a graph, without the operations that lead
    nowhere; of any other the network's layers are, in the order in which they run, as wide as
    their channels and as high as their resolution.

    Args:
        format: ``svg``, ``png`` or ``pdf``.

    Raises:
        ConfigError: there is no such format.
        InvalidArchitecture: ``arch`` is not one of ``space``.
    """
    if format not in FORMATS:
        raise ConfigError(f"cannot draw as {format!r}: {nearest(format, FORMATS)}")
    validate(space, arch)
    figure = _cells(space.graphs(arch)) if isinstance(space, HasGraphs) else _layers(space, arch)
    buffer = io.BytesIO()
    # The same picture is the same file: no date, and names of elements that do not change.
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": space.name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format=format, metadata=metadata.get(format))
    return buffer.getvalue()


# ------------------------------------------------------------------------------------ cells


def _cells(graphs: Mapping[str, CellGraph]) -> Figure:
    from matplotlib.figure import Figure

    shown = {name: alive_vertices(graph) for name, graph in graphs.items()}
    names = sorted({graph.operations[v] for graph in graphs.values() for v in _inner(graph)})
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    places = {name: places_of(graphs[name], alive) for name, alive in shown.items()}
    widths = [1 + max(x for x, _ in place.values()) for place in places.values()]
    heights = [_extent(place) for place in places.values()]
    figure = Figure(
        figsize=(1.6 * max(widths) + 0.2, sum(0.72 * height + 0.5 for height in heights)),
        layout="constrained",
    )
    rows = figure.subplots(len(graphs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, graph) in zip(rows, graphs.items(), strict=True):
        _draw_graph(axes, graph, places[name], colours)
        axes.set_title(name, loc="left", fontsize=10)
    return figure


def _inner(graph: CellGraph) -> range:
    return range(1, len(graph.operations) - 1)


def is_input(graph: CellGraph, vertex: int) -> bool:
    """The input, or a further one (``second_input``): what the cell itself does not compute."""
    return graph.operations[vertex].endswith("input")


def alive_vertices(graph: CellGraph) -> list[int]:
    """The vertices on a way from input to output, both ends always among them."""
    last = len(graph.operations) - 1
    links = sorted(graph.links)
    open_ = {v for v in range(last + 1) if v in (0, last) or graph.operations[v] != "none"}
    sources = {v for v in open_ if is_input(graph, v)}
    forward = set(sources)
    for source, target in links:
        if source in forward and target in open_:
            forward.add(target)
    backward = {last}
    for source, target in sorted(links, key=lambda link: (link[1], link[0]), reverse=True):
        if target in backward and source in open_:
            backward.add(source)
    return sorted((forward & backward) | sources | {last})


def places_of(graph: CellGraph, alive: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Columns by the longest way from the input; in a column, near what leads there."""
    before: dict[int, list[int]] = {v: [] for v in alive}
    for source, target in sorted(graph.links):
        if source in before and target in before and not is_input(graph, target):
            before[target].append(source)
    column: dict[int, int] = {}
    for vertex in alive:
        column[vertex] = max((column[source] + 1 for source in before[vertex]), default=0)
    last = alive[-1]
    column[last] = max(column[last], 1, *(column[v] for v in alive))
    places: dict[int, tuple[float, float]] = {}
    for number in range(column[last] + 1):
        members = [vertex for vertex in alive if column[vertex] == number]

        def height(vertex: int) -> float:
            ys = [places[source][1] for source in before[vertex]]
            return sum(ys) / len(ys) if ys else 0.0

        members.sort(key=lambda vertex: (-height(vertex), vertex))
        for index, vertex in enumerate(members):
            places[vertex] = float(number), (len(members) - 1) / 2 - index
    return places


def _extent(places: Mapping[int, tuple[float, float]]) -> float:
    ys = [y for _, y in places.values()]
    return max(ys) - min(ys) + 1.6


def _draw_graph(
    axes: Axes,
    graph: CellGraph,
    places: Mapping[int, tuple[float, float]],
    colours: Mapping[str, str],
) -> None:
    for source, target in sorted(graph.links):
        if source not in places or target not in places or is_input(graph, target):
            continue
        (x0, y0), (x1, y1) = places[source], places[target]
        # A straight arrow over a column would run through what stands there.
        bend = 0.0 if x1 - x0 < 1.5 else -0.22 if y0 + y1 >= 0 else 0.22
        axes.annotate(
            "",
            (x1 - 0.31, y1),
            (x0 + 0.31, y0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#6c757d",
                "linewidth": 0.9,
                "connectionstyle": f"arc3,rad={bend}",
                "shrinkA": 0,
                "shrinkB": 1,
            },
        )
    for vertex, (x, y) in places.items():
        operation = graph.operations[vertex]
        axes.text(
            x,
            y,
            operation,
            ha="center",
            va="center",
            fontsize=7.5,
            bbox={
                "boxstyle": "round,pad=0.32",
                "facecolor": colours.get(operation, _ENDS),
                "edgecolor": "#495057",
                "linewidth": 0.6,
            },
        )
    ys = [y for _, y in places.values()]
    axes.set_xlim(-0.55, max(x for x, _ in places.values()) + 0.55)
    axes.set_ylim(min(ys) - 0.8, max(ys) + 0.8)
    axes.axis("off")


# ----------------------------------------------------------------------------------- layers

_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
MOST_A_ROW = 12


def _layers(space: SearchSpace, arch: Architecture) -> Figure:
    from matplotlib.figure import Figure

    rows_of_layers = architecture_breakdown(space, arch)
    blocks = blocks_of(rows_of_layers)
    kinds = sorted({kind_of(block) for block in blocks})
    colours = {kind: _COLOURS[index % len(_COLOURS)] for index, kind in enumerate(kinds)}
    rows = [blocks[start : start + MOST_A_ROW] for start in range(0, len(blocks), MOST_A_ROW)]
    most = max(block.macs for block in blocks) or 1
    widest = max(channels_of(block) for block in blocks)
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.35 * columns + 0.4, 2.2 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for x, block in enumerate(row):
            height = 0.25 + 0.75 * math.sqrt(channels_of(block) / widest)
            axes.bar(
                x,
                height,
                width=0.62,
                color=colours[kind_of(block)],
                edgecolor="#495057",
                linewidth=0.6,
            )
            axes.text(x, height + 0.04, kind_of(block), ha="center", va="bottom", fontsize=6.5)
            axes.text(x, height / 2, detail_of(block), ha="center", va="center", fontsize=6.5)
            shape = "×".join(map(str, block.output[1:]))
            axes.text(x, -0.06, shape, ha="center", va="top", fontsize=6.5)
            axes.bar(x, -0.1 * block.macs / most, width=0.62, bottom=-0.24, color="#6c757d")
            if x + 1 < len(row):
                axes.annotate(
                    "",
                    (x + 0.68, 0.12),
                    (x + 0.32, 0.12),
                    arrowprops={"arrowstyle": "-|>", "color": "#6c757d", "linewidth": 0.8},
                )
        axes.set_xlim(-0.6, columns - 0.4)
        axes.set_ylim(-0.4, 1.25)
        axes.axis("off")
    figure.suptitle(
        "height: channels; below: output shape, and a bar for the multiply-accumulates",
        fontsize=7.5,
        x=0.01,
        ha="left",
    )
    return figure


def blocks_of(rows: Sequence[LayerCost]) -> list[LayerCost]:
    """The modules that run one after another: the network's children, containers opened."""
    return [_shown(block, rows) for block in _blocks(rows)]


def _blocks(rows: Sequence[LayerCost]) -> list[LayerCost]:
    opened = {""}
    found = []
    for row in rows[1:]:
        parent = row.path.rpartition(".")[0]
        if parent not in opened:
            continue
        if row.type.partition("(")[0] in _CONTAINERS and _has_children(row, rows):
            opened.add(row.path)
        elif row.output:
            found.append(row)
    return found or [rows[0]]


def _has_children(row: LayerCost, rows: Sequence[LayerCost]) -> bool:
    return bool(_children(row, rows))


def _children(row: LayerCost, rows: Sequence[LayerCost]) -> list[LayerCost]:
    return [other for other in rows[1:] if other.path.rpartition(".")[0] == row.path]


def _shown(row: LayerCost, rows: Sequence[LayerCost]) -> LayerCost:
    """What a block is called: a wrapper of one module (a residual, say) as what it wraps."""
    inside = _children(row, rows)
    if len(inside) != 1:
        return row
    return replace(row, type=f"+ {inside[0].type}")


def channels_of(block: LayerCost) -> int:
    """Of maps (N, channels, height, width), of tokens (N, tokens, channels), of vectors."""
    place = 2 if len(block.output) == 3 else 1
    return block.output[place] if len(block.output) > 1 else 1


def kind_of(block: LayerCost) -> str:
    """Its class."""
    return block.type.partition("(")[0]


def detail_of(block: LayerCost) -> str:
    """The sizes a block shows, one a line, without those that its output's shape says."""
    inside = block.type.partition("(")[2].removesuffix(")")
    told = ("kernel_size", "stride", "expansion", "heads", "hidden", "k")
    pairs = re.findall(r"(\w+)=(\([^)]*\)|[^,]+)", inside)
    return "\n".join(f"{key[:6]} {value}" for key, value in pairs if key in told)

"""The commands about spaces and their networks: list, show-space, cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.common import (
    Json,
    Settings,
    app,
    out_console,
    print_json,
    read_architecture,
)
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.data import Data
    from nas.space import SearchSpace

Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="STRING|FILE",
        help="An architecture: JSON, 'label=option …', the literature's notation, or a file.",
    ),
]
SpaceOrPoint = Annotated[
    str,
    typer.Argument(metavar="SPACE[:POINT]", help="A space, or one of its published networks."),
]


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(metavar="spaces|strategies|evaluators|…")],
    as_json: Json = False,
) -> None:
    """What is installed; spaces with their size, choices and paper."""
    from nas import registry
    from nas.errors import nearest

    if kind not in registry.KINDS:
        raise ConfigError(f"there is no kind {kind!r}: {nearest(kind, registry.KINDS)}")
    chosen = registry.KINDS[registry.KINDS.index(kind)]  # the same, as the type checker sees it
    if chosen == "spaces":
        _list_spaces(as_json)
        return
    lines: dict[str, str] = {}
    for name in registry.names(chosen):
        try:
            lines[name] = registry.summary(chosen, name)
        except ConfigError as error:  # one broken plug-in does not hide the others
            lines[name] = f"broken: {error}"
    if as_json:
        print_json(lines)
        return
    for name, line in lines.items():
        out_console.print(f"{name:<24} {line}", markup=False)


def _list_spaces(as_json: bool) -> None:
    import dataclasses

    from rich.table import Table

    from nas import registry
    from nas.catalogue import size_text, summarise_space

    summaries = [summarise_space(name) for name in registry.names("spaces")]
    if as_json:
        print_json({found.name: dataclasses.asdict(found) for found in summaries})
        return
    table = Table(title_style="", box=None, pad_edge=False)
    table.add_column("space")
    table.add_column("architectures", justify="right")
    table.add_column("choices", justify="right")
    table.add_column("paper", overflow="fold")
    table.add_column("published networks", overflow="fold")
    for found in summaries:
        paper = f"broken: {found.broken}" if found.broken else found.paper or found.summary
        choices = "?" if found.choices is None else str(found.choices)
        table.add_row(found.name, size_text(found.size), choices, paper, ", ".join(found.points))
    out_console.print(table, markup=False)


@app.command("show-space")
def show_space(
    name: SpaceOrPoint,
    arch: Arch = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample that is drawn.")] = 0,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The picture: .svg, .png or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A space's choices, and a picture of one of its architectures (a sample, or --arch)."""
    import numpy as np

    from nas import catalogue
    from nas.draw import FORMATS, draw
    from nas.errors import nearest
    from nas.history import write_file
    from nas.points import points_of, split_reference
    from nas.space import format_architecture, sample

    file = out or Path(f"{name.replace(':', '_')}.svg")
    if file.suffix.removeprefix(".") not in FORMATS:
        raise ConfigError(f"--out {file}: {nearest(file.suffix.removeprefix('.'), FORMATS)}")
    space, chosen = _space_and_architecture(name, arch, settings)
    if chosen is None:
        chosen = sample(space, np.random.default_rng(seed))
    write_file(file, draw(space, chosen, file.suffix.removeprefix(".")))
    text = format_architecture(space, chosen)
    space_name = split_reference(name)[0]
    if as_json:
        document = catalogue.space_document(space_name, space)
        print_json({**document, "drawn": text, "picture": str(file)})
        return
    paper = catalogue.paper_of(space)
    out_console.print(f"{space.name}" + (f": {paper}" if paper else ""), markup=False)
    shape = "×".join(map(str, space.input))
    out_console.print(f"input {shape}, {space.classes} classes", markup=False)
    size = catalogue.size_text(catalogue.known_size(space))
    out_console.print(f"{size} architectures, {len(space.choices)} choices:", markup=False)
    for group in catalogue.choice_groups(space):
        options = ", ".join(map(str, group.options))
        many = f" ({len(group.labels)})" if len(group.labels) > 1 else ""
        when = ", if active" if group.conditional else ""
        out_console.print(f"  {group.title()}{many}: {options}{when}", markup=False)
    points = points_of(space_name)
    if points:
        out_console.print("published networks:")
        for key, point in points.items():
            out_console.print(f"  {space_name}:{key}  {point.paper}", markup=False)
    out_console.print(f"drawn: {text}", markup=False)
    out_console.print(f"picture: {file}", markup=False)


@app.command()
def cost(
    name: SpaceOrPoint,
    arch: Arch = None,
    settings: Settings = None,
    layers: Annotated[
        int | None,
        typer.Option(min=0, metavar="DEPTH", help="Also a table by layer, down to this depth."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Parameters, MACs, peak activation memory and weight bytes of an architecture.

    Of a published network (darts:DARTS_V2), of --arch, or of a random sample of the space.
    """
    from nas import report
    from nas.cost import architecture_breakdown, architecture_cost

    space, chosen = _space_and_architecture(name, arch, settings)
    if chosen is None:
        if layers is not None:
            raise ConfigError("--layers is of one architecture: give --arch or a published network")
        _spread(space, as_json)
        return
    found: dict[str, Any] = dict(costs_of(architecture_cost(space, chosen)))
    rows = [] if layers is None else architecture_breakdown(space, chosen)
    rows = [row for row in rows if layers is not None and row.depth <= layers]
    if as_json:
        if layers is not None:
            found["layers"] = [report.layer_document(row) for row in rows]
        print_json(found)
        return
    if rows:
        report.print_layers(out_console, rows)
    report.print_values(out_console, found)


COSTS = ("parameters", "macs", "peak_memory_bytes", "weight_bytes")


def costs_of(found: Any) -> dict[str, int]:
    """A network's costs as the keys ``--json`` prints."""
    return {key: getattr(found, key) for key in COSTS}


def _spread(space: SearchSpace, as_json: bool) -> None:
    """The costs of a random sample: the least, the median and the greatest."""
    import numpy as np

    from nas import report
    from nas.cost import architecture_cost
    from nas.space import sample

    rng = np.random.default_rng(0)
    costs = [costs_of(architecture_cost(space, sample(space, rng))) for _ in range(100)]
    spread = {
        key: {
            "min": min(c[key] for c in costs),
            "median": int(np.median([c[key] for c in costs])),
            "max": max(c[key] for c in costs),
        }
        for key in costs[0]
    }
    if as_json:
        print_json({"space": space.name, "architectures": len(costs), **spread})
        return
    out_console.print(f"{space.name}: {len(costs)} random architectures (seed 0)")
    for key, values in spread.items():
        low, middle, high = (report.number(values[k]) for k in ("min", "median", "max"))
        out_console.print(f"{key:<20} {low} … {high}, median {middle}")


def _space_and_architecture(
    name: str, arch: str | None, settings: list[str] | None, data: Data | None = None
) -> tuple[SearchSpace, Architecture | None]:
    """The space a command names, and the architecture: a published one, --arch's, or none.

    Input and classes are the data's where the settings do not say.
    """
    from nas.components import create, describe
    from nas.config import change
    from nas.points import find, split_reference
    from nas.space import parse

    if split_reference(name)[1] is not None:
        if arch is not None:
            raise ConfigError(f"give --arch or the published network {name!r}, not both")
        space_name, point = find(name)
        text, arguments = point.architecture, describe(dict(point.arguments))
    else:
        space_name = name
        text, arguments = read_architecture(arch) if arch is not None else ("", {})
    given = {} if data is None else {"input": data.input, "classes": data.classes}
    arguments = {key: value for key, value in arguments.items() if key not in given}
    description = change({"name": space_name, **arguments}, settings or [])
    space: SearchSpace = create("spaces", description, "space", given)
    return space, parse(space, text) if text else None

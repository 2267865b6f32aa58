"""The command that scores an untrained network: zero-cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.common import Json, Settings, app, out_console, print_json
from nas.cli.spaces import Arch, SpaceOrPoint, _space_and_architecture
from nas.errors import ConfigError


@app.command("zero-cost")
def zero_cost(
    name: SpaceOrPoint,
    arch: Arch = None,
    proxies: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="All that the data are enough for, by default."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="A data set; some proxies need none.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The data set's folder.")] = None,
    settings: Settings = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Examples a pass.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the batch.")] = 0,
    as_json: Json = False,
) -> None:
    """Scores of an architecture's untrained network, and the milliseconds of each.

    Of a published network (darts:DARTS_V2) or of --arch; larger is better.
    """
    from nas.components import create
    from nas.data import check_fits
    from nas.space import network
    from nas.training import reproducible
    from nas.zero_cost import PROXIES, Batch, check_names, measured

    changes = list(settings or [])
    found = None
    if data is not None:
        arguments = {} if root is None else {"root": str(root)}
        found = create("datasets", {"name": data, **arguments}, "--data")
        shape = "x".join(map(str, found.input))
        changes = [f"input={shape}", f"classes={found.classes}", *changes]
    elif root is not None:
        raise ConfigError("--root is a data set's folder: give --data too")
    space, chosen = _space_and_architecture(name, arch, changes)
    if chosen is None:
        raise ConfigError("zero-cost scores one architecture: give --arch or a published network")
    if found is None:
        batch = Batch.noise(tuple(space.input), batch_size, seed)
    else:
        check_fits(found, space)
        batch = Batch.of(found, batch_size, seed)
    enough = [n for n, family in PROXIES.items() if found or family.needs == "nothing"]
    wanted = check_names(proxies.split(",") if proxies else enough)
    for proxy in wanted:
        if proxy not in enough:
            raise ConfigError(f"{proxy} needs data: give --data")
    with reproducible(seed, 1):
        scored = measured(wanted, network(space, chosen), batch, seed, f"{space.name} {chosen}")
    if as_json:
        print_json(
            {
                "scores": dict(scored.values),
                "connected": scored.connected,
                "milliseconds": dict(scored.milliseconds),
            }
        )
        return
    for proxy, value in scored.values.items():
        out_console.print(f"{proxy:<20} {value:.6g}", highlight=False)
    if not scored.connected:
        out_console.print("its output does not depend on its input")
    for label, milliseconds in scored.milliseconds.items():
        out_console.print(f"{milliseconds:8.1f} ms  {label}", highlight=False)

"""The command that scores an untrained network: zero-cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.common import Json, Settings, app, out_console, print_json
from nas.cli.spaces import Arch, SpaceOrPoint, _space_and_architecture
from nas.errors import ConfigError, UnsupportedRequest

if TYPE_CHECKING:
    from torch import nn

    from nas.zero_cost import Batch, Scored


@app.command("zero-cost")
def zero_cost(
    name: SpaceOrPoint,
    arch: Arch = None,
    proxies: Annotated[
        str | None,
        typer.Option(metavar="NAME,…", help="By default all that data and network allow."),
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

    found = None
    if data is not None:
        arguments = {} if root is None else {"root": str(root)}
        found = create("datasets", {"name": data, **arguments}, "--data")
    elif root is not None:
        raise ConfigError("--root is a data set's folder: give --data too")
    space, chosen = _space_and_architecture(name, arch, settings, found)
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
        built, place = network(space, chosen), f"{space.name} {chosen}"
        scored, left_out = (
            (measured(wanted, built, batch, seed, place), [])
            if proxies
            else _whatever_applies(wanted, built, batch, seed, place)
        )
    if as_json:
        print_json(
            {
                "scores": dict(scored.values),
                "connected": scored.connected,
                "milliseconds": dict(scored.milliseconds),
                "left_out": left_out,
            }
        )
        return
    for proxy, value in scored.values.items():
        out_console.print(f"{proxy:<20} {value:.6g}", highlight=False)
    for reason in left_out:
        out_console.print(f"left out: {reason}", highlight=False, markup=False)
    if not scored.connected:
        out_console.print("its output does not depend on its input")
    for label, milliseconds in scored.milliseconds.items():
        out_console.print(f"{milliseconds:8.1f} ms  {label}", highlight=False)


def _whatever_applies(
    names: Sequence[str], built: nn.Module, batch: Batch, seed: int, place: str
) -> tuple[Scored, list[str]]:
    """What those proxies say that can be had of the network, and why the others cannot."""
    from nas.trial import NotFinite
    from nas.zero_cost import PROXIES, Scored, measured

    values: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    connected, left_out = True, []
    for family in dict.fromkeys(PROXIES[name] for name in names):
        mine = [name for name in names if name in family.proxies]
        try:
            found = measured(mine, built, batch, seed, place)
        except (UnsupportedRequest, NotFinite) as error:
            left_out.append(str(error))
            continue
        values |= found.values
        milliseconds |= found.milliseconds
        connected &= found.connected
    return Scored(values, connected, milliseconds), left_out

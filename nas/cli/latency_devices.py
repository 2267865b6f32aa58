"""``nas latency pack``, ``import`` and ``fit``: latencies of devices that are not here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.common import Json, Settings, err_console, out_console, print_json
from nas.cli.latency import Space, latency, line, space_of
from nas.errors import ConfigError, nearest

Table = Annotated[Path, typer.Option("--out", metavar="FILE", help="What is written.")]


@latency.command()
def pack(
    space: Space,
    out: Annotated[Path, typer.Option("--out", metavar="DIR|FILE.zip", help="The pack.")],
    settings: Settings = None,
    networks: Annotated[
        int, typer.Option(min=0, help="Random networks to check the sums with.")
    ] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Examples at once.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a space's operations as ONNX files with a script that times them on another device.

    Take it there, run `python run.py` (it needs numpy and onnxruntime), and bring results.json
    back for `nas latency import`.
    """
    from nas.latency.pack import pack as files
    from nas.latency.pack import write_pack

    found = space_of(space, settings)
    with err_console.status("finding the operations") as status:

        def on_file(done: int, total: int) -> None:
            status.update(f"{done} of {total} files written")

        count = write_pack(out, files(found, networks, batch, seed, on_file))
    if as_json:
        print_json({"pack": str(out), "space": found.name, "files": count})
        return
    out_console.print(f"{out}: {count} files. On the device: python run.py", highlight=False)


@latency.command("import")
def import_results(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.json", help="Of the pack's run.py.")],
    out: Table,
    pack: Annotated[
        Path, typer.Option("--pack", metavar="DIR|FILE.zip", help="The pack that was measured.")
    ],
    correct: Annotated[
        bool, typer.Option("--correct", help="Store the correction that the networks give.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a table of what a pack measured on a device, and check it with the pack's networks."""
    from nas.components import create
    from nas.latency.importing import corrected, imported

    found = imported(results, pack)
    table = found.table
    if correct:
        space = create("spaces", dict(table.description), f"the space of {pack}")
        table = corrected(found, space)
    table.save(out)
    agreements = {
        f"sums, all {len(found.networks)}": found.raw,
        "sums, held out": found.held_out_raw,
        "corrected, held out": found.held_out,
    }
    if as_json:
        shown = {name: asdict(one) for name, one in agreements.items() if one is not None}
        print_json({"table": str(out), "machine": dict(table.machine), "agreement": shown})
        return
    loose = sum(not entry.tight for entry in table.entries.values())
    note = f"; {loose} are not tight" if loose else ""
    out_console.print(
        f"{len(table.entries)} operations of {table.machine['device']}{note}", highlight=False
    )
    for name, one in agreements.items():
        if one is not None:
            out_console.print(line(name, one), highlight=False)
    out_console.print(f"table: {out}", highlight=False)


@latency.command()
def fit(
    space: Space,
    data: Annotated[
        Path, typer.Argument(metavar="FILE", help="Measured networks: .csv, .json or .npz.")
    ],
    out: Table,
    settings: Settings = None,
    device: Annotated[
        str | None, typer.Option(help="Which column, where the file has several.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=20, help="Only so many, drawn at random.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Learn a device's latencies from measured whole networks, without any operation's.

    The recipe is chosen by cross-validation; networks that --n leaves over are predicted and
    compared as well. The file serves the latency evaluator as a table does.
    """
    import numpy as np

    from nas.latency.whole import errors, fitted
    from nas.latency.whole_files import read_measurements

    found = space_of(space, settings)
    devices = read_measurements(data, found)
    if device is None and len(devices) > 1:
        raise ConfigError(
            f"{data} has several devices, name one with --device: {', '.join(devices)}"
        )
    name = device or next(iter(devices))
    if name not in devices:
        raise ConfigError(f"{data} has no device {name!r}: {nearest(name, devices)}")
    archs, latency_ms = devices[name]
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.isfinite(latency_ms)))
    train, rest = order[:n], order[len(order[:n]) :]
    with err_console.status(f"fitting {len(train)} networks"):
        made = fitted(found, [archs[i] for i in train], latency_ms[train], name, folds, seed)
        made.save(out)
        held_out = None
        if len(rest):
            predicted = made.predict_many(found, [archs[i] for i in rest])
            held_out = errors(*predicted, latency_ms[rest])
    if as_json:
        document: dict[str, Any] = {
            "fit": str(out),
            "device": name,
            "recipe": asdict(made.recipe),
            "cross_validation": asdict(made.validation),
            "held_out": None if held_out is None else asdict(held_out),
        }
        print_json(document)
        return
    out_console.print(f"{name}: {made.recipe}", highlight=False)
    out_console.print(f"cross-validation  {made.validation}", highlight=False)
    if held_out is not None:
        out_console.print(f"held out          {held_out}", highlight=False)
    out_console.print(f"fit: {out}", highlight=False)

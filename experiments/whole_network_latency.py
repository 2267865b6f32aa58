"""How well latency is learnt from whole networks alone, device by device.

Two tables of measurements on real devices: 5,000 networks of the FBNet space (``arch``,
``devices``, ``latency_ms``), and NAS-Bench-201's latency columns. A fit sees some random networks
of one device and chooses its recipe by cross-validation among them; the errors are those of other
networks.

    python experiments/whole_network_latency.py --fbnet fbnet_latency.npz --nasbench201 nb201.npz

What was fitted already is read from the folder of ``--out``, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.history import write_file
from nas.latency.rows import LatencyRows
from nas.latency.whole import errors, fitted
from nas.latency.whole_files import read_measurements
from nas.space import SearchSpace
from nas.tables.nasbench201 import connected
from search_spaces.mbconv import fbnet
from search_spaces.nasbench201 import NasBench201

HELD_OUT = 2000
"""Networks that the errors are of."""


@dataclass(frozen=True)
class Source:
    """Measured networks of one space on several devices; latencies that say nothing are NaN."""

    name: str
    space: SearchSpace
    archs: Sequence[Architecture]
    devices: tuple[str, ...]
    latency_ms: NDArray[np.float64]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fbnet", type=Path, metavar="FILE")
    parser.add_argument("--nasbench201", type=Path, metavar="FILE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--devices", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, default=Path("runs/whole_network_latency"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/whole_network_latency.md"))
    options = parser.parse_args(arguments)
    sources = []
    if options.fbnet:
        sources.append(fbnet_source(options.fbnet))
    if options.nasbench201:
        sources.append(nasbench201_source(options.nasbench201))
    if not sources:
        parser.error("give --fbnet FILE or --nasbench201 FILE: what was measured")
    found: dict[str, list[dict[str, object]]] = {}
    for source in sources:
        rows = LatencyRows(source.space)
        for column, device in enumerate(source.devices):
            if options.devices and device not in options.devices:
                continue
            for size in options.sizes:
                for seed in range(options.seeds):
                    path = options.out / source.name / f"{device}_{size}_{seed}.json"
                    if not path.exists():
                        document = one(source, rows, column, size, seed)
                        write_file(path, json.dumps(document).encode())
                    found.setdefault(source.name, []).append(json.loads(path.read_text()))
            print(
                source.name, *row(found[source.name], device, options.sizes), sep=" | ", flush=True
            )
    options.page.parent.mkdir(parents=True, exist_ok=True)
    picture = options.page.with_suffix(".png")
    draw(found, options.sizes, picture)
    command = shlex.join(["python", "experiments/whole_network_latency.py", *sys.argv[1:]])
    options.page.write_text(page(found, options, command, picture.name))
    print(f"written: {options.page}, {picture}")


def fbnet_source(path: Path) -> Source:
    space = fbnet()
    devices = read_measurements(path, space)
    names = tuple(devices)
    archs = devices[names[0]][0]
    latency = np.stack([devices[name][1] for name in names], axis=1)
    return Source("FBNet space", space, archs, names, latency)


def nasbench201_source(path: Path) -> Source:
    space = NasBench201()
    with np.load(path, allow_pickle=False) as arrays:
        names = tuple(str(name) for name in arrays["op_names"])
        ops = arrays["ops"]
        devices = tuple(str(name) for name in arrays["latency_devices"])
        latency = arrays["latency_ms"].astype(np.float64)
    latency[~connected(ops, names)] = np.nan
    labels = [choice.label for choice in space.choices]
    archs = [
        Architecture(space.name, tuple((k, names[v]) for k, v in zip(labels, row, strict=True)))
        for row in ops.tolist()
    ]
    return Source("NAS-Bench-201", space, archs, devices, latency)


def one(source: Source, rows: LatencyRows, column: int, size: int, seed: int) -> dict[str, object]:
    """One fit and its errors on other networks, the same networks on every device."""
    y = source.latency_ms[:, column]
    order = np.random.default_rng([seed, 0]).permutation(len(source.archs))
    order = order[np.isfinite(y[order]) & (y[order] > 0)]
    train, rest = order[:size], order[-min(HELD_OUT, len(order) - size) :]
    start = time.perf_counter()
    archs = [source.archs[index] for index in train]
    fit = fitted(source.space, archs, y[train], source.devices[column], seed=seed, rows=rows)
    seconds = time.perf_counter() - start
    mean, deviation = fit.predict_many(source.space, [source.archs[index] for index in rest])
    whole = y[order]
    return {
        "device": source.devices[column],
        "size": size,
        "seed": seed,
        "seconds": seconds,
        "recipe": asdict(fit.recipe),
        "held_out": asdict(errors(mean, deviation, y[rest])),
        "validation": asdict(fit.validation),
        "spread": float(whole.std() / whole.mean()),
        "median": float(np.median(whole)),
        "whole_ms": bool((whole == np.round(whole)).all()),
        "rounding": rounding(whole),
    }


def rounding(measured: NDArray[np.float64]) -> float:
    """The MAPE, in per cent, that rounding to whole ms alone makes; 0 where none was rounded."""
    if not (measured == np.round(measured)).all():
        return 0.0
    return float(100 * (0.25 / measured).mean())


# --------------------------------------------------------------------------------- report


def values(documents: list[dict[str, object]], device: str, size: int, key: str) -> list[float]:
    found = []
    for document in documents:
        if document["device"] == device and document["size"] == size:
            held_out = document["held_out"]
            assert isinstance(held_out, dict)
            found.append(held_out[key])
    return found


def row(documents: list[dict[str, object]], device: str, sizes: Sequence[int]) -> list[str]:
    """Of one device: its spread, and each size's MAPE, then ρ, ±10 % and calibration."""
    first = next(document for document in documents if document["device"] == device)
    cells = [
        f"`{device}`{' (whole ms)' if first['whole_ms'] else ''}",
        f"{first['median']:.3g}",
        f"{100 * float(str(first['spread'])):.0f}",
    ]
    for size in sizes:
        mape = values(documents, device, size, "mape")
        spread = statistics.stdev(mape) if len(mape) > 1 else 0.0
        cells.append(f"{statistics.mean(mape):.2f} ± {spread:.2f}")
    for key, form in (
        ("spearman", "{:.3f}"),
        ("within_10", "{:.1%}"),
        ("within_deviation", "{:.0%}"),
    ):
        shown = [
            form.format(statistics.mean(values(documents, device, size, key))).rstrip("%")
            for size in sizes
        ]
        cells.append(" / ".join(shown))
    return cells


def within(documents: list[dict[str, object]], size: int, limit: float) -> str:
    devices = list(dict.fromkeys(str(document["device"]) for document in documents))
    good = [d for d in devices if statistics.mean(values(documents, d, size, "mape")) <= limit]
    return f"{len(good)} of {len(devices)}"


def still_better(found: dict[str, list[dict[str, object]]], sizes: Sequence[int]) -> str:
    """The devices that are still badly predicted, but better with more networks."""
    named = []
    for name, documents in found.items():
        for device in dict.fromkeys(str(document["device"]) for document in documents):
            few, many = (
                statistics.mean(values(documents, device, size, "mape"))
                for size in (sizes[0], sizes[-1])
            )
            if many > 5.0 and many <= 0.9 * few:
                named.append(f"`{device}` ({name})")
    return ", ".join(named) or "none"


def page(
    found: dict[str, list[dict[str, object]]],
    options: argparse.Namespace,
    command: str,
    picture: str,
) -> str:
    """The tables with how they were made, as Markdown."""
    sizes = options.sizes
    text = ["# Latency from whole networks", ""]
    text += [
        "Latency on real devices, learnt from measured networks alone (`nas latency fit`): no",
        "operation is timed by itself.",
        "",
        "| networks measured | "
        + " | ".join(f"devices with MAPE ≤ 5 %: {n}" for n in found)
        + " |",
        "| --- |" + " --- |" * len(found),
        *(
            f"| {size} | " + " | ".join(within(d, size, 5.0) for d in found.values()) + " |"
            for size in sizes
        ),
        "",
        f"![MAPE by device]({picture})",
    ]
    joined = " / ".join(map(str, sizes))
    for name, documents in found.items():
        head = ["device", "median, ms", "spread, %"]
        head += [f"MAPE, %, {size} networks" for size in sizes]
        head += [f"ρ ({joined})", "within ±10 %, %", "within one deviation, %"]
        devices = list(dict.fromkeys(str(document["device"]) for document in documents))
        text += ["", f"## {name}", "", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        text += ["| " + " | ".join(row(documents, d, sizes)) + " |" for d in devices]
        for device in devices:
            first = next(document for document in documents if document["device"] == device)
            if first["whole_ms"]:
                text += [
                    "",
                    f"`{device}` is in whole ms, which alone makes a MAPE of about "
                    f"{first['rounding']:.1f} %.",
                ]
    documents = [document for several in found.values() for document in several]
    recipes: dict[str, int] = {}
    for document in documents:
        recipe = document["recipe"]
        assert isinstance(recipe, dict)
        shown = f"{recipe['model']}, {recipe['scale']}{', robust' if recipe['robust'] else ''}"
        recipes[shown] = recipes.get(shown, 0) + 1
    chosen = ";\n  ".join(f"{k}: {v}" for k, v in sorted(recipes.items(), key=lambda x: -x[1]))
    seconds = statistics.median(float(str(document["seconds"])) for document in documents)
    text += [
        "",
        f"""- {options.seeds} seeds: mean ± standard deviation of the MAPE, means of the rest.
  Errors are those of up to {HELD_OUT:,} networks that no fit has seen.
- Spread: the standard deviation of a device's latencies over their mean; the error of whoever
  predicts the mean is about four fifths of it.
- The recipe (features, ridge or Gaussian process, ms or logarithm, with or without a guard against
  outliers) is chosen in each fit by 5-fold cross-validation among its own networks. Chosen:
  {chosen}.
- Within one deviation: 68 % where the predicted deviations are right and errors normal.
- Disconnected cells of NAS-Bench-201 are left out.
- Of the devices above 5 % with {sizes[-1]} networks, these are better by a tenth or more than with
  {sizes[0]}: {still_better(found, sizes)}.
- A fit takes {seconds:.1f} s (median, one core of a busy machine), Python
  {platform.python_version()}.

```
{command}
```
""",
    ]
    return "\n".join(text)


def draw(found: dict[str, list[dict[str, object]]], sizes: Sequence[int], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = max(len({d["device"] for d in documents}) for documents in found.values())
    figure, axes = pyplot.subplots(
        1, len(found), figsize=(5.5 * len(found), 1.2 + 0.24 * count), squeeze=False
    )
    for axis, (name, documents) in zip(axes[0], found.items(), strict=True):
        devices = sorted(
            {str(document["device"]) for document in documents},
            key=lambda device: -statistics.mean(values(documents, device, sizes[-1], "mape")),
        )
        places = np.arange(len(devices))
        for size, colour in zip(sizes, ("#b3cde3", "#6497b1", "#03396c", "#000000"), strict=False):
            heights = [statistics.mean(values(documents, d, size, "mape")) for d in devices]
            axis.plot(heights, places, "o", color=colour, label=f"{size} networks")
        axis.axvline(5.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_yticks(places, devices)
        axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xticks([0, 1, 2, 5, 10, 20], ["0", "1", "2", "5", "10", "20"])
        axis.set_xlabel("MAPE on other networks, %")
        axis.set_title(name)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

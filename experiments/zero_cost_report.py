"""The page and the picture of ``zero_cost.py``."""

from __future__ import annotations

import argparse
import io
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from nas.cost import parameters_and_macs
from nas.history import write_file
from nas.ranking import by_table, rank_agreement
from nas.space import parse
from nas.tables.making import processor
from nas.zero_cost import AZ_NAS, LOWEST, combined, merge, relative_rank
from nas.zero_cost.recipe import NASBENCH201
from search_spaces.nasbench201 import NasBench201

PASS = AZ_NAS[:3]
"""Of AZ-NAS, what has to run the network."""

RANK_SUM = "macs, synflow, naswot: rank sum"
FULL = "AZ-NAS, the benchmark's network"
RECIPE = "the recipe"

OTHERS = {
    "macs": ("0.753", "0.728"),
    "synflow": ("0.772", "0.747"),
    "naswot": ("0.706 to 0.78", "0.735"),
    RANK_SUM: ("0.822", "0.814"),
    FULL: ("0.913", "0.900"),
}
"""Spearman ρ that others report: CIFAR-10, CIFAR-100."""


def choice_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["network", *PASS, "all four and MACs", "ms", "ms with the build"]
    cells = [
        [
            row["size"],
            *(f"{row[name]:.3f}" for name in (*PASS, "all four")),
            f"{row['ms']:.0f}",
            f"{row['ms'] + row['build_ms']:.0f}",
        ]
        for row in rows
    ]
    return markdown(head, cells)


def report(
    archs: Sequence[str],
    scored: Mapping[str, Sequence[Mapping[str, Any]]],
    known: Sequence[Mapping[str, Any]],
    times: Mapping[str, Mapping[str, float]],
    options: argparse.Namespace,
) -> str:
    space = NasBench201()
    parsed = [parse(space, text) for text in archs]
    counts = np.array([parameters_and_macs(space, arch) for arch in parsed], dtype=float)
    columns: dict[str, Any] = {"params": counts[:, 0], "macs": counts[:, 1]}
    costs = {"params": "0", "macs": "0"}
    for task, lines in scored.items():
        if task not in ("recipe", "az_nas"):
            for name in lines[0]["values"]:
                columns[name] = [line["values"][name] for line in lines]
                costs[name] = f"{times[task]['score']:.0f}"
    connected = np.array([line["connected"] for line in scored["recipe"]])
    if {"synflow", "naswot"} <= set(columns):
        three = {name: columns[name] for name in ("macs", "synflow", "naswot")}
        columns[RANK_SUM] = combined(three, "mean", connected)
        costs[RANK_SUM] = f"{times['synflow']['score'] + times['naswot']['score']:.0f}"
    if "az_nas" in scored:
        columns[FULL] = combined(four(scored["az_nas"], columns["macs"]), "geometric", connected)
        costs[FULL] = f"{times['az_nas']['score']:.0f}"
    small = four(scored["recipe"], columns["macs"])
    columns[RECIPE] = combined(small, "geometric", connected)
    others = [parameters_and_macs(space, parse(space, line["arch"]))[1] for line in known]
    alone = four(known, others)
    ranks = np.array([[relative_rank(v, alone[name]) for v in small[name]] for name in AZ_NAS])
    title = f"the recipe, each network alone against {len(known)} others"
    columns[title] = np.where(connected, merge(ranks, "geometric"), 0.0)
    costs[RECIPE] = costs[title] = f"{times['recipe']['score']:.0f}"
    truths = {}
    for dataset in ("cifar10", "cifar100"):
        value = by_table(options.table, space, "test_acc_200", dataset)
        truths[dataset] = [value(arch) for arch in parsed]
    rows, rhos = [], {}
    for name, column in track(columns.items(), "intervals", console=Console(stderr=True)):
        found = [
            rank_agreement(list(column), truth, top=(), resamples=options.resamples)
            for truth in truths.values()
        ]
        rhos[name] = [agreement.spearman.value for agreement in found]
        cells = [str(e) for agreement in found for e in (agreement.spearman, agreement.kendall)]
        rows.append([name, *cells, " / ".join(OTHERS.get(name, ("–", "–"))), costs[name]])
    picture = options.page.with_suffix(".png")
    write_file(picture, drawing(rhos, columns[RECIPE], truths))
    head = ["score", "ρ, CIFAR-10", "τ", "ρ, CIFAR-100", "τ", "ρ of others", "ms"]
    command = shlex.join(["python", "experiments/zero_cost.py", *sys.argv[1:]])
    chosen = options.out / "choose.json"
    choice = choice_text(json.loads(chosen.read_text())) if chosen.exists() else ""
    size = options.batch_size
    own = times["recipe"]
    largest = max(task["build"] for task in times.values())
    changed = ", ".join(f"{key} {value}" for key, value in NASBENCH201.network.items())
    return f"""# Zero-cost proxies on NAS-Bench-201

{len(archs)} random architectures, {int((~connected).sum())} of them without a path from input to
output, against the benchmark's test accuracy after 200 epochs. Spearman ρ and Kendall τ with 95 %
intervals by the bootstrap.

{markdown(head, rows)}

![ρ of each score, and the recipe's scores against accuracy]({picture.name})

- Networks are the benchmark's (16 channels, 5 cells a stage, 32×32) with fresh weights, given
  images of CIFAR-10 where a proxy needs some (Zen-score and AZ-NAS are given noise, SynFlow ones):
  batch {size}, NASWOT {2 * size}, GraSP {size // 2}, ZiCo two halves of {size // 2}. The papers
  take 64 and 128; figures of others are for their batches, samples and seeds.
- ms: processor time, median of {options.timed} architectures on one thread, scores interleaved,
  without building the network ({largest:.0f} ms). grad_norm, snip and fisher
  come from one pass; so do AZ-NAS's three.
- The recipe: AZ-NAS's four proxies by the geometric mean of ranks, batch
  {NASBENCH201.batch_size}, on the space rebuilt with {changed}: {own["score"]:.0f} ms,
  {own["both"]:.0f} ms with building that network. MACs are those of the benchmark's network.
- Networks without a path from input to output score {LOWEST:g} in what runs them, and 0 where
  ranks are joined.
- Seed {options.seed}; Python {platform.python_version()}, torch {torch.__version__}, {processor()}.

```
OMP_NUM_THREADS=1 {command}
```
{choice}"""


def four(lines: Sequence[Mapping[str, Any]], macs: Sequence[float]) -> dict[str, Any]:
    """AZ-NAS's four proxies as columns."""
    found: dict[str, Any] = {name: [line["values"][name] for line in lines] for name in PASS}
    return {**found, "macs": macs}


def choice_text(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"""
## How the recipe was chosen

Without accuracies: ρ of the ranking by small networks with the ranking by AZ-NAS in its published
size (first line), on {rows[0]["architectures"]} other random architectures.

{choice_table(rows)}

```
OMP_NUM_THREADS=1 python experiments/zero_cost.py --choose {rows[0]["architectures"]}
```
"""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def drawing(
    rhos: Mapping[str, Sequence[float]],
    recipe: Sequence[float],
    truths: Mapping[str, Sequence[float]],
) -> bytes:
    """ρ as bars, and the recipe's scores against both accuracies, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    bars, *scatters = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    order = sorted(rhos, key=lambda name: rhos[name][0])
    places = np.arange(len(order))
    names = {0: ("CIFAR-10", "#30638e"), 1: ("CIFAR-100", "#d1495b")}
    for column, (label, colour) in names.items():
        values = [rhos[name][column] for name in order]
        bars.barh(places + 0.2 - 0.4 * column, values, 0.4, color=colour, label=label)
    bars.set_yticks(places, order, fontsize=7)
    bars.set(xlabel="Spearman ρ")
    bars.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    for axes, truth, (label, colour) in zip(scatters, truths.values(), names.values(), strict=True):
        axes.plot(recipe, truth, ".", markersize=3, color=colour)
        axes.set(xlabel="the recipe's score", ylabel=f"test accuracy, {label} (%)")
    for axes in (bars, *scatters):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

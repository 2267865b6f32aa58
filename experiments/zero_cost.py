"""How well scores of untrained networks rank NAS-Bench-201, and what each costs.

Scores random architectures on CIFAR-10 images and compares with the benchmark's test accuracies
after 200 epochs. Scores are appended to a file below ``--out``, so a run that ends goes on where
it was; the table is not read before all are there.

    python experiments/zero_cost.py --table nb201.npz --data FOLDER

``--choose`` reads no table at all: it measures how well small networks' AZ-NAS agrees with that of
the published size, and what it costs. The recipe (``nas.zero_cost.recipe``) was chosen by that.

    python experiments/zero_cost.py --choose 100
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from zero_cost_report import PASS, choice_table, report

from nas.cost import parameters_and_macs
from nas.data import cifar10
from nas.errors import DataError, nearest
from nas.history import write_file
from nas.space import format_architecture, network, parse, sample
from nas.training import reproducible
from nas.zero_cost import AZ_NAS, Batch, combined, measured
from nas.zero_cost.recipe import NASBENCH201
from search_spaces.nasbench201 import NasBench201

FORMAT = 1
PUBLISHED = {"channels": 16, "cells": 5, "input": (3, 32, 32)}
SIZES = (
    (16, 1, 16, 16),
    (16, 1, 16, 32),
    (8, 1, 32, 16),
    (8, 1, 16, 32),
    (8, 2, 16, 16),
    (8, 2, 16, 32),
    (8, 3, 16, 8),
    (8, 3, 16, 16),
    (8, 5, 16, 16),
    (4, 5, 16, 16),
    (16, 2, 16, 16),
)
"""Channels, cells a stage, height and width, batch."""

TASKS = (
    "recipe",
    "synflow",
    "naswot",
    "jacob_cov",
    "gradients",
    "zen",
    "zico",
    "az_nas",
    "grasp",
)


@dataclass(frozen=True)
class Task:
    """Some proxies, on networks of one size."""

    name: str
    proxies: tuple[str, ...]
    batch: int
    size: Mapping[str, Any]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, help="nb201.npz")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--choose", type=int, metavar="N", help="compare sizes on N architectures")
    parser.add_argument("--architectures", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="(all)")
    parser.add_argument("--timed", type=int, default=40, help="architectures (%(default)s)")
    parser.add_argument("--reference", type=int, default=100, help="of the score of one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=500, help="of intervals (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/zero_cost"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/zero_cost.md"))
    options = parser.parse_args(arguments)
    if options.choose is None and (options.table is None or options.data is None):
        parser.error("give --table and --data, or --choose N")
    torch.set_num_threads(1)
    if options.choose is not None:
        found = choose(options.choose, options.out, options.seed)
        write_file(options.out / "choose.json", json.dumps(found, indent=1).encode())
        print(choice_table(found))
        return
    if "recipe" not in options.tasks:
        parser.error("--tasks must include recipe: the page is about it")
    tasks = {task.name: task for task in every_task(options)}
    for name in options.tasks:
        if name not in tasks:
            parser.error(f"there is no task {name!r}: {nearest(name, tasks)}")
    archs = drawn(options.architectures, options.seed)
    scored = {
        name: scores_of(archs, tasks[name], options, f"{name}.jsonl") for name in options.tasks
    }
    alone = drawn(options.reference, options.seed + 1_000)
    known = scores_of(alone, tasks["recipe"], options, "reference.jsonl")
    times = timed(archs[: options.timed], [tasks[name] for name in options.tasks], options)
    page = report(archs, scored, known, times, options)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(page)
    print(page)


def every_task(options: argparse.Namespace) -> list[Task]:
    """What is scored, the cheap first."""
    size = options.batch_size
    return [
        Task("recipe", PASS, NASBENCH201.batch_size, NASBENCH201.network),
        Task("synflow", ("synflow",), 2, PUBLISHED),
        Task("naswot", ("naswot",), 2 * size, PUBLISHED),
        Task("jacob_cov", ("jacob_cov",), size, PUBLISHED),
        Task("gradients", ("grad_norm", "snip", "fisher"), size, PUBLISHED),
        Task("zen", ("zen",), size, PUBLISHED),
        Task("zico", ("zico",), size, PUBLISHED),
        Task("az_nas", PASS, size, PUBLISHED),
        Task("grasp", ("grasp",), size // 2, PUBLISHED),
    ]


# ------------------------------------------------------------------------------- scoring


def drawn(count: int, seed: int) -> list[str]:
    """So many different random architectures, as text."""
    rng, space = np.random.default_rng([seed, 29]), NasBench201()
    found: dict[str, None] = {}
    while len(found) < count:
        found[format_architecture(space, sample(space, rng))] = None
    return list(found)


def scores_of(
    archs: Sequence[str], task: Task, options: argparse.Namespace, name: str
) -> list[dict[str, Any]]:
    """What a task finds of every architecture, from the file or anew."""
    settings = {
        "format": FORMAT,
        "seed": options.seed,
        "proxies": list(task.proxies),
        "batch": task.batch,
        "network": {key: list(v) if isinstance(v, tuple) else v for key, v in task.size.items()},
    }
    path = options.out / name
    done = read(path, settings)
    todo = [text for text in archs if text not in done]
    if todo:
        space = NasBench201(**task.size)
        batch = Batch.of(cifar10(options.data), task.batch, options.seed, space.input)
        with path.open("a") as file:
            for text in track(todo, f"scoring, {name}", console=Console(stderr=True)):
                done[text] = {"arch": text, **one(text, task, space, batch, options.seed)}
                file.write(json.dumps(done[text]) + "\n")
                file.flush()
    return [done[text] for text in archs]


def timed(
    archs: Sequence[str], tasks: Sequence[Task], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """The median milliseconds of building and of scoring by task, from the file or anew."""
    path = options.out / "times.json"
    settings = [options.timed, options.seed, options.batch_size]
    held = json.loads(path.read_text()) if path.exists() else {}
    known: dict[str, dict[str, float]] = {}
    if held.get("settings") == settings:
        known = held["times"]
    if all(task.name in known for task in tasks):
        return known
    data = cifar10(options.data)
    spaces = {task.name: (task, NasBench201(**task.size)) for task in tasks}
    batches = {
        name: Batch.of(data, task.batch, options.seed, space.input)
        for name, (task, space) in spaces.items()
    }
    found: dict[str, dict[str, list[float]]] = {}
    # One architecture by every task before the next: what disturbs the clock disturbs all alike.
    for text in track(archs, "timing", console=Console(stderr=True)):
        for name, (task, space) in spaces.items():
            line = one(text, task, space, batches[name], options.seed)
            own = found.setdefault(name, {"build": [], "score": [], "both": []})
            own["build"].append(line["build_ms"])
            own["score"].append(line["ms"])
            own["both"].append(line["build_ms"] + line["ms"])
    medians = {
        name: {key: float(np.median(values)) for key, values in own.items()}
        for name, own in found.items()
    }
    medians = known | medians
    write_file(path, json.dumps({"settings": settings, "times": medians}, indent=1).encode())
    return medians


def one(text: str, task: Task, space: NasBench201, batch: Batch, seed: int) -> dict[str, Any]:
    """What a task finds of an architecture, and the milliseconds."""
    arch = parse(space, text)
    # The processor's time, not the clock's: other work on the machine counts little in it.
    start = time.process_time()
    with reproducible(seed, 1):
        built = network(space, arch)
    middle = time.process_time()
    found = measured(task.proxies, built, batch, seed, text)
    return {
        "values": dict(found.values),
        "connected": found.connected,
        "build_ms": 1000 * (middle - start),
        "ms": 1000 * (time.process_time() - middle),
    }


def read(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The lines of a file of scores by architecture; begins the file where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (json.dumps(settings) + "\n").encode())
        return {}
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # it was killed while it wrote the last one
            break
    if not lines or lines[0] != settings:
        raise DataError(f"{path} holds scores of other settings: give another --out, or delete it")
    write_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return {line["arch"]: line for line in lines[1:]}


# ------------------------------------------------------------------------------- choosing


def choose(count: int, out: Path, seed: int) -> list[dict[str, Any]]:
    """Agreement (Spearman ρ) of small networks' AZ-NAS with the published size's; no accuracies."""
    from scipy.stats import spearmanr

    archs = drawn(count, seed + 2_000)
    full = (16, 5, 32, 64)
    wanted = [(full, seed), (full, seed + 1), *((size, seed) for size in SIZES)]
    columns: list[dict[str, Any]] = [{} for _ in wanted]
    # One architecture in every size before the next: what disturbs the clock disturbs all.
    for text in track(archs, "comparing sizes", console=Console(stderr=True)):
        for (size, own_seed), column in zip(wanted, columns, strict=True):
            c, cells, pixels, batch = size
            space = NasBench201(c, cells, input=(3, pixels, pixels))
            task = Task("", PASS, batch, {})
            noise = Batch.noise(space.input, batch, own_seed)
            found = one(text, task, space, noise, own_seed)
            for name, value in found["values"].items():
                column.setdefault(name, []).append(value)
            macs = parameters_and_macs(NasBench201(), parse(space, text))[1]
            column.setdefault("macs", []).append(macs)
            column.setdefault("connected", []).append(found["connected"])
            column.setdefault("build_ms", []).append(found["build_ms"])
            column.setdefault("ms", []).append(found["ms"])
    for column in columns:
        ranked = {name: column[name] for name in AZ_NAS}
        column["all four"] = combined(ranked, "geometric", column["connected"]).tolist()
    rows = []
    for ((c, cells, pixels, batch), own_seed), column in zip(wanted, columns, strict=True):
        label = f"{c} channels, {cells} cells, {pixels}×{pixels}, batch {batch}"
        rows.append(
            {
                "size": label if own_seed == seed else f"{label}, other weights",
                **{
                    name: float(spearmanr(column[name], columns[0][name]).statistic)
                    for name in (*PASS, "all four")
                },
                "build_ms": float(np.median(column["build_ms"])),
                "ms": float(np.median(column["ms"])),
                "architectures": count,
            }
        )
    return rows


if __name__ == "__main__":
    main()

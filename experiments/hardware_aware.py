"""Searches a small MBConv space on Fashion-MNIST for accuracy within budgets of measured latency.

Times every operation of the space with onnxruntime on this machine, searches by regularised
evolution with that table for three budgets (an architecture over the budget is never trained),
measures what it found end to end in a fresh process, and trains it anew beside MobileNetV2 in the
widths and depths whose measured latency fits the same budgets.

    python experiments/hardware_aware.py

Everything that was measured, searched or trained is kept in the folder of ``--out``; a killed run
goes on there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.mobile_space import mobile

from evaluators.latency import LatencyEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, maximize, minimize, watch
from nas.architecture import Architecture
from nas.components import create, describe
from nas.cost import architecture_cost
from nas.data import Data, fashion_mnist, first
from nas.history import write_file
from nas.latency.fresh import Whole, measured
from nas.latency.measure import Protocol, Timing
from nas.latency.operations import operations
from nas.latency.table import LatencyTable, at_speed, continued, empty_table, profiled
from nas.layers.attention import divisible
from nas.page.latency import write_measured
from nas.space import SearchSpace, sample
from nas.training import Recipe, retrain
from search_spaces.mbconv import MBConv, Stage
from strategies.regularized_evolution import RegularizedEvolution

BACKEND = "onnxruntime"
RECIPE = Recipe(channels_last=True)
"""Depthwise convolutions are trained twice as fast so on a CPU."""

Network = tuple[SearchSpace, Architecture]
SHARES = (0.3, 0.6, 0.95)
"""Of random architectures that are within each budget, where ``--budgets`` gives none."""

MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                (6, 160, 3, 1), (6, 320, 1, 1))  # fmt: skip
"""Expansion, channels, blocks and stride of its stages; the strides are those that leave 4×4 of a
28×28 image, as the searched space does (the paper's network divides by 32)."""

WIDTHS = (15, 25, 35, 50, 75, 100)
DEPTHS = (25, 50, 66, 100)
"""Per cent of MobileNetV2's channels and of its blocks."""

SIZES = [(width, depth) for depth in DEPTHS for width in WIDTHS]
ONLY = Architecture(MBConv.name, ())
"""The one architecture of a space in which nothing is open."""


@dataclass(frozen=True)
class Contender:
    """A network that fits a budget.

    Attributes:
        budget: in ms.
        predicted: by the table, in ms; ``None`` for MobileNetV2.
        timing: measured end to end.
    """

    name: str
    budget: float
    space: SearchSpace
    arch: Architecture
    predicted: float | None
    timing: Timing

    @property
    def space_digest(self) -> str:
        return hashlib.blake2b(repr(self.space).encode(), digest_size=6).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    began = time.perf_counter()
    torch.set_num_threads(1)
    data = fashion_mnist(options.data)
    space = mobile(classes=data.classes, input=data.input)
    protocol = Protocol(clock="cpu", seconds=options.seconds)
    path = options.out / "table.json"
    table = profiled_table(space, path, protocol)
    budgets = options.budgets or quantiles(table, space)
    print("budgets, ms:", ", ".join(f"{budget:.3f}" for budget in budgets), flush=True)
    found, searches = [], []
    for budget in budgets:
        arch, facts = searched(space, data, path, budget, options)
        searches.append(facts)
        found.append(arch)
    mobile_nets = {size: mobilenet_v2(data, *size) for size in SIZES}
    networks = [(space, arch) for arch in found]
    networks += [(other, ONLY) for other in mobile_nets.values()]
    timings = end_to_end(networks, table, options.out)
    for budget, arch, timing in zip(budgets, found, timings, strict=False):
        write_measured(search_folder(options, budget), space, {arch: timing.ms})
    contenders = [
        Contender("found", budget, space, arch, table.predict(space, arch), timing)
        for budget, arch, timing in zip(budgets, found, timings, strict=False)
    ]
    latency = dict(zip(SIZES, timings[len(found) :], strict=True))
    contenders += baselines(budgets, mobile_nets, latency)
    accuracies = [trained(one, data, options) for one in contenders]
    command = shlex.join(["python", "experiments/hardware_aware.py", *sys.argv[1:]])
    picture = options.page.with_suffix(".png")
    options.page.parent.mkdir(parents=True, exist_ok=True)
    draw(contenders, accuracies, picture)
    seconds = json_of(options.out / "seconds.json", lambda: 0.0) + time.perf_counter() - began
    write_file(options.out / "seconds.json", json.dumps(seconds).encode())
    text = page(contenders, accuracies, searches, table, options, picture.name, command, seconds)
    options.page.write_text(text)
    print(text)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budgets", type=float, nargs="+", metavar="MS")
    parser.add_argument("--trials", type=int, default=20, help="a budget (%(default)s)")
    parser.add_argument("--population", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--sample", type=int, default=3, help="of a tournament (%(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="to search on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="of a trial (%(default)s)")
    parser.add_argument("--final-images", type=int, default=5000, help="(%(default)s)")
    parser.add_argument("--final-epochs", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="of the last training (%(default)s)")
    parser.add_argument("--test-images", type=int, default=5000, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a timing (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder")
    parser.add_argument("--out", type=Path, default=Path("runs/hardware_aware"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/hardware_aware.md"))
    return parser.parse_args(arguments)


def json_of(path: Path, make: Any) -> Any:
    """What a file holds; made, and kept there, where there is none."""
    if not path.exists():
        write_file(path, json.dumps(make()).encode())
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------ latencies


def profiled_table(space: SearchSpace, path: Path, protocol: Protocol) -> LatencyTable:
    """The table in a file, measured as far as it is not; as ``nas latency profile`` does."""
    wanted = operations(space)
    table = empty_table(space, BACKEND, protocol, file=str(path))
    if path.exists():
        table = replace(
            continued(LatencyTable.load(path), space, BACKEND, protocol), protocol=protocol
        )

    def keep(found: LatencyTable, waiting: int) -> None:
        found.save(path)
        print(f"timed {len(found.entries)} operations, {waiting} to go", flush=True)

    return profiled(table, space, wanted, keep)


def quantiles(table: LatencyTable, space: SearchSpace) -> list[float]:
    rng = np.random.default_rng(0)
    drawn = [table.predict(space, sample(space, rng)) for _ in range(200)]
    return [round(float(np.quantile(drawn, share)), 4) for share in SHARES]


def end_to_end(networks: Sequence[Network], table: LatencyTable, folder: Path) -> list[Timing]:
    """What whole networks take, all measured beside one another in a fresh process.

    The table's reference network is among them, and all are brought to the speed that the machine
    had when the table was measured.
    """
    wanted = {
        "reference_ms": table.reference_ms,
        "protocol": asdict(table.protocol),
        "networks": [[describe(space), arch.to_json()] for space, arch in networks],
    }
    path = folder / "end_to_end.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    if held.get("wanted") != wanted:
        targets = [Whole(str(place), *one) for place, one in enumerate(networks)]
        own = create("spaces", table.description, "space")
        (found,) = measured(own, targets, BACKEND, table.protocol, group=len(targets))
        speed = table.reference_ms / found.reference.ms
        timings = [asdict(at_speed(found.timings[one.name], speed)) for one in targets]
        held = {"wanted": wanted, "timings": timings}
        write_file(path, json.dumps(held).encode())
    return [Timing(**timing) for timing in held["timings"]]


# ------------------------------------------------------------------------------- searches


def searched(
    space: SearchSpace, data: Data, table: Path, budget: float, options: argparse.Namespace
) -> tuple[Architecture, dict[str, float]]:
    """The most accurate network that evolution found within a budget, in short trainings."""
    objectives = (maximize("accuracy"), minimize("latency_ms", limit=budget))
    part = first(data, options.images)
    evaluator = Staged(
        (
            LatencyEvaluator(space, str(table)),
            TrainingEvaluator(
                space, part, epochs=options.epochs, recipe=RECIPE, keep_weights=False
            ),
        ),
        objectives,
    )
    strategy = RegularizedEvolution(
        space, objectives, options.seed, options.population, options.sample
    )
    history = History(search_folder(options, budget))
    for trial in watch(strategy, evaluator, Serial(), Budget(trials=options.trials), history):
        print(budget, trial, flush=True)
    best = history.best("accuracy", among=history.front(objectives))
    measured_trials = [trial for trial in history.trials if trial.values]
    facts = {
        "trials": len(measured_trials),
        "refused": len(history.trials) - len(measured_trials),
        "seconds": sum(trial.cost.seconds for trial in history.trials),
    }
    return best.arch, facts


def search_folder(options: argparse.Namespace, budget: float) -> Path:
    folder: Path = options.out / f"search_{budget:g}"
    return folder


# ------------------------------------------------------------------------------ baselines


def mobilenet_v2(data: Data, width: int, depth: int) -> MBConv:
    """MobileNetV2 at so many per cent of its channels and of its blocks; a space of one network.

    The head has four times the channels of the last stage, as the paper's at width 1.
    """

    def scaled(channels: int) -> int:
        return divisible(channels * width / 100, 8)

    layout = tuple(
        Stage(
            ("ds_k3" if expansion == 1 else f"ir_k3_e{expansion}",),
            (scaled(channels),),
            (max(1, math.ceil(blocks * depth / 100 - 1e-9)),),
            stride,
        )
        for expansion, channels, blocks, stride in MOBILENET_V2
    )
    return MBConv(
        layout,
        stem=scaled(32),
        head=4 * scaled(320),
        widths=(100,),
        dropout=0.0,
        classes=data.classes,
        input=data.input,
    )


def baselines(
    budgets: Sequence[float],
    spaces: dict[tuple[int, int], MBConv],
    latency: dict[tuple[int, int], Timing],
) -> list[Contender]:
    """For each budget, the MobileNetV2 of the most multiply-accumulates that keeps it.

    Once of all blocks in some width, once of any width and depth.
    """
    for (width, depth), timing in latency.items():
        print(f"MobileNetV2, width {width} %, depth {depth} %: {timing.ms:.3f} ms", flush=True)
    contenders: list[Contender] = []
    for budget in budgets:
        picked = set()
        for depths in ((100,), DEPTHS):
            fitting = [s for s in spaces if s[1] in depths and latency[s].ms <= budget]
            if fitting:
                picked.add(max(fitting, key=lambda s: architecture_cost(spaces[s], ONLY).macs))
        for size in sorted(picked):
            name = f"MobileNetV2, {size[0]} % wide, {size[1]} % deep"
            contenders.append(Contender(name, budget, spaces[size], ONLY, None, latency[size]))
    return contenders


def trained(one: Contender, data: Data, options: argparse.Namespace) -> list[float]:
    """Test accuracies after training from new weights, a seed each."""
    part = first(data, options.final_images, options.test_images)
    accuracies = []
    for seed in range(options.seeds):

        def make(seed: int = seed) -> Any:
            found = retrain(
                one.space, one.arch, part, epochs=options.final_epochs, recipe=RECIPE, seed=seed
            )
            return found.test_accuracy

        training = f"{options.final_epochs}_{options.final_images}_{options.test_images}_{seed}"
        key = f"{one.arch.digest()}_{one.space_digest}_{training}"
        accuracies.append(json_of(options.out / "trained" / f"{key}.json", make))
    print(one.name, one.budget, accuracies, flush=True)
    return accuracies


# --------------------------------------------------------------------------------- report


def spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def blocks(one: Contender) -> str:
    """What is picked of each block: kernel, expansion and squeeze, stage by stage."""
    stages: dict[str, dict[str, str]] = {}
    for label, option in one.arch.picks:
        stage, _, rest = label.partition("/")
        block, _, part = rest.partition("/")
        if part == "se":
            option = "s" if option else ""
        elif part:
            option = f"{part[0]}{option}"
        if part:
            held = stages.setdefault(stage, {})
            held[block] = held.get(block, "") + str(option)
    return " – ".join(" ".join(held.values()) for held in stages.values())


def page(
    contenders: Sequence[Contender],
    accuracies: Sequence[Sequence[float]],
    searches: Sequence[dict[str, float]],
    table: LatencyTable,
    options: argparse.Namespace,
    picture: str,
    command: str,
    seconds: float,
) -> str:
    """The table with how it was made, as Markdown."""
    head = ["budget, ms", "network", "by the table, ms", "measured, ms (p10 to p90)", "MACs",
            "parameters", "test accuracy, %"]  # fmt: skip
    rows = []
    for one, values in sorted(
        zip(contenders, accuracies, strict=True), key=lambda pair: pair[0].budget
    ):
        cost = architecture_cost(one.space, one.arch)
        rows.append(
            [
                f"{one.budget:.3f}",
                one.name,
                "" if one.predicted is None else f"{one.predicted:.3f}",
                f"{one.timing.ms:.3f} ({one.timing.p10:.3f} to {one.timing.p90:.3f})",
                f"{cost.macs:,}",
                f"{cost.parameters:,}",
                spread(values),
            ]
        )
    lines = [head, ["---"] * len(head), *rows]
    off = [one.timing.ms / one.predicted - 1 for one in contenders if one.predicted]
    offs = ", ".join(f"{100 * value:+.1f} %" for value in off)
    found = [one for one in contenders if one.predicted is not None]
    trials = sum(int(facts["trials"]) for facts in searches)
    refused = sum(int(facts["refused"]) for facts in searches)
    spent = sum(facts["seconds"] for facts in searches)
    used = [one.timing.ms / one.budget for one in found]
    told = "The budgets were given."
    if not options.budgets:
        shares = ", ".join(f"{share:.0%}" for share in SHARES)
        told = f"The budgets\n  are the {shares} quantiles of random ones, by the table."
    machine = table.machine
    versions = machine.get("versions", {})
    return f"""# Accuracy within a budget of measured latency

Evolution on a small MBConv space, Fashion-MNIST as it is (28×28), for three budgets of latency with
onnxruntime on the machine it ran on; beside it MobileNetV2 in the widths and depths that fit.

{chr(10).join("| " + " | ".join(line) + " |" for line in lines)}

![Test accuracy and measured latency]({picture})

- Found (kernel, expansion, s: squeeze-and-excitation; stage by stage):
  {"; ".join(f"{one.budget:.3f} ms: {blocks(one)}" for one in found)}.
- Space: `experiments/benchmarks/mobile_space.py`, {mobile().size():,} architectures. {told}
- Of its budget, what was found takes {", ".join(f"{share:.0%}" for share in used)}.
- Table: {len(table.entries)} operations, timed one by one. The latency of what was found differs
  from what it said by {offs}.
- Latency: one image, one thread, the thread's own time, medians; {machine.get("cpu")}, onnxruntime
  {versions.get("onnxruntime")}, torch {versions.get("torch")}. Other work ran on the machine.
- Search: regularised evolution (population {options.population}, tournaments of {options.sample}),
  {trials} trials in all of {options.epochs} epochs on {options.images:,} images, a fifth of which
  validates; {refused} architectures were refused by their predicted latency, without training.
  {spent / 60:.0f} minutes. One seed.
- MobileNetV2: stride 2 in the stem and in the third and fourth stage, so that its last stages have
  the searched space's size (the paper's strides are for 224×224); head four times as wide as the
  last stage. Of each budget the network of the most MACs that keeps it, measured: of all blocks,
  and of any depth ({", ".join(map(str, DEPTHS))} % of the blocks, widths
  {", ".join(map(str, WIDTHS))} %).
- Accuracy: all trained alike from new weights, {options.final_epochs} epochs on
  {options.final_images:,} images, {options.seeds} seeds (mean ± standard deviation), on
  {options.test_images:,} test images that the search never saw. It ranks the networks at this
  training; fully trained, all of them reach more.
- {seconds / 60:.0f} minutes in all on one core.

```
{command}
```
"""


def draw(
    contenders: Sequence[Contender], accuracies: Sequence[Sequence[float]], path: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.5, 4.2))
    for found, marker, label in ((True, "o", "found"), (False, "s", "MobileNetV2")):
        points = sorted(
            (one.timing.ms, 100 * statistics.mean(values), 100 * (max(values) - min(values)) / 2)
            for one, values in zip(contenders, accuracies, strict=True)
            if (one.predicted is not None) == found
        )
        if points:
            x, y, error = zip(*points, strict=True)
            axis.errorbar(x, y, error, fmt=marker, linestyle="--", capsize=3, label=label)
    for budget in dict.fromkeys(one.budget for one in contenders):
        axis.axvline(budget, color="grey", linewidth=0.7)
    axis.set_xlabel("measured latency, ms (lines: budgets)")
    axis.set_ylabel("test accuracy, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

"""Sampling rules of an elastic supernet at equal cost: uniform, sandwich, progressive shrinking.

Trains one supernet a rule and a seed on Fashion-MNIST, each for as many epochs as the multiply-
accumulates of the sandwich's training allow it, and tests sub-networks over the range of MACs with
inherited weights.

    python experiments/elastic_sampling.py

What was trained is kept in the folder of ``--out``; a killed run goes on there.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.elastic_space import elastic

from evaluators.one_shot import OneShot
from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.data import Data, fashion_mnist, first
from nas.history import write_file
from nas.space import SearchSpace
from nas.specialize import Inherited, spread_over_costs
from nas.supernet.files import load_supernet
from nas.supernet.plans import PLANS
from nas.supernet.training import PathSettings

RULES = ("uniform", "sandwich", "progressive")
HELD_OUT, BATCH = 0.2, 64
STEPS = 400
"""Steps that are drawn to find out what a rule's training costs."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    torch.set_num_threads(1)
    space = elastic()
    data = first(fashion_mnist(options.data), options.images, options.test_images)
    drawn = spread_over_costs(space, seed=1)
    tested = sorted(
        (next(drawn) for _ in range(options.networks)),
        key=lambda arch: architecture_cost(space, arch).macs,
    )
    known: dict[Architecture, int] = {}
    costs = {rule: macs_an_example(space, rule, known) for rule in RULES}
    epochs = {
        rule: max(1, round(options.epochs * costs["sandwich"] / costs[rule])) for rule in RULES
    }
    print("epochs:", epochs, flush=True)
    found = {
        rule: [
            accuracies(rule, seed, epochs[rule], tested, data, options)
            for seed in range(options.seeds)
        ]
        for rule in RULES
    }
    command = shlex.join(["python", "experiments/elastic_sampling.py", *sys.argv[1:]])
    options.page.parent.mkdir(parents=True, exist_ok=True)
    text = page(found, costs, epochs, tested, options, command)
    options.page.write_text(text)
    print(text)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5, help="of the sandwich (%(default)s)")
    parser.add_argument("--images", type=int, default=10_000, help="to train on (%(default)s)")
    parser.add_argument("--test-images", type=int, default=5_000, help="(%(default)s)")
    parser.add_argument("--networks", type=int, default=12, help="to be tested (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/elastic_sampling"))
    parser.add_argument("--page", type=Path, default=Path("runs/elastic_sampling/page.md"))
    return parser.parse_args(arguments)


def macs_an_example(space: SearchSpace, rule: str, known: dict[Architecture, int]) -> float:
    """What a step costs for each of its examples: forward passes' MACs, of a training's average.

    A forward pass with its backward pass counts three; the teacher's, which has none, one.
    """

    def macs(arch: Architecture) -> int:
        if arch not in known:
            known[arch] = architecture_cost(space, arch).macs
        return known[arch]

    plan = PLANS[rule](space, None)
    weight = sum(phase.weight for phase in plan.phases)
    rng = np.random.default_rng(0)
    total = 0.0
    for phase in plan.phases:
        taught = macs(plan.teacher) if phase.teaching == "teacher" and plan.teacher else 0
        steps = [phase.paths(rng) for _ in range(STEPS)]
        trained = statistics.mean(sum(map(macs, archs)) for archs in steps)
        total += phase.weight / weight * (trained + taught / 3)
    return total


def accuracies(
    rule: str,
    seed: int,
    epochs: int,
    tested: list[Architecture],
    data: Data,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Trains a supernet and tests its networks: ``accuracies`` and processor ``seconds``."""
    folder = options.out / f"{rule}_{seed}"
    path = folder / f"{epochs}_{options.images}_{len(tested)}_{options.test_images}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    settings = PathSettings(
        epochs=epochs, batch_size=BATCH, schedule="cosine", zero_residuals=True, channels_last=True
    )
    checkpoint = folder / f"{epochs}_{options.images}.safetensors"
    evaluator = OneShot(
        elastic(), data, checkpoint, rule, settings, seed, validation_fraction=HELD_OUT
    )  # type: ignore[arg-type]  # one of RULES
    started = time.process_time()
    evaluator.fit()
    seconds = time.process_time() - started
    inherited = Inherited(load_supernet(checkpoint, elastic()), data)
    found = [inherited.test(inherited.network(arch)) for arch in tested]
    document = {"accuracies": found, "seconds": seconds}
    write_file(path, json.dumps(document).encode())
    print(f"{rule}, seed {seed}: mean {statistics.mean(map(float, found)):.4f}", flush=True)  # type: ignore[arg-type]  # there is a test set
    return document


def updates(epochs: int, options: argparse.Namespace) -> int:
    """Steps of a training."""
    return epochs * math.ceil(options.images * (1 - HELD_OUT) / BATCH)


def page(
    found: dict[str, list[dict[str, Any]]],
    costs: dict[str, float],
    epochs: dict[str, int],
    tested: list[Architecture],
    options: argparse.Namespace,
    command: str,
) -> str:
    macs = [architecture_cost(elastic(), arch).macs for arch in tested]
    third = max(1, len(tested) // 3)
    parts = {
        "all": slice(None),
        "small": slice(0, third),
        "middle": slice(third, len(tested) - third),
        "large": slice(len(tested) - third, None),
    }
    lines = []
    for rule in RULES:
        cells = []
        for part in parts.values():
            means = [100 * statistics.mean(run["accuracies"][part]) for run in found[rule]]
            spread = statistics.stdev(means) if len(means) > 1 else 0.0
            cells.append(f"{statistics.mean(means):.2f} ± {spread:.2f}")
        seconds = statistics.mean(run["seconds"] for run in found[rule])
        macs_all = costs[rule] * 3 * epochs[rule] * options.images * (1 - HELD_OUT)
        first_cells = (
            f"{rule} | {epochs[rule]} | {updates(epochs[rule], options):,} | "
            f"{macs_all / 1e12:.2f} | {seconds:,.0f}"
        )
        lines.append(f"| {first_cells} | {' | '.join(cells)} |")
    ranges = {name: macs[part] for name, part in parts.items() if name != "all"}
    told = ", ".join(f"{name} {min(of):,} to {max(of):,}" for name, of in ranges.items())
    return f"""# Sampling rules of an elastic supernet, at equal cost

| rule | epochs | updates | 10¹² MACs | seconds | all | small | middle | large |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

- Test accuracy, %, of {len(tested)} sub-networks with inherited weights and recalibrated batch-norm
  statistics, {options.test_images:,} images; mean and standard deviation of {options.seeds} seeds.
  MACs: {told}.
- Cost: MACs of all forward and backward passes (three a network and example; the teacher's one),
  expected. Every rule has as many epochs as the sandwich's cost allows it; seconds are processor
  time of one core on a shared machine. Small networks cost more time for each MAC than large ones.
- A step of several networks costs as much as several steps of one, so at equal cost the rules make
  very unequal numbers of updates. The papers train hundreds of epochs on a hundred times as many
  images, where updates are not short; of that this says nothing.
- Uniform: one random network a step. Sandwich: largest, two random, smallest; the largest teaches.
  Progressive: once-for-all's phases (largest 31 % of the epochs, kernels 20 %, depths 25 %,
  expansions 25 %), one, two and four networks a step, a teacher, channels sorted.
- {round(options.images * (1 - HELD_OUT)):,} images of Fashion-MNIST; SPOS's settings with a cosine
  and residual branches that begin at zero, the same for all: none was tuned for a rule.
  `experiments/benchmarks/elastic_space.py`; torch {torch.__version__},
  Python {platform.python_version()}.

```
{command}
```
"""


if __name__ == "__main__":
    main()

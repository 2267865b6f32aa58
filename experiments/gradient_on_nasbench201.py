"""What weight sharing finds on the NAS-Bench-201 space, looked up in the benchmark.

Each strategy searches the space with real images, on a network and for a time that one core
manages; the architecture it ends with is then looked up in the table of accuracies that were
measured on CIFAR-10 at full size. Searches that are done are kept beside the report and not run
again, so an interrupted experiment goes on.

Architecture parameters get some hundred steps here and 19,500 in the papers, of an optimiser
whose steps are as long as its learning rate (Adam). At the published rate they would hardly leave
their start, so it is multiplied by the ratio of the steps: they can come as far as in the papers.
The one-shot supernets are trained by single paths, which are cheap, for ``--path-epochs``; then
evolution (SPOS, FairNAS) or random choice takes the best of ``--scored`` architectures.

    python experiments/gradient_on_nasbench201.py --table nb201.npz --cifar10 FOLDER
    python experiments/gradient_on_nasbench201.py --table nb201.npz --fashion-mnist FOLDER
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F

from evaluators.one_shot import OneShot
from nas import Budget, History, Serial, maximize
from nas.architecture import Architecture
from nas.data import Data, Images, cifar10, fashion_mnist
from nas.search import search
from nas.space import format_architecture
from nas.strategy import Strategy
from nas.supernet.training import PathSettings
from nas.trial import Trial
from search_spaces.nasbench201 import NasBench201
from strategies.beta_darts import BetaDarts
from strategies.darts import Darts
from strategies.drnas import DrNas
from strategies.enas import Enas, EnasSettings
from strategies.fbnet import Fbnet
from strategies.gdas import Gdas
from strategies.pc_darts import PcDarts
from strategies.proxyless import Proxyless
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution
from strategies.snas import Snas

OBJECTIVES = (maximize("accuracy"),)
GRADIENT: dict[str, tuple[type, dict[str, Any]]] = {
    "DARTS, first order": (Darts, {"order": 1}),
    "DARTS, second order": (Darts, {"order": 2}),
    "PC-DARTS": (PcDarts, {}),
    "GDAS": (Gdas, {}),
    "SNAS": (Snas, {}),
    "DrNAS": (DrNas, {}),
    "β-DARTS": (BetaDarts, {}),
    "FBNet": (Fbnet, {}),
    "ProxylessNAS": (Proxyless, {}),
}
ONE_SHOT = {
    "SPOS": "uniform",
    "FairNAS": "fair",
    "random search, shared weights": "uniform",
}
NAMES = (*GRADIENT, "ENAS", *ONE_SHOT)
DARTS_STEPS = 50 * 25_000  # epochs times images: what moves the architecture in the papers
# Of the benchmark's paper and of the strategies' own, on CIFAR-10, at full scale.
PUBLISHED = {
    "DARTS, first order": 54.30,
    "DARTS, second order": 54.30,
    "PC-DARTS": 93.41,
    "GDAS": 93.61,
    "SNAS": 92.77,
    "DrNAS": 94.36,
    "β-DARTS": 94.36,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True, help="nb201.npz")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's files")
    parser.add_argument("--fashion-mnist", type=Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--images", type=int, default=2560, help="to search on (%(default)s)")
    parser.add_argument("--size", type=int, default=16, help="of an image, pixels (%(default)s)")
    parser.add_argument("--channels", type=int, default=16, help="of the first stage (%(default)s)")
    parser.add_argument("--cells", type=int, default=1, help="a stage (%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="of each search (%(default)s)")
    parser.add_argument("--path-epochs", type=int, default=60, help="one-shot (%(default)s)")
    parser.add_argument("--scored", type=int, default=200, help="one-shot (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--strategies", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default="runs/gradient_on_nasbench201")
    options = parser.parse_args()

    torch.set_num_threads(1)
    data = small(options)
    space = NasBench201(options.channels, options.cells, data.classes, data.input)
    truth = accuracies(options.table)
    console = Console(stderr=True)
    for seed in range(options.seeds):
        for name in options.strategies:
            file = options.out / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}.json"
            if not file.exists():
                with console.status(f"{name}, seed {seed}") as status:
                    if name in ONE_SHOT:
                        found = run_one_shot(name, space, data, seed, options, status.update)
                    else:
                        found = run(name, space, data, seed, options.epochs, status.update)
                found["accuracy"] = truth[tuple(found["operations"])]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=2))
                console.print(f"{name}, seed {seed}: {found['accuracy']:.2f}  {found['arch']}")
    report = table(options, truth)
    (options.out / "report.md").write_text(report)
    print(report)


def small(options: argparse.Namespace) -> Data:
    """The first images of the training set, made smaller by averaging."""
    data = cifar10(options.cifar10) if options.cifar10 else fashion_mnist(options.fashion_mnist)
    whole = data.train
    assert isinstance(whole, Images)
    pixels = F.interpolate(
        whole.pixels[: options.images].float(), size=(options.size,) * 2, mode="area"
    )
    train = Images(
        pixels.round().to(torch.uint8),
        whole.labels[: options.images],
        whole.scale,
        whole.mean,
        whole.std,
    )
    return replace(
        data,
        train=train,
        test=None,
        input=(data.input[0], options.size, options.size),
        crop_padding=options.size // 8,
        source=None,
    )


def make(name: str, space: NasBench201, data: Data, seed: int, epochs: int) -> Strategy:
    """A strategy with its paper's settings, but for the number of epochs and what counts them."""
    if name == "ENAS":
        settings = EnasSettings()
        shared = replace(settings.shared, epochs=epochs, batch_size=64)
        enas = replace(settings, shared=shared, validation_fraction=0.5)
        return Enas(space, OBJECTIVES, data, seed, settings=enas, propose_every=epochs)
    kind, arguments = GRADIENT[name]
    settings = kind.settings
    rest = round(epochs * settings.warmup_epochs / settings.epochs)
    settings = replace(
        settings,
        epochs=epochs,
        warmup_epochs=rest,
        batch_size=64,
        arch_lr=settings.arch_lr * DARTS_STEPS / (epochs * len(data.train) / 2),  # type: ignore[arg-type]  # it has one
    )
    made: Strategy = kind(
        space,
        OBJECTIVES,
        data,
        seed,
        settings=settings,
        propose_every=1,
        device="cpu",
        **arguments,
    )
    return made


def run(
    name: str, space: NasBench201, data: Data, seed: int, epochs: int, say: Any
) -> dict[str, Any]:
    strategy = make(name, space, data, seed, epochs)
    started = time.perf_counter()
    path: list[str] = []
    arch: Architecture | None = None
    while proposals := strategy.ask(1):
        arch = proposals[0].arch
        path.append(format_architecture(space, arch))
        say(f"{name}, seed {seed}: epoch {len(path)} of {epochs}, {path[-1]}")
    assert arch is not None
    return {
        "strategy": name,
        "seed": seed,
        "arch": path[-1],
        "operations": [str(option) for _, option in arch.picks],
        "path": path,
        "seconds": round(time.perf_counter() - started, 1),
    }


def run_one_shot(
    name: str,
    space: NasBench201,
    data: Data,
    seed: int,
    options: argparse.Namespace,
    say: Any,
) -> dict[str, Any]:
    """Trains a supernet by single paths, and takes the best of what is scored with its weights."""
    sampling = ONE_SHOT[name]
    epochs = options.path_epochs // (5 if sampling == "fair" else 1)  # fair: five paths a step
    settings = PathSettings(
        epochs=epochs, learning_rate=0.05, schedule="cosine", weight_decay=5e-4, label_smoothing=0.0
    )
    evaluator = OneShot(
        space,
        data,
        options.out / f"supernet_{sampling}_{epochs}_{seed}.safetensors",
        sampling,  # type: ignore[arg-type]  # one of the two
        settings,
        seed,
        validation_fraction=0.5,
        recalibration_batches=8,
        device="cpu",
    )
    options.out.mkdir(parents=True, exist_ok=True)
    cost = evaluator.fit(on_epoch=lambda epoch, _: say(f"{name}, {seed}: epoch {epoch}/{epochs}"))
    strategy: Strategy = (
        RandomSearch(space, OBJECTIVES, seed)
        if name.startswith("random")
        else RegularizedEvolution(space, OBJECTIVES, seed, population_size=25, sample_size=10)
    )
    trials: list[Trial] = []
    started = time.perf_counter()
    budget = Budget(trials=options.scored)
    for trial in search(strategy, evaluator, Serial(), budget, History()):
        trials.append(trial)
        say(f"{name}, {seed}: {trial}")
    best = max(trials, key=lambda one: one.values.get("accuracy", -1.0))
    return {
        "strategy": name,
        "seed": seed,
        "arch": format_architecture(space, best.arch),
        "operations": [str(option) for _, option in best.arch.picks],
        "shared": best.values["accuracy"],
        "seconds": round(cost.seconds + time.perf_counter() - started, 1),
    }


def accuracies(file: Path) -> dict[tuple[str, ...], float]:
    """Test accuracy on CIFAR-10 after 200 epochs, in per cent, by the six operations."""
    with np.load(file) as arrays:
        names = [str(name) for name in arrays["op_names"]]
        column = [str(name) for name in arrays["datasets"]].index("cifar10")
        values = arrays["test_acc_200"]
        values = values[:, column] if values.ndim == 2 else values
        rows = [tuple(names[i] for i in row) for row in arrays["ops"].tolist()]
        return dict(zip(rows, values.tolist(), strict=True))


def table(options: argparse.Namespace, truth: dict[tuple[str, ...], float]) -> str:
    values = np.array(list(truth.values()))
    lines = [
        "| strategy | mean ± deviation | by seed | published | minutes a search |",
        "|---|---|---|---|---|",
    ]
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(options.out.glob("*.json")):
        one = json.loads(file.read_text())
        found.setdefault(one["strategy"], []).append(one)
    for name in NAMES:
        if name not in found:
            continue
        scores = [one["accuracy"] for one in sorted(found[name], key=lambda one: one["seed"])]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        minutes = statistics.mean(one["seconds"] for one in found[name]) / 60
        published = f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else "–"
        each = ", ".join(f"{score:.2f}" for score in scores)
        mean = f"{statistics.mean(scores):.2f}{spread}"
        lines.append(f"| {name} | {mean} | {each} | {published} | {minutes:.1f} |")
    mean, best = f"{values.mean():.2f}", f"{values.max():.2f}"
    lines += [
        f"| an architecture at random | {mean} | median {np.median(values):.2f} | | |",
        f"| the best there is | {best} | | | |",
    ]
    command = shlex.join(Path(argument).name for argument in sys.argv)
    return "\n".join(["`python " + command + "`", "", *lines, ""])


if __name__ == "__main__":
    main()

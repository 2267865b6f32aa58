"""How well a one-shot supernet ranks NAS-Bench-201, with and without batch-norm recalibration.

Trains one supernet of the NAS-Bench-201 space on small images, scores random architectures with
its weights and compares with the accuracies of the benchmark's table, which were measured on
CIFAR-10 at full size. Training goes on from its checkpoint below ``--out``.

    python experiments/one_shot_ranking.py --tables FOLDER
    python experiments/one_shot_ranking.py --tables FOLDER --cifar10 FOLDER --resolution 16
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional as F

from evaluators.one_shot import SETTINGS, OneShot
from nas.data import Data, Images, cifar10, fashion_mnist
from nas.ranking import (
    Agreement,
    Pair,
    by_evaluator,
    by_table,
    paired,
    rank_agreement,
    ranking_document,
    ranking_png,
)
from search_spaces.nasbench201 import NasBench201

TRUTHS = {"test_acc_200": "test accuracy, 200 epochs", "val_acc_12": "validation, 12 epochs"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, required=True, help="folder of nb201.npz")
    parser.add_argument("--cifar10", type=Path, help="folder; Fashion-MNIST where not given")
    parser.add_argument("--fashion-mnist", type=Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--resolution", type=int, default=14, help="in pixels (%(default)s)")
    parser.add_argument("--images", type=int, default=20_000, help="to train on (%(default)s)")
    parser.add_argument("--channels", type=int, default=8, help="of the first stage (%(default)s)")
    parser.add_argument("--cells", type=int, default=1, help="a stage (%(default)s)")
    parser.add_argument("--sampling", choices=("uniform", "fair"), default="uniform")
    parser.add_argument("--epochs", type=int, default=60, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--lr", type=float, default=0.1, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architectures", type=int, default=500, help="(%(default)s)")
    parser.add_argument("--batches", type=int, default=20, help="to recalibrate on (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/one_shot_ranking"))
    parser.add_argument("--table", type=Path, default=Path("docs/results/one_shot_ranking.md"))
    options = parser.parse_args(arguments)
    console = Console(stderr=True)

    whole = cifar10(options.cifar10) if options.cifar10 else fashion_mnist(options.fashion_mnist)
    data = smaller(whole, options.resolution, options.images)
    space = NasBench201(options.channels, options.cells, data.classes, data.input)
    settings = dataclasses.replace(
        SETTINGS,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.lr,
        learning_rate_min=0.0,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    size = f"{data.name}-{options.resolution}-{options.images}-{options.channels}-{options.cells}"
    training = f"{options.sampling}-{options.epochs}-{options.batch_size}-{options.lr}"
    name = f"{size}-{training}-{options.seed}"
    evaluators = {
        batches: OneShot(
            space,
            data,
            options.out / f"{name}.safetensors",
            options.sampling,
            settings,
            options.seed,
            recalibration_batches=batches,
        )
        for batches in (options.batches, 0)
    }
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=options.epochs)

        def on_epoch(epoch: int, loss: float) -> None:
            progress.update(task, completed=epoch, description=f"training, loss {loss:.3f}")
            if not console.is_terminal:
                console.print(f"epoch {epoch} of {options.epochs}: loss {loss:.4f}")

        for evaluator in evaluators.values():
            cost = evaluator.fit(on_epoch=on_epoch)
        progress.update(task, completed=options.epochs)

        start = time.perf_counter()
        task = progress.add_task("scoring", total=2 * options.architectures)
        pairs: dict[int, list[Pair]] = {}
        truth = by_table(options.tables / "nb201.npz", space)
        for batches, evaluator in evaluators.items():
            pairs[batches] = []
            for pair in paired(
                space, by_evaluator(evaluator), truth, options.architectures, options.seed
            ):
                pairs[batches].append(pair)
                progress.advance(task)
        seconds = time.perf_counter() - start

    rows = []
    for column, what in TRUTHS.items():
        value = by_table(options.tables / "nb201.npz", space, column)
        parameters = by_table(options.tables / "nb201.npz", space, "params")
        archs = [pair.arch for pair in pairs[0]]
        truths = [value(arch) for arch in archs]
        scorings = {
            "one-shot": [pair.score for pair in pairs[0]],
            "one-shot, recalibrated": [pair.score for pair in pairs[options.batches]],
            "number of parameters": [parameters(arch) for arch in archs],
        }
        for scoring, scores in scorings.items():
            found = rank_agreement(scores, truths)
            rows.append([scoring, what, *cells(found)])
            if scoring == "one-shot, recalibrated":
                scored = [
                    dataclasses.replace(p, truth=t)
                    for p, t in zip(pairs[options.batches], truths, strict=True)
                ]
                write(options.out / f"{name}-{column}", scored, found, what)
    accuracies = [pair.score for pair in pairs[options.batches]]
    command = shlex.join(["python", "experiments/one_shot_ranking.py", *sys.argv[1:]])
    text = f"""# Ranking by a one-shot supernet, NAS-Bench-201

{options.architectures} random architectures, no two of which compute the same function, scored with
inherited weights, against the benchmark's CIFAR-10 table; 95 % confidence by the bootstrap.

{markdown(["scores", "truth", "Kendall τ", "Spearman ρ", "recall, top 10", "top 20"], rows)}

- Supernet: {options.channels} channels, {options.cells} cell a stage, {options.sampling} sampling,
  {options.epochs} epochs on {round(0.8 * len(data.train)):,} images of {data.name} at
  {options.resolution}×{options.resolution}, batch {options.batch_size}, learning rate {options.lr},
  seed {options.seed}; {cost.seconds:.0f} s of training.
- Scores: accuracy on {round(0.2 * len(data.train)):,} held-out images; with recalibration on
  {options.batches} batches from {min(accuracies):.3f} to {max(accuracies):.3f}, median
  {float(np.median(accuracies)):.3f}. {1000 * seconds / 2 / options.architectures:.0f} ms each.
- Python {platform.python_version()}, torch {torch.__version__}.

```
{command}
```
"""
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(text)
    print(text)


def smaller(data: Data, resolution: int, images: int) -> Data:
    """The first so many training images, averaged down to a resolution; no test set."""
    train = data.train
    assert isinstance(train, Images)
    pixels = F.interpolate(train.pixels[:images].float(), size=(resolution,) * 2, mode="area")
    kept = Images(
        pixels.round().to(torch.uint8), train.labels[:images], train.scale, train.mean, train.std
    )
    padding = round(data.crop_padding * resolution / data.input[1])
    return dataclasses.replace(
        data,
        train=kept,
        test=None,
        input=(data.input[0], resolution, resolution),
        crop_padding=padding,
        source=None,
    )


def write(path: Path, pairs: list[Pair], agreement: Agreement, what: str) -> None:
    facts = {"score": "accuracy with inherited weights, recalibrated", "truth": what}
    document = ranking_document(pairs, agreement, facts)
    path.with_name(path.name + ".json").write_text(json.dumps(document, indent=1))
    picture = ranking_png(pairs, agreement, "accuracy, inherited weights", f"CIFAR-10 {what} (%)")
    path.with_name(path.name + ".png").write_bytes(picture)


def cells(found: Agreement) -> list[str]:
    recall = [str(found.recall[k]) if k in found.recall else "–" for k in (10, 20)]
    return [str(found.kendall), str(found.spearman), *recall]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

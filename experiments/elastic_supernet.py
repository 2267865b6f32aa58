"""One elastic supernet against twenty networks trained alone.

Trains a supernet of a small once-for-all space on Fashion-MNIST (sandwich rule, the largest network
teaches), scores sub-networks with inherited weights, fits the accuracy predictor, specialises for
a range of limits on MACs, and trains every network that was found alone, from new weights, for as
many epochs. Test accuracies, their rank correlation, and what both ways cost.

    python experiments/elastic_supernet.py

Everything that was trained or scored is kept in the folder of ``--out``; a killed run goes on
there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.elastic_space import elastic
from torch.utils.data import Subset

from evaluators.one_shot import CHECKPOINT, OneShot
from nas.cost import architecture_cost
from nas.data import Data, fashion_mnist, split
from nas.history import write_file
from nas.plain import nearest_to, plainest
from nas.ranking import Agreement, rank_agreement
from nas.space import format_architecture, parse
from nas.specialize import Inherited, fit_predictor, score, specialize
from nas.specialize.family import Specialized
from nas.supernet.files import load_supernet
from nas.supernet.sizes import open_sizes
from nas.supernet.training import PathSettings
from nas.training import Recipe, evaluate, initialised, train

RECIPE = Recipe(channels_last=True)
HELD_OUT = 0.2
FEWEST = 1.1
"""The lowest limit, in MACs of the smallest network."""


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    seconds = Seconds(options.out / "seconds.json")
    data = first(fashion_mnist(options.data), options)
    path = options.out / CHECKPOINT
    trained(data, path, options, seconds)
    shared = load_supernet(path, elastic())
    inherited = Inherited(shared, data)
    started = time.process_time()
    rows = score(inherited, options.out / "scores.json", options.score)
    seconds.add("scoring", time.process_time() - started)
    started = time.process_time()
    predictor = fit_predictor(shared, rows)
    family = specialize(
        shared,
        [f"macs={limit}" for limit in limits(options.networks)],
        options.out / "family",
        data=data,
        predictor=predictor,
        trials=options.trials,
        on_progress=print,
    )
    seconds.put("specialisation", time.process_time() - started)
    alone = trained_alone(family, options)
    command = shlex.join(["python", "experiments/elastic_supernet.py", *sys.argv[1:]])
    picture = options.page.with_suffix(".png")
    options.page.parent.mkdir(parents=True, exist_ok=True)
    draw(family, alone, picture)
    text = page(family, alone, predictor.validation.agreement.kendall, seconds, options, command)
    options.page.write_text(text)
    print(text)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=16, help="of each training (%(default)s)")
    parser.add_argument("--images", type=int, default=12_500, help="to train on (%(default)s)")
    parser.add_argument("--test-images", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--networks", type=int, default=20, help="limits (%(default)s)")
    parser.add_argument("--score", type=int, default=200, help="sub-networks (%(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="a limit (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="that train alone (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/elastic_supernet"))
    parser.add_argument("--page", type=Path, default=Path("runs/elastic_supernet/page.md"))
    return parser.parse_args(arguments)


def first(data: Data, options: argparse.Namespace) -> Data:
    """The same data with so many images to train on, and to test on."""
    assert data.test is not None
    test = Subset(data.test, range(options.test_images))
    return replace(data, train=Subset(data.train, range(options.images)), test=test, source=None)


class Seconds:
    """Processor time by part, in a file: of all runs together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, part: str, seconds: float) -> None:
        self.put(part, self.of.get(part, 0.0) + seconds)

    def put(self, part: str, seconds: float) -> None:
        self.of[part] = seconds
        write_file(self.path, json.dumps(self.of).encode())


def trained(data: Data, path: Path, options: argparse.Namespace, seconds: Seconds) -> None:
    """Trains the supernet, or what is left of it."""
    settings = PathSettings(
        epochs=options.epochs, schedule="cosine", zero_residuals=True, channels_last=True
    )
    evaluator = OneShot(
        elastic(), data, path, "sandwich", settings, options.seed, validation_fraction=HELD_OUT
    )
    before = [time.process_time()]

    def told(epoch: int, loss: float) -> None:
        seconds.add("supernet", time.process_time() - before.pop())
        before.append(time.process_time())
        print(f"supernet: epoch {epoch} of {options.epochs}, loss {loss:.4f}", flush=True)

    evaluator.fit(on_epoch=told)


def limits(count: int) -> list[int]:
    """Limits in MACs from little above the smallest network to the largest, in equal ratios."""
    space = elastic()
    largest = nearest_to(space, {k: max(v) for k, v in open_sizes(space).options.items()})
    fewest, most = (architecture_cost(space, arch).macs for arch in (plainest(space), largest))
    low, high = math.log(FEWEST * fewest), math.log(most)
    return [round(math.exp(low + (high - low) * i / max(1, count - 1))) for i in range(count)]


# ---------------------------------------------------------------------------- trained alone


def trained_alone(
    family: Sequence[Specialized], options: argparse.Namespace
) -> list[dict[str, float]]:
    """Each network from new weights: ``accuracy`` on the test set and processor ``seconds``."""
    path = options.out / "alone.json"
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    texts = [format_architecture(elastic(), one.arch) for one in family]
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawned) as pool:
        jobs = {text: pool.submit(alone, text, options) for text in missing}
        for text, job in jobs.items():
            known[text] = job.result()
            write_file(path, json.dumps(known, indent=1).encode())
            print(f"alone: {len(known)} networks, {known[text]}", flush=True)
    return [known[text] for text in texts]


def alone(text: str, options: argparse.Namespace) -> dict[str, float]:
    """One of them."""
    torch.set_num_threads(1)
    space, data = elastic(), first(fashion_mnist(options.data), options)
    examples, _ = split(data, HELD_OUT)
    started = time.process_time()
    network = initialised(space, parse(space, text), options.seed)
    train(
        network,
        examples,
        RECIPE,
        options.epochs,
        options.seed,
        crop_padding=data.crop_padding,
        flip=data.flip,
    )
    seconds = time.process_time() - started
    assert data.test is not None
    return {"accuracy": evaluate(network, data.test)[0], "seconds": seconds}


# ------------------------------------------------------------------------------- the page


def page(
    family: Sequence[Specialized],
    alone: Sequence[dict[str, float]],
    kendall: Any,
    seconds: Seconds,
    options: argparse.Namespace,
    command: str,
) -> str:
    ours = [float(one.test_accuracy or 0) for one in family]
    theirs = [found["accuracy"] for found in alone]
    lines = [
        f"| {one.costs['macs']:,.0f} | {one.costs['parameters']:,.0f} | {one.predicted:.2%} "
        f"| {a:.2%} | {b:.2%} | {100 * (a - b):+.2f} |"
        for one, a, b in zip(family, ours, theirs, strict=True)
    ]
    gaps = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
    agreement: Agreement = rank_agreement(ours, theirs)
    shared_s = sum(seconds.of.values())
    alone_s = sum(found["seconds"] for found in alone)
    examples = round(options.images * (1 - HELD_OUT))
    parts = ", ".join(f"{name} {value:,.0f} s" for name, value in seconds.of.items())
    within = sum(gap >= -1 for gap in gaps)
    return f"""# One elastic supernet, beside networks trained alone

| MACs | parameters | predicted, held out | from the supernet | trained alone | difference |
|---|---|---|---|---|---|
{chr(10).join(lines)}

![Test accuracy and MACs]({options.page.with_suffix(".png").name})

- Accuracy on {options.test_images:,} test images. From the supernet: inherited weights, batch-norm
  statistics recalibrated, nothing trained on. Alone: {options.epochs} epochs from new weights, as
  many as the supernet's, on the same {examples:,} images (one seed each).
- Within one point of the network trained alone, or better: {within} of {len(gaps)}. Difference:
  mean {statistics.mean(gaps):+.2f}, worst {min(gaps):+.2f} points.
- Rank correlation of the two columns: Kendall's τ {said(agreement.kendall)}, Spearman's ρ
  {said(agreement.spearman)} (95 % intervals).
- Predictor: τ {kendall:.2f} by cross-validation on {options.score} sub-networks, scored with
  inherited weights on held-out training images.
- Processor time: the supernet's way {shared_s:,.0f} s ({parts}); the networks alone
  {alone_s:,.0f} s, {alone_s / shared_s:.1f} times as much, without the search that chose them. The
  next limit costs {seconds.of["specialisation"] / len(gaps):,.0f} s the one way and
  {alone_s / len(gaps):,.0f} s the other.
- Supernet: sandwich rule (largest, two random, smallest; the largest teaches), settings of SPOS
  with a cosine, residual branches begin at zero (BigNAS), {options.epochs} epochs.
  Space: `experiments/benchmarks/elastic_space.py`, {elastic().size():,} architectures.
  Fashion-MNIST; torch {torch.__version__}, Python {platform.python_version()}, one core.

```
{command}
```
"""


def said(estimate: Any) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def draw(family: Sequence[Specialized], alone: Sequence[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.5, 4.2))
    x = [one.costs["macs"] / 1e6 for one in family]
    axis.plot(x, [100 * float(one.test_accuracy or 0) for one in family], "o-",
              label="from the supernet")  # fmt: skip
    axis.plot(x, [100 * found["accuracy"] for found in alone], "s--", label="trained alone")
    axis.set_xlabel("MACs, millions")
    axis.set_ylabel("test accuracy, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

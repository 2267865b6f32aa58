"""One elastic supernet against twenty networks trained alone.

Trains a supernet of a small once-for-all space on Fashion-MNIST (sandwich rule, the largest network
teaches), scores sub-networks with inherited weights, fits the accuracy predictor, specialises for
a range of limits on MACs, and trains every network that was found alone, from new weights, for as
many epochs; and for a few epochs more from the supernet's weights. The same networks are tested
with the weights of a second supernet, of uniform sampling, whose training costs as many
multiply-accumulates. Test accuracies, their rank correlation, and what each way costs.

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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.elastic_space import elastic
from torch import nn

from evaluators.one_shot import CHECKPOINT, OneShot, Sampling
from nas.cost import architecture_cost
from nas.data import Data, fashion_mnist, first, split
from nas.history import write_file
from nas.plain import nearest_to, plainest
from nas.ranking import rank_agreement
from nas.space import parse
from nas.specialize import Inherited, fit_predictor, score, specialize
from nas.specialize.family import FAMILY, FINE_TUNING
from nas.specialize.scores import Row
from nas.supernet.files import SharedSupernet, load_supernet
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
    data = first(fashion_mnist(options.data), options.images, options.test_images)
    path = options.out / CHECKPOINT
    trained("sandwich", options.epochs, data, path, seconds, options)
    shared = load_supernet(path, elastic())
    inherited = Inherited(shared, data)
    before = [time.process_time()]

    def scored(*_: object) -> None:
        seconds.add("scoring", time.process_time() - before.pop())
        before.append(time.process_time())

    rows = score(inherited, options.out / "scores.json", options.score, on_row=scored)
    family = specialised(shared, rows, data, options, seconds)
    texts = [str(one["architecture"]) for one in family]
    uniform = tested_uniform(texts, data, options, seconds)
    tuned = trained_all(texts, options, "fine_tuned.json", fine_tuned)
    alone = trained_all(texts, options, "alone.json", trained_alone)
    command = shlex.join(["python", "experiments/elastic_supernet.py", *sys.argv[1:]])
    picture = options.page.with_suffix(".png")
    options.page.parent.mkdir(parents=True, exist_ok=True)
    draw(family, uniform, tuned, alone, picture)
    text = page(family, uniform, tuned, alone, seconds, options, command)
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
    parser.add_argument("--uniform-epochs", type=int, default=70, help="(%(default)s)")
    parser.add_argument("--fine-tune", type=int, default=2, help="epochs (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="that train alone (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/elastic_supernet"))
    parser.add_argument("--page", type=Path, default=Path("runs/elastic_supernet/page.md"))
    return parser.parse_args(arguments)


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


def trained(
    sampling: Sampling,
    epochs: int,
    data: Data,
    path: Path,
    seconds: Seconds,
    options: argparse.Namespace,
) -> None:
    """Trains a supernet, or what is left of it."""
    settings = PathSettings(
        epochs=epochs, schedule="cosine", zero_residuals=True, channels_last=True
    )
    evaluator = OneShot(
        elastic(), data, path, sampling, settings, options.seed, validation_fraction=HELD_OUT
    )
    before = [time.process_time()]

    def told(epoch: int, loss: float) -> None:
        seconds.add(f"{sampling} supernet", time.process_time() - before.pop())
        before.append(time.process_time())
        print(f"{sampling}: epoch {epoch} of {epochs}, loss {loss:.4f}", flush=True)

    evaluator.fit(on_epoch=told)


def tested_uniform(
    texts: Sequence[str], data: Data, options: argparse.Namespace, seconds: Seconds
) -> list[float]:
    """Test accuracies with the weights of a supernet of uniform sampling, recalibrated."""
    path = options.out / "uniform.safetensors"
    trained("uniform", options.uniform_epochs, data, path, seconds, options)
    inherited = Inherited(load_supernet(path, elastic()), data)
    found = [inherited.test(inherited.network(parse(elastic(), text))) for text in texts]
    return [float(accuracy or 0) for accuracy in found]


def limits(count: int) -> list[int]:
    """Limits in MACs from little above the smallest network to the largest, in equal ratios."""
    space = elastic()
    largest = nearest_to(space, {k: max(v) for k, v in open_sizes(space).options.items()})
    fewest, most = (architecture_cost(space, arch).macs for arch in (plainest(space), largest))
    low, high = math.log(FEWEST * fewest), math.log(most)
    return [round(math.exp(low + (high - low) * i / max(1, count - 1))) for i in range(count)]


def specialised(
    shared: SharedSupernet,
    rows: Sequence[Row],
    data: Data,
    options: argparse.Namespace,
    seconds: Seconds,
) -> list[dict[str, Any]]:
    """What ``family.json`` says of each network; the family is found where it is not there."""
    path = options.out / "family" / FAMILY
    if not path.exists():
        started = time.process_time()
        specialize(
            shared,
            [f"macs={limit}" for limit in limits(options.networks)],
            path.parent,
            data=data,
            predictor=fit_predictor(shared, rows),
            trials=options.trials,
            on_progress=print,
        )
        seconds.put("specialisation", time.process_time() - started)
    document = json.loads(path.read_text())
    return [{**one, "kendall": document["predictor"]["kendall"]} for one in document["networks"]]


# ------------------------------------------------------------------------- trained one by one


def trained_all(
    texts: Sequence[str],
    options: argparse.Namespace,
    name: str,
    way: Callable[[str, argparse.Namespace], dict[str, float]],
) -> list[dict[str, float]]:
    """Each network trained in one way: ``accuracy`` on the test set and processor ``seconds``."""
    path = options.out / name
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawned) as pool:
        jobs = {text: pool.submit(way, text, options) for text in missing}
        for text, job in jobs.items():
            known[text] = job.result()
            write_file(path, json.dumps(known, indent=1).encode())
            print(f"{name}: {len(known)} networks, {known[text]}", flush=True)
    return [known[text] for text in texts]


def trained_alone(text: str, options: argparse.Namespace) -> dict[str, float]:
    """From new weights, for as many epochs as the supernet."""
    space = elastic()
    network = initialised(space, parse(space, text), options.seed)
    return trained_on(network, RECIPE, options.epochs, options)


def fine_tuned(text: str, options: argparse.Namespace) -> dict[str, float]:
    """From the supernet's weights, for a few epochs."""
    shared = load_supernet(options.out / CHECKPOINT, elastic())
    network = shared.supernet.extract(parse(elastic(), text))
    recipe = replace(FINE_TUNING, channels_last=True)
    return trained_on(network, recipe, options.fine_tune, options)


def trained_on(
    network: nn.Module, recipe: Recipe, epochs: int, options: argparse.Namespace
) -> dict[str, float]:
    torch.set_num_threads(1)
    data = first(fashion_mnist(options.data), options.images, options.test_images)
    examples, _ = split(data, HELD_OUT)
    started = time.process_time()
    train(
        network,
        examples,
        recipe,
        epochs,
        options.seed,
        crop_padding=data.crop_padding,
        flip=data.flip,
    )
    seconds = time.process_time() - started
    assert data.test is not None
    return {"accuracy": evaluate(network, data.test)[0], "seconds": seconds}


# ------------------------------------------------------------------------------- the page


def page(
    family: Sequence[dict[str, Any]],
    uniform: Sequence[float],
    tuned: Sequence[dict[str, float]],
    alone: Sequence[dict[str, float]],
    seconds: Seconds,
    options: argparse.Namespace,
    command: str,
) -> str:
    ours = [float(one["test_accuracy"]) for one in family]
    after = [found["accuracy"] for found in tuned]
    theirs = [found["accuracy"] for found in alone]
    lines = [
        f"| {one['costs']['macs']:,.0f} | {one['costs']['parameters']:,.0f} "
        f"| {one['predicted_accuracy']:.2%} | {a:.2%} | {t:.2%} | {u:.2%} | {b:.2%} |"
        for one, a, t, u, b in zip(family, ours, after, uniform, theirs, strict=True)
    ]
    ways = {
        f"sandwich, {options.epochs} epochs": ours,
        f"the same, fine-tuned for {options.fine_tune}": after,
        f"uniform, {options.uniform_epochs} epochs": uniform,
    }
    compared = []
    for name, accuracies in ways.items():
        gaps = [100 * (a - b) for a, b in zip(accuracies, theirs, strict=True)]
        agreement = rank_agreement(accuracies, theirs)
        compared.append(
            f"| {name} | {statistics.mean(gaps):+.2f} | {min(gaps):+.2f} | {max(gaps):+.2f} "
            f"| {sum(gap >= -1 for gap in gaps)} of {len(gaps)} | {said(agreement.kendall)} "
            f"| {said(agreement.spearman)} |"
        )
    count = len(family)
    of = seconds.of
    way = of["sandwich supernet"] + of["scoring"] + of["specialisation"]
    texts = [one["architecture"] for one in family]
    different = len(set(texts))
    tuned_s = sum(dict(zip(texts, (found["seconds"] for found in tuned), strict=True)).values())
    alone_s = sum(dict(zip(texts, (found["seconds"] for found in alone), strict=True)).values())
    examples = round(options.images * (1 - HELD_OUT))
    return f"""# One elastic supernet, beside networks trained alone

| MACs | parameters | predicted | sandwich | fine-tuned | uniform | alone |
|---|---|---|---|---|---|---|
{chr(10).join(lines)}

![Test accuracy and MACs]({options.page.with_suffix(".png").name})

Differences from the network trained alone, in points, and rank correlation with it (with 95 %
intervals):

| supernet | mean | worst | best | within a point, or better | Kendall's τ | Spearman's ρ |
|---|---|---|---|---|---|---|
{chr(10).join(compared)}

- Accuracy on {options.test_images:,} test images, one seed. Sandwich: the supernet that the
  networks were specialised from, {options.epochs} epochs of {examples:,} images; inherited weights,
  batch-norm statistics recalibrated. Fine-tuned: {options.fine_tune} epochs more, each network
  alone, on the same images. Uniform: the same networks out of a second supernet, of one random
  network a step. Alone: {options.epochs} epochs from new weights, as many as the sandwich's.
- Predictor: τ {family[0]["kendall"]:.2f} by cross-validation on {options.score} sub-networks,
  scored with inherited weights on held-out training images.
- Processor time: sandwich {of["sandwich supernet"]:,.0f} s, scoring {of["scoring"]:,.0f} s,
  specialisation {of["specialisation"]:,.0f} s, together {way:,.0f} s; fine-tuning all
  {tuned_s:,.0f} s; the uniform supernet {of["uniform supernet"]:,.0f} s; the networks alone
  {alone_s:,.0f} s, without the search that chose them. One more limit costs
  {of["specialisation"] / count:,.0f} s from the supernet,
  {of["specialisation"] / count + tuned_s / different:,.0f} s fine-tuned,
  {alone_s / different:,.0f} s alone. {count} limits, {different} different networks.
- Both supernets: settings of SPOS with a cosine, residual branches begin at zero (BigNAS); the
  sandwich is the largest, two random and the smallest, the largest teaches. Space:
  `experiments/benchmarks/elastic_space.py`, {elastic().size():,} architectures. Fashion-MNIST;
  torch {torch.__version__}, Python {platform.python_version()}, one core.

```
{command}
```
"""


def said(estimate: Any) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def draw(
    family: Sequence[dict[str, Any]],
    uniform: Sequence[float],
    tuned: Sequence[dict[str, float]],
    alone: Sequence[dict[str, float]],
    path: Path,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.5, 4.2))
    x = [one["costs"]["macs"] / 1e6 for one in family]
    order = sorted(range(len(x)), key=x.__getitem__)
    for label, style, values in (
        ("sandwich", "o-", [one["test_accuracy"] for one in family]),
        ("sandwich, fine-tuned", "^-", [found["accuracy"] for found in tuned]),
        ("uniform", "v-", uniform),
        ("trained alone", "s--", [found["accuracy"] for found in alone]),
    ):
        axis.plot([x[i] for i in order], [100 * values[i] for i in order], style, label=label)
    axis.set_xlabel("MACs, millions")
    axis.set_ylabel("test accuracy, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()

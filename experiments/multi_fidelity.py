"""Fidelity layers around regularised evolution against evolution at full fidelity, on a table.

Evolution trains each architecture for all epochs of the table; the layers train most of them
briefly and continue the best. All are charged the simulated seconds of the epochs they train.
After so many seconds a search names the best of what it trained longest; its regret is what that
architecture lacks, fully trained and in the mean over the table's runs, to the best of all. One
trial is one of the table's runs, picked by its seed.

    python experiments/multi_fidelity.py --table docs/results/multi_fidelity.md
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.tabular import TabularEvaluator
from nas import Budget, History, Serial, maximize
from nas.components import create
from nas.search import search
from nas.space import SearchSpace, enumerate_architectures
from nas.strategy import Strategy
from nas.tables import load
from nas.trial import Proposal
from strategies.asha import Asha
from strategies.hyperband import Hyperband
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution
from strategies.successive_halving import SuccessiveHalving

FULL = "evolution, full fidelity"
LAYERS: dict[str, Callable[..., Strategy]] = {
    "successive halving": SuccessiveHalving,
    "Hyperband": Hyperband,
    "ASHA": Asha,
}
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Seconds spent, rising, and the regret from then on."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a table's name or file (%(default)s)")
    parser.add_argument("--seeds", type=int, default=50, help="a strategy (%(default)s)")
    parser.add_argument(
        "--trials", type=int, default=100, help="full trainings to spend (%(default)s)"
    )
    parser.add_argument("--population", type=int, default=20, help="P (%(default)s)")
    parser.add_argument("--sample", type=int, default=5, help="S (%(default)s)")
    parser.add_argument("--min-epochs", type=int, default=1, help="of the layers (%(default)s)")
    parser.add_argument(
        "--eta", type=int, nargs="+", default=[2, 3, 4], help="of the layers (%(default)s)"
    )
    parser.add_argument("--table", type=Path, help="write the result here, as Markdown")
    options = parser.parse_args(arguments)

    table = load(options.data)
    space = create("spaces", dict(table.space), "space")
    epochs = max(table.quantities["validation_accuracy"].epochs)
    evaluator = TabularEvaluator(space, options.data, epochs=epochs, runs="seed")
    truth = true_values(space, options.data, epochs)
    mean_s = float(np.nanmean(table.seconds_per_epoch))
    seconds = options.trials * epochs * mean_s
    curves = {
        name: [
            regrets(make(seed), evaluator, seconds, epochs, truth) for seed in range(options.seeds)
        ]
        for name, make in contestants(space, epochs, options).items()
    }
    command = shlex.join(["python", "experiments/multi_fidelity.py", *sys.argv[1:]])
    text = report(curves, seconds, epochs, len(truth), options, command)
    if options.table is not None:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(text)
    print(text)


def contestants(
    space: SearchSpace, epochs: int, options: argparse.Namespace
) -> dict[str, Callable[[int], Strategy]]:
    """The searches by name, made from a seed."""
    objectives = (maximize("accuracy"),)

    def evolution(seed: int) -> RegularizedEvolution:
        return RegularizedEvolution(space, objectives, seed, options.population, options.sample)

    def random(seed: int) -> RandomSearch:
        return RandomSearch(space, objectives, seed)

    found: dict[str, Callable[[int], Strategy]] = {
        FULL: evolution,
        "random search, full fidelity": random,
    }
    for inside, make in (("evolution", evolution), ("random search", random)):
        for name, kind in LAYERS.items():
            for eta in options.eta:
                layer = {"min_epochs": options.min_epochs, "max_epochs": epochs, "eta": eta}
                found[f"{name} of {inside}, η {eta}"] = partial(_layered, kind, make, layer)
    return found


def _layered(
    kind: Callable[..., Strategy],
    inside: Callable[[int], Strategy],
    settings: dict[str, int],
    seed: int,
) -> Strategy:
    return kind(inside(seed), **settings)


def true_values(space: SearchSpace, data: str, epochs: int) -> dict[str, float]:
    """The accuracy of every fully trained architecture, by digest: the mean over the runs."""
    evaluator = TabularEvaluator(space, data, epochs=epochs)
    return {
        arch.digest(): evaluator.evaluate(Proposal(0, arch)).values["accuracy"]
        for arch in enumerate_architectures(space)
    }


def regrets(
    strategy: Strategy,
    evaluator: TabularEvaluator,
    seconds: float,
    epochs: int,
    truth: dict[str, float],
) -> Curve:
    """One search, until its seconds are spent."""
    best = max(truth.values())
    standing = (0, -math.inf)
    spent, at, regret = 0.0, [0.0], [best - min(truth.values())]
    for trial in search(strategy, evaluator, Serial(), Budget(seconds=seconds), History()):
        spent += trial.cost.seconds
        if not trial.values:
            continue
        reached = (trial.proposal.fidelity.epochs or epochs, trial.values["accuracy"])
        if reached > standing:
            standing = reached
            at.append(spent)
            regret.append(best - truth[trial.arch.digest()])
    return np.array(at), np.array(regret)


def after(curve: Curve, seconds: float) -> float:
    """The regret after so many seconds."""
    at, regret = curve
    return float(regret[np.searchsorted(at, seconds, side="right") - 1])


def reaches(curve: Curve, target: float) -> float:
    """The seconds from which on the regret stays at or below a target; infinite if it never does.

    What looked best and was not is found out later, so regret may rise again: that counts.
    """
    at, regret = curve
    above = np.flatnonzero(regret > target)
    if not len(above):
        return 0.0
    last = int(above[-1])
    return float(at[last + 1]) if last + 1 < len(at) else math.inf


def median_and_interval(values: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % confidence interval by order statistics, free of distributions."""
    ordered = sorted(values)
    count = len(ordered)
    half = 0.98 * math.sqrt(count)  # half of 1.96 standard deviations of Binomial(n, 1/2)
    low = max(0, math.floor(count / 2 - half))
    high = min(count - 1, math.ceil(count / 2 + half))
    return float(np.median(ordered)), ordered[low], ordered[high]


def report(
    curves: dict[str, list[Curve]],
    seconds: float,
    epochs: int,
    count: int,
    options: argparse.Namespace,
    command: str,
) -> str:
    """The table with how it was made, as Markdown."""
    shares = {"1/9": 1 / 9, "1/3": 1 / 3, "the end": 1.0}
    target = float(np.median([after(curve, seconds) for curve in curves[FULL]]))
    rows = []
    for name, found in curves.items():
        row = [name]
        for share in shares.values():
            row.append(_points([after(curve, share * seconds) for curve in found]))
        row.append(_share([reaches(curve, target) / seconds for curve in found]))
        rows.append(row)
    head = ["search", *(f"regret at {share}" for share in shares), "share of the budget needed"]
    return f"""# Fidelity layers around regularised evolution, table {Path(options.data).name}

Regret (points of accuracy) after shares of the budget of {options.trials} full trainings, and the
share of the budget after which the regret stays at or below {100 * target:.2f} points, which is
the median of full-fidelity evolution with all of it: medians over {options.seeds} seeds, with 95 %
confidence intervals.

{_table(head, rows)}

- Table: {count} architectures, up to {epochs} epochs. A budget of {seconds:.0f} simulated seconds.
- Evolution: population {options.population}, sample {options.sample}, everywhere.
- Layers: from {options.min_epochs} to {epochs} epochs, each promoted trial continued.
- A search names the best of what it trained longest so far, by what it measured: one run of the
  table, picked by the trial's seed. Its regret is what that architecture lacks, fully trained and
  in the mean over the table's runs, to the best of all.
- Searches run one trial at a time, so nobody waits and asynchrony gains nothing here.

```
{command}
```
"""


def _points(values: list[float]) -> str:
    middle, low, high = (100 * value for value in median_and_interval(values))
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _share(values: list[float]) -> str:
    return "{} ({}–{})".format(
        *("never" if math.isinf(v) else f"{v:.2f}" for v in median_and_interval(values))
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

"""Regularised evolution against random search on Fashion-MNIST at low fidelity.

Both search the NAS-Bench-201 space for validation accuracy with the same number of trials. The
runs are kept below ``--out`` and continued from there, so an interrupted comparison goes on where
it ended. Writes a table of the best validation accuracy so far, over seeds.

    python experiments/evolution_vs_random.py
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import sys
from pathlib import Path

from scipy import stats

from evaluators.training import TrainingEvaluator
from nas import Budget, History, Serial, maximize
from nas.data import fashion_mnist
from nas.search import search
from nas.trial import Trial
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch
from strategies.regularized_evolution import RegularizedEvolution

NAMES = {"random": "random search", "evolution": "regularised evolution"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100, help="of each search (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="searches a strategy (%(default)s)")
    parser.add_argument("--channels", type=int, default=8, help="of the first stage (%(default)s)")
    parser.add_argument("--cells", type=int, default=1, help="a stage (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="a trial (%(default)s)")
    parser.add_argument("--fraction", type=float, default=0.1, help="of the data (%(default)s)")
    parser.add_argument("--resolution", type=int, default=14, help="in pixels (%(default)s)")
    parser.add_argument("--population", type=int, default=10, help="P (%(default)s)")
    parser.add_argument("--sample", type=int, default=4, help="S (%(default)s)")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder")
    parser.add_argument("--out", type=Path, default=Path("runs/evolution_vs_random"))
    parser.add_argument("--table", type=Path, default=Path("docs/results/evolution_vs_random.md"))
    options = parser.parse_args(arguments)

    data = fashion_mnist(options.data)
    space = NasBench201(options.channels, options.cells, data.classes, data.input)
    evaluator = TrainingEvaluator(
        space,
        data,
        epochs=options.epochs,
        data_fraction=options.fraction,
        resolution=options.resolution,
        validation_fraction=0.1,
        keep_weights=False,
    )
    objectives = [maximize("accuracy")]
    runs: dict[str, list[list[Trial]]] = {name: [] for name in NAMES}
    for seed in range(options.seeds):
        strategies = {
            "random": RandomSearch(space, objectives, seed),
            "evolution": RegularizedEvolution(
                space, objectives, seed, options.population, options.sample
            ),
        }
        for name, strategy in strategies.items():
            history = History(options.out / f"{name}-{seed}")
            for trial in search(
                strategy, evaluator, Serial(), Budget(trials=options.trials), history
            ):
                accuracy = trial.values.get("accuracy", float("nan"))
                print(f"{name} seed {seed} trial {trial.number}: {accuracy:.4f}", flush=True)
            runs[name].append(list(history.trials))

    command = shlex.join(["python", "experiments/evolution_vs_random.py", *sys.argv[1:]])
    text = report(runs, options, command, len(data.train))  # type: ignore[arg-type]  # it has one
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(text)
    print(text)


def report(
    runs: dict[str, list[list[Trial]]], options: argparse.Namespace, command: str, examples: int
) -> str:
    """The table with how it was made, as Markdown."""
    last = max(1, options.trials // 4)
    ends = sorted({options.trials * share // 4 for share in (1, 2, 3, 4)} - {0})
    rows = [
        [
            NAMES[name],
            *(_cell([_best(trials[:end]) for trials in searches]) for end in ends),
            _cell([_mean(trials[-last:]) for trials in searches]),
        ]
        for name, searches in runs.items()
    ]
    trials = [trial for searches in runs.values() for one in searches for trial in one]
    seconds = sum(trial.cost.seconds for trial in trials)
    failed = sum(not trial.values for trial in trials)
    gains = [
        100 * (_best(evolved) - _best(drawn))
        for evolved, drawn in zip(runs["evolution"], runs["random"], strict=True)
    ]
    mean, half = _interval(gains)
    verdict = (
        "the interval leaves zero out"
        if abs(mean) > half
        else "the interval holds zero, so these runs do not tell the two apart"
    )
    used = round(options.fraction * (examples - round(0.1 * examples)))
    return f"""# Regularised evolution against random search, Fashion-MNIST at low fidelity

Best validation accuracy (%) after so many trials, and the mean of the last {last} trials:
mean ± standard deviation over {options.seeds} seeds.

{_table(["strategy", *(f"best of {end}" for end in ends), f"mean of last {last}"], rows)}

Best of {options.trials}, evolution minus random search, paired by seed: {mean:+.2f} ± {half:.2f}
points (95 % confidence, Student's t): {verdict}.

- Space: NAS-Bench-201 with {options.channels} channels and {options.cells} cell a stage.
- A trial: {options.epochs} epoch on {used:,} training images at
  {options.resolution}×{options.resolution}, validated on {round(0.1 * examples):,} held-out
  training images, which are the same in every trial.
- Evolution: population {options.population}, sample {options.sample}; its first
  {options.population} trials are random. Random search does not repeat itself.
- {len(trials)} trials, {failed} of them failed; {seconds:.0f} s of one core in all
  ({seconds / len(trials):.1f} s a trial), Python {platform.python_version()}.

```
{command}
```

The best of many noisy measurements overstates what an architecture reaches, and a single short
training is noisy; the mean of the last trials shows better than the best whether a strategy has
learnt where good architectures are. Evolution has only {options.trials - options.population}
trials beyond its random start.
"""


def _best(trials: list[Trial]) -> float:
    return max((trial.values["accuracy"] for trial in trials if trial.values), default=0.0)


def _mean(trials: list[Trial]) -> float:
    return statistics.mean(trial.values["accuracy"] for trial in trials if trial.values)


def _interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval."""
    if len(values) < 2:
        return statistics.mean(values), float("inf")
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return statistics.mean(values), quantile * statistics.stdev(values) / len(values) ** 0.5


def _cell(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()

"""Milliseconds per ask and tell: every strategy that can be built, and Optuna's samplers.

    OMP_NUM_THREADS=1 python experiments/benchmarks/strategies.py [NAME …] [--rounds 3] \
        [--trials 10000] [--limit 30] [--batch 1] [--cpu] [--out FILE.json]

The space is NAS-Bench-201 (6 choices of 5 options). Trials come back at once with made-up values,
whose making is not timed. In each round every strategy begins anew and is driven until it has had
all trials, has nothing more to propose, or has used up ``--limit`` seconds; rounds are
interleaved, so that a machine that slows down slows all of them. What is printed for n trials is
the mean of an ask and a tell over the last half before n (at most 1,000 trials), as the median
over rounds. Strategies are found by their registered names and made with their defaults; one that
needs more than a space and objectives (a data set, say) is skipped with the reason.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from nas import registry
from nas.architecture import Architecture
from nas.budget import Cost
from nas.components import create
from nas.errors import NasError
from nas.objective import maximize, minimize
from nas.strategy import Strategy
from nas.trial import Measured, Trial
from search_spaces.nasbench201 import NasBench201

POINTS = (100, 300, 1000, 2000, 5000, 10_000)
HERE = Path(__file__).resolve().parent
SPACE = NasBench201()
ONE = (maximize("accuracy"),)
TWO = (maximize("accuracy"), minimize("macs"))
ONE_TRIAL = Cost(trials=1)
INNER = "regularized_evolution"  # what a layer around another strategy is put around


class Driven(Protocol):
    """Something that proposes and is told; what is between ``go``'s clocks is what is timed."""

    def go(self, n: int, clock: Callable[[], float]) -> tuple[int, float]:
        """Asks for n, tells all of them; returns how many there were, and the seconds."""


def made_up(arch: Architecture) -> dict[str, float]:
    """Values that some picks raise, with a little noise that the architecture stands for."""
    picked = [
        choice.index(pick) for choice, (_, pick) in zip(SPACE.choices, arch.picks, strict=True)
    ]
    noise = sum(place * option for place, option in enumerate(picked, start=3)) * 37 % 101
    return {
        "accuracy": 40.0 + 2 * sum(picked) + noise / 20,
        "macs": 1.0 + sum(o * o for o in picked),
    }


class OfOurs:
    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.metrics = [objective.metric for objective in strategy.objectives]

    def go(self, n: int, clock: Callable[[], float]) -> tuple[int, float]:
        start = clock()
        proposals = self.strategy.ask(n)
        seconds = clock() - start
        trials = []
        for proposal in proposals:
            values = made_up(proposal.arch)
            measured = Measured({metric: values[metric] for metric in self.metrics})
            trials.append(Trial(proposal, measured, ONE_TRIAL))
        start = clock()
        for trial in trials:
            self.strategy.tell(trial)
        return len(trials), seconds + clock() - start


class OfOptuna:
    def __init__(self, sampler: Any, objectives: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: Any = ["maximize", "minimize"][:objectives]
        self.study = optuna.create_study(sampler=sampler, directions=directions)
        self.objectives = objectives

    def go(self, n: int, clock: Callable[[], float]) -> tuple[int, float]:
        start = clock()
        asked = []
        for _ in range(n):
            trial = self.study.ask()
            picks: Any = tuple(
                (choice.label, trial.suggest_categorical(choice.label, choice.options))
                for choice in SPACE.choices
            )
            asked.append((trial, picks))
        seconds = clock() - start
        values = [
            list(made_up(Architecture(SPACE.name, picks)).values())[: self.objectives]
            for _, picks in asked
        ]
        start = clock()
        for (trial, _), value in zip(asked, values, strict=True):
            self.study.tell(trial, value)
        return n, seconds + clock() - start


def ours(name: str) -> Callable[[int], Driven]:
    """How to make a registered strategy with its defaults; raises what making it raises."""
    document: dict[str, Any] = {"name": name}
    if "strategy" in inspect.signature(registry.load("strategies", name)).parameters:
        document["strategy"] = INNER
    objectives = TWO if name.startswith("nsga") else ONE

    def make(seed: int) -> Driven:
        given = {"space": SPACE, "objectives": objectives, "seed": seed}
        return OfOurs(create("strategies", document, "strategy", given))

    make(0)
    return make


def optunas() -> dict[str, Callable[[int], Driven]]:
    """Optuna's samplers, where it is installed."""
    try:
        from optuna import samplers
    except ImportError:
        return {}
    return {
        "Optuna random": lambda seed: OfOptuna(samplers.RandomSampler(seed=seed), 1),
        "Optuna TPE": lambda seed: OfOptuna(samplers.TPESampler(seed=seed), 1),
        "Optuna TPE, multivariate": lambda seed: OfOptuna(
            samplers.TPESampler(seed=seed, multivariate=True), 1
        ),
        "Optuna NSGA-II": lambda seed: OfOptuna(samplers.NSGAIISampler(seed=seed), 2),
        "Optuna GP": lambda seed: OfOptuna(samplers.GPSampler(seed=seed), 1),
    }


def laps(
    driven: Driven, trials: int, limit: float, batch: int, clock: Callable[[], float]
) -> list[float]:
    """Seconds per ask and tell, trial by trial, as far as the limit lets it come."""
    seconds: list[float] = []
    spent = 0.0
    while len(seconds) < trials and spent < limit:
        n, took = driven.go(min(batch, trials - len(seconds)), clock)
        if not n:
            break
        seconds += [took / n] * n
        spent += took
    return seconds


def at(seconds: list[float], point: int) -> float | None:
    """Milliseconds over the last half before a point; ``None`` where it was not reached."""
    if len(seconds) < point:
        return None
    return 1000 * statistics.fmean(seconds[max(point // 2, point - 1000) : point])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that can be made, by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds a strategy and round")
    parser.add_argument("--batch", type=int, default=1, help="proposals asked for at once")
    parser.add_argument(
        "--cpu", action="store_true", help="time of the processor, not of the wall: when it is busy"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    # A script's own folder is looked into first, and this file has the name of the package.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != HERE]
    warnings.simplefilter("ignore")  # Optuna's, of what is experimental
    makers: dict[str, Callable[[int], Driven]] = {}
    skipped: dict[str, str] = {}
    everything = optunas()
    for name in arguments.names or [*registry.names("strategies"), *everything]:
        if name in everything:
            makers[name] = everything[name]
            continue
        try:
            makers[name] = ours(name)
        except (NasError, ImportError) as error:
            skipped[name] = str(error).splitlines()[0]
    times: dict[str, dict[int, list[float]]] = {name: {} for name in makers}
    for make in makers.values():  # imports, tables of canonical forms and the like
        laps(make(0), 120, 1.0, arguments.batch, clock)
    for number in range(arguments.rounds):
        for name, make in makers.items():
            driven = make(number)
            gc.collect()
            gc.freeze()  # what is there already is no strategy's to be searched for garbage
            found = laps(driven, arguments.trials, arguments.limit, arguments.batch, clock)
            gc.unfreeze()
            note = f"round {number}: {name}, {len(found)} trials, {sum(found):.1f} s"
            print(note, file=sys.stderr, flush=True)
            for point in POINTS:
                if (value := at(found, point)) is not None:
                    times[name].setdefault(point, []).append(value)
    medians = {
        name: {point: statistics.median(values) for point, values in by_point.items()}
        for name, by_point in times.items()
    }
    print(f"{'ms per ask and tell after':28}" + "".join(f"{point:>9,}" for point in POINTS))
    for name, row in medians.items():
        cells = (f"{row[point]:9.4f}" if point in row else f"{'–':>9}" for point in POINTS)
        print(f"{name:28}" + "".join(cells))
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    if arguments.out:
        document = {
            "rounds": arguments.rounds,
            "limit_s": arguments.limit,
            "batch": arguments.batch,
            "clock": clock.__name__,
            "milliseconds": medians,
            "skipped": skipped,
        }
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

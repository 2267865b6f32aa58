"""Making a table: every architecture of a small space is trained, several times, and timed.

Both parts are ordinary searches: a strategy that lists the space, an evaluator that trains (or
times), an executor of your choice, and a journal. So both go on where they were killed, and one
failed training is a gap in the table and not the end of the work.

Runs of one number share their seed over all architectures: the order of the batches and the
augmentation are the same for all of them, and only the initial weights differ, as the networks do.
"""

from __future__ import annotations

import functools
import platform
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas import __version__
from nas.architecture import Architecture
from nas.budget import Budget, Cost
from nas.components import describe
from nas.cost import parameters_and_macs
from nas.data import Data, check_fits, split
from nas.encoding import ordinal
from nas.errors import ConfigError, DataError
from nas.execution import Executor
from nas.history import History
from nas.objective import Metric, Objective, check_objectives
from nas.search import search
from nas.space import SearchSpace, count, enumerate_architectures
from nas.tables.table import Quantity, Table
from nas.training import (
    DEFAULT_RECIPE,
    Device,
    Recipe,
    choose_device,
    evaluate,
    initialised,
    reproducible,
    train,
)
from nas.trial import Failed, Fidelity, Measured, Proposal, Trial

MOST_ARCHITECTURES = 100_000
"""A larger space is not trained whole."""

CURVES = (
    Metric("validation_accuracy", "fraction", "maximize"),
    Metric("validation_loss", "nats", "minimize"),
    Metric("train_loss", "nats", "minimize"),
)
ENDS = (
    Metric("test_accuracy", "fraction", "maximize"),
    Metric("test_loss", "nats", "minimize"),
)
TRAINING, LATENCY = "training", "latency"


class Exhaustive:
    """Every architecture of a space, in its order; then all of them again, with another seed.

    Args:
        seed: of the first pass; the following ones count on from it.
        repeats: how many passes.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        seed: int = 0,
        repeats: int = 1,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        if repeats < 1:
            raise ConfigError(f"repeats must be at least 1, got {repeats}")
        size = count(space)
        if size > MOST_ARCHITECTURES:
            raise ConfigError(
                f"{space.name!r} has {size:,} architectures; spaces of up to "
                f"{MOST_ARCHITECTURES:,} are listed"
            )
        self.space = space
        self.objectives = check_objectives(objectives)
        self.seed = seed
        self.repeats = repeats
        self._every = list(enumerate_architectures(space))
        self._number = 0

    def __len__(self) -> int:
        """How many proposals there are in all."""
        return len(self._every) * self.repeats

    def ask(self, n: int) -> Sequence[Proposal]:
        numbers = range(self._number, min(self._number + n, len(self)))
        self._number += len(numbers)
        return [
            Proposal(
                number,
                self._every[number % len(self._every)],
                self.seed + number // len(self._every),
            )
            for number in numbers
        ]

    def tell(self, trial: Trial) -> None:
        """It learns nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number = state["number"]


class LearningCurves:
    """Trains an architecture from scratch and validates it after every epoch, tests it at the end.

    Metrics: ``validation_accuracy``, ``validation_loss``, ``train_loss`` after the last epoch,
    ``test_accuracy`` and ``test_loss`` where the data set has a test set. The notes hold the
    curves of the first three by name, and ``seconds_per_epoch`` of the training alone: of the
    processor where one thread trains (so that what else the machine does does not count), of the
    clock otherwise.

    Args:
        epochs: of the whole training; the learning rate follows the recipe over all of them.
        validation_fraction: share of the training set that is held out, always the same.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Data,
        epochs: int = 12,
        validation_fraction: float = 0.5,
        recipe: Recipe = DEFAULT_RECIPE,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        check_fits(data, space)
        Fidelity(epochs)
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        choose_device(device)
        split(data, validation_fraction)
        self.space = space
        self.data = data
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.recipe = recipe
        self.device = device
        self.threads = threads
        self.metrics = CURVES if data.test is None else CURVES + ENDS

    def evaluate(self, proposal: Proposal) -> Measured:
        part, held_out = split(self.data, self.validation_fraction)
        network = initialised(self.space, proposal.arch, proposal.seed)
        one_core = self.threads == 1 and choose_device(self.device).type == "cpu"
        clock = time.thread_time if one_core else time.perf_counter
        measure = functools.partial(evaluate, device=self.device, threads=self.threads)
        curves: dict[str, list[float]] = {metric.name: [] for metric in CURVES}
        seconds, started = 0.0, clock()

        def validated(epoch: int, loss: float) -> None:
            nonlocal seconds, started
            seconds += clock() - started
            found = (*measure(network, held_out), loss)
            for metric, value in zip(CURVES, found, strict=True):
                curves[metric.name].append(value)
            started = clock()

        train(
            network,
            part,
            self.recipe,
            self.epochs,
            proposal.seed,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
            device=self.device,
            threads=self.threads,
            on_epoch=validated,
        )
        values = {name: curve[-1] for name, curve in curves.items()}
        if self.data.test is not None:
            found = measure(network, self.data.test)
            values |= {metric.name: value for metric, value in zip(ENDS, found, strict=True)}
        return Measured(
            values,
            Cost(epochs=self.epochs),
            {**curves, "seconds_per_epoch": seconds / self.epochs},
        )

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return float(self.epochs)


class Latency:
    """The time one example takes through a network in eval mode, on one thread of this machine.

    Args:
        runs: the metric ``latency_ms`` is the median of so many.
        warmup: runs before those.
    """

    metrics = (Metric("latency_ms", "ms", "minimize"),)

    def __init__(self, space: SearchSpace, runs: int = 20, warmup: int = 5) -> None:
        if runs < 1 or warmup < 0:
            raise ConfigError(
                f"runs must be at least 1 and warmup zero or more, got {runs}, {warmup}"
            )
        self.space = space
        self.runs = runs
        self.warmup = warmup

    def evaluate(self, proposal: Proposal) -> Measured:
        import torch

        network = initialised(self.space, proposal.arch, proposal.seed).eval()
        taken: list[float] = []
        with reproducible(0, 1), torch.inference_mode():
            example = torch.randn(1, *self.space.input)
            for _ in range(self.warmup + self.runs):
                started = time.perf_counter()
                network(example)
                taken.append(time.perf_counter() - started)
        return Measured({"latency_ms": 1e3 * statistics.median(taken[self.warmup :])})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0


@dataclass(frozen=True)
class Part:
    """One of the two searches that make a table: everything but the executor."""

    strategy: Exhaustive
    evaluator: LearningCurves | Latency
    folder: Path

    def run(self, executor: Executor) -> Generator[Trial, None, None]:
        """Trials as they come; over a folder that has some it goes on."""
        budget = Budget(trials=len(self.strategy))
        return search(self.strategy, self.evaluator, executor, budget, History(self.folder))

    def done(self) -> int:
        """How many trials of it are on disk."""
        return len(History(self.folder).trials)


def training(folder: str | Path, curves: LearningCurves, runs: int = 3, seed: int = 0) -> Part:
    """The part that trains every architecture, so many times."""
    objectives = [Objective("validation_accuracy", "maximize")]
    strategy = Exhaustive(curves.space, objectives, seed, runs)
    return Part(strategy, curves, Path(folder) / TRAINING)


def timing(folder: str | Path, latency: Latency, rounds: int = 5) -> Part:
    """The part that times every architecture, round by round, for ``Serial`` on a quiet machine.

    Rounds go through the whole space, so that a busy minute does not fall on few of them.
    """
    strategy = Exhaustive(latency.space, [Objective("latency_ms", "minimize")], 0, rounds)
    return Part(strategy, latency, Path(folder) / LATENCY)


def assemble(folder: str | Path, facts: Mapping[str, Any] | None = None) -> Table:
    """The table of a folder whose parts are done, or that much of it as is there.

    Runs that were not begun for every architecture are left out. A latency is the lowest of its
    rounds': what else a machine does only ever adds to it.

    Args:
        facts: what else to write down of how it was made.

    Raises:
        DataError: not even one run is complete.
    """
    from nas.config import space_from_header

    history = History(Path(folder) / TRAINING)
    if history.header is None:
        raise DataError(f"{folder} holds no trainings: {Path(folder) / TRAINING} is empty")
    header = history.header
    space = space_from_header(header)
    every = list(enumerate_architectures(space))
    runs = len(history.trials) // len(every)
    trials = [trial for trial in history.trials if trial.number < runs * len(every)]
    if not runs or len(trials) < runs * len(every):
        # Under several workers the last of a run may finish after the first of the next.
        runs = min(
            sum(trial.number % len(every) == row for trial in history.trials)
            for row in range(len(every))
        )
    if not runs:
        raise DataError(
            f"{folder}: {len(history.trials)} trainings of {len(every)} architectures: no run is "
            "complete"
        )
    epochs = int(header["evaluator"]["epochs"])
    known = {name for trial in history.trials for name in trial.values}
    metrics = [metric for metric in CURVES + ENDS if metric.name in known or metric in CURVES]
    points = {m.name: tuple(range(1, epochs + 1)) if m in CURVES else (epochs,) for m in metrics}
    values = {name: np.full((1, len(every), runs, len(at)), np.nan) for name, at in points.items()}
    seconds = np.full((1, len(every), runs), np.nan)
    failed = 0
    for trial in history.trials:
        run, row = divmod(trial.number, len(every))
        if run >= runs:
            continue
        failed += isinstance(trial.outcome, Failed)
        if isinstance(trial.outcome, Measured):
            seconds[0, row, run] = trial.notes["seconds_per_epoch"]
            for name in points:
                values[name][0, row, run] = trial.notes.get(name, [trial.values[name]])
    devices, latency = _latencies(Path(folder) / LATENCY, every)
    parameters, macs = _counts(space, every)
    return Table(
        name=str(folder),
        space=describe(space),
        labels=tuple(choice.label for choice in space.choices),
        options=tuple(choice.options for choice in space.choices),
        picks=np.array([ordinal(space, arch) for arch in every]),
        datasets=(str(header["evaluator"]["data"].get("name", "custom")),),
        seeds=tuple(range(header["strategy"]["seed"], header["strategy"]["seed"] + runs)),
        quantities={m.name: Quantity(m, points[m.name], values[m.name]) for m in metrics},
        seconds_per_epoch=seconds,
        counts={"parameters": parameters, "macs": macs},
        devices=devices,
        latency_ms=latency,
        facts={
            "made with": f"nasforge {__version__}",
            "failed trainings": failed,
            "training": {
                key: value
                for key, value in header["evaluator"].items()
                if key not in ("name", "space")
            },
            **(facts or {}),
        },
    )


def _latencies(folder: Path, every: Sequence[Architecture]) -> tuple[tuple[str, ...], Any]:
    found = np.full(len(every), np.nan)
    history = History(folder)
    for trial in history.trials:
        row = trial.number % len(every)
        found[row] = np.fmin(found[row], trial.values.get("latency_ms", np.nan))
    if np.isnan(found).all():
        return (), np.zeros((0, 0))
    return (processor(),), found[None]


def _counts(space: SearchSpace, every: Sequence[Architecture]) -> tuple[Any, Any]:
    counts = np.array([parameters_and_macs(space, arch) for arch in every], np.int64)
    return counts[None, :, 0], counts[None, :, 1]


def processor() -> str:
    """What this machine computes with, as a device's name: ``Intel_Xeon_…_1_thread``, say."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux: the platform's own word
    return "_".join([*name.replace("(R)", "").replace("(TM)", "").split(), "1_thread"])

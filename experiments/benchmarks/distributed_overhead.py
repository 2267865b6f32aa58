"""What a trial costs beyond its own work, here and under Ray Tune; and how busy workers are."""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed_work import Made, local_ray, random_search

from nas.budget import Budget
from nas.execution import Executor
from nas.execution.serial import Serial
from nas.history import History
from nas.search import search
from nas.trial import Measured, Trial

WORKERS = 2


def measure_overhead(quick: bool) -> dict[str, Any]:
    """Milliseconds of the clock a no-op trial, rounds in turn: in one process, on Ray, Tune.

    Between them tasks of Ray alone, for how much of it is Ray's. All run two at a time on the same
    Ray. What comes before the first tenth of the trials has ended (workers start, code is
    imported) is not counted.
    """
    rounds, ours, theirs = (1, 60, 10) if quick else (5, 2000, 100)
    times: dict[str, list[float]] = {"serial": [], "alone": [], "ray": [], "tune": []}
    driver: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, local_ray(WORKERS):
        from nas.execution.ray import RayExecutor

        for number in range(rounds):
            folder = Path(scratch) / str(number)
            times["serial"].append(_ours(Serial(), ours, folder / "serial")[0])
            executor = RayExecutor(workers=WORKERS, retries=3)
            clock, processor = _ours(executor, ours, folder / "ray")
            times["ray"].append(clock)
            driver.append(processor)
            times["alone"].append(_alone(ours))
            times["tune"].append(_tune(theirs, folder / "tune"))
        profiler = cProfile.Profile()
        executor = RayExecutor(workers=WORKERS, retries=3)
        profiler.enable()
        _ours(executor, ours, Path(scratch) / "profiled")
        profiler.disable()
    return {
        "workers": WORKERS,
        "trials": {"serial": ours, "alone": ours, "ray": ours, "tune": theirs},
        "milliseconds": times,
        "driver_milliseconds": driver,
        "median": {name: statistics.median(values) for name, values in times.items()},
        "driver_median": statistics.median(driver),
        "ratio": statistics.median(
            theirs / ours for theirs, ours in zip(times["tune"], times["ray"], strict=True)
        ),
        "profile": _profile(profiler, ours),
    }


def _ours(executor: Executor, trials: int, folder: Path) -> tuple[float, float]:
    """Milliseconds a trial: of the clock, and of this process's processor time."""
    times: list[float] = []
    processor: list[float] = []
    for trial in search(random_search(), Made(), executor, Budget(trials=trials), History(folder)):
        assert isinstance(trial.outcome, Measured), trial
        times.append(time.perf_counter())
        processor.append(time.process_time())
    return _milliseconds(times, trials), _milliseconds(processor, trials)


def _alone(trials: int) -> float:
    """Ray by itself: tasks that say that they begin, and end, as trials do."""
    import ray

    @ray.remote(num_returns="streaming", max_retries=0)
    def nothing(number: int) -> Iterator[int | None]:
        yield None
        yield number

    times: list[float] = []
    flying, begun = [nothing.remote(0) for _ in range(WORKERS)], WORKERS
    while flying:
        (stream,), flying = ray.wait(flying, num_returns=1)
        if ray.get(next(stream)) is None:
            flying.append(stream)
            continue
        times.append(time.perf_counter())
        if begun < trials:
            flying.append(nothing.remote(begun))
            begun += 1
    return _milliseconds(times, trials)


def _tune(trials: int, folder: Path) -> float:
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # it prints tables at any verbosity
    from ray import tune

    folder.mkdir(parents=True)
    log = folder / "times"
    log.touch()

    class Nothing(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"score": self.config["score"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    class Clock(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    times: list[float] = []
    tuner = tune.Tuner(
        Nothing,
        param_space={"score": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=WORKERS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            callbacks=[Clock()],
            failure_config=tune.FailureConfig(max_failures=3),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    results = tuner.fit()
    assert len(results) == trials
    assert not results.num_errors
    return _milliseconds(times, trials)


def _milliseconds(times: list[float], trials: int) -> float:
    assert len(times) == trials, f"{len(times)} of {trials} trials ended"
    first = trials // 10
    return 1000 * (times[-1] - times[first - 1]) / (trials - first)


def _profile(profiler: cProfile.Profile, trials: int, most: int = 10) -> list[dict[str, Any]]:
    """Where the driver's time goes: the functions with most of their own, a trial."""
    stats: Any = pstats.Stats(profiler)
    rows = []
    for (file, _, name), (_, calls, own, *_) in stats.stats.items():
        place = "" if file == "~" else f"{Path(file).parent.name}/{Path(file).name}: "
        rows.append({"where": place + name, "ms": 1000 * own / trials, "calls": calls / trials})
    return sorted(rows, key=lambda row: -float(row["ms"]))[:most]


# --------------------------------------------------------------------------- busy workers


def measure_throughput(quick: bool) -> dict[str, Any]:
    """How much of their time workers work, from when all have begun to the last that begins.

    Trials sleep, so that any number of workers fits any machine; Ray is told of 8 CPUs.
    """
    rounds, each = (1, 4) if quick else (3, 15)
    least, most = (0.02, 0.1) if quick else (0.1, 1.0)
    rows = []
    with local_ray(2 if quick else 8), tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for workers in (1, 2) if quick else (1, 2, 4, 8):
                folder = Path(scratch) / f"{workers}-{number}"
                row = _busy(workers, workers * each, least, most, folder)
                rows.append({"workers": workers, **row})
    counts = sorted({row["workers"] for row in rows})
    return {
        "least_s": least,
        "most_s": most,
        "trials_a_worker": each,
        "rounds": rows,
        "busy": {
            str(count): statistics.median(r["busy"] for r in rows if r["workers"] == count)
            for count in counts
        },
        "trials_a_second": {
            str(count): statistics.median(r["rate"] for r in rows if r["workers"] == count)
            for count in counts
        },
    }


def _busy(workers: int, trials: int, least: float, most: float, folder: Path) -> dict[str, float]:
    from nas.execution.ray import RayExecutor

    executor = RayExecutor(workers=workers)
    made: list[Trial] = list(
        search(
            random_search(),
            Made(least, most),
            executor,
            Budget(trials=trials),
            History(folder),
        )
    )
    spans = sorted((trial.notes["begin"], trial.notes["end"]) for trial in made)
    start, end = spans[workers - 1][0], spans[-1][0]
    worked = sum(max(0.0, min(e, end) - max(b, start)) for b, e in spans)
    return {
        "busy": worked / (workers * (end - start)),
        "rate": (trials - workers) / (end - start),
        "mean_s": statistics.fmean(e - b for b, e in spans),
    }

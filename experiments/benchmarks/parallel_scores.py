"""What it takes to score sub-networks with several workers over one copy of the weights.

    OMP_NUM_THREADS=1 python experiments/benchmarks/parallel_scores.py --out FILE.json
        [--workers 1 2] [--rows 24] [--rounds 3]

An elastic space of inverted residuals, wide at the end (weights as drawn: what scoring takes does
not depend on what they learnt), and 12,000 random images of 3×32×32, of which 480 are scored on;
two batches recalibrate the norms. Each side scores the same random sub-networks: this process
alone, and Ray's workers, to whom the evaluator is sent once. The scores have to be the same, to
the bit.

- ``seconds``: of the clock for all rows, workers being ready; the median of the rounds, and all.
- ``private_mib``: what a worker's process has for itself when it has scored, by
  ``/proc/self/smaps_rollup``, and what it has before it is sent anything; once with the tensors in
  the object store (``shared``) and once with a copy in each worker (``copied``).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.architecture import Architecture
from nas.data import Data, Images, from_datasets
from nas.execution import ray_sharing
from nas.execution.ray import RayExecutor
from nas.space import sample
from nas.specialize import Inherited
from nas.specialize.inherited import ScoresInherited
from nas.supernet import Supernet
from nas.supernet.files import SharedSupernet
from nas.trial import Fidelity, Measured, Proposal
from search_spaces.mbconv import MBConv, Stage

MIB = 2**20
Row = tuple[float, float]


def private_bytes() -> int:
    """What this process alone has in memory (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


class Empty:
    """Measures a worker that was sent nothing, with torch imported."""

    metrics = ()

    def evaluate(self, proposal: Proposal) -> Measured:
        torch.zeros(1)
        return Measured({}, notes={"private": private_bytes(), "pid": os.getpid()})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0


class Probed:
    """Scores, and says what its worker has in memory."""

    def __init__(self, scores: ScoresInherited) -> None:
        self.scores = scores
        self.metrics = scores.metrics

    def evaluate(self, proposal: Proposal) -> Measured:
        values = self.scores.evaluate(proposal).values
        self.scores.inherited._scores.clear()  # each round scores anew
        return Measured(values, notes={"private": private_bytes(), "pid": os.getpid()})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0


def made() -> tuple[Inherited, list[Architecture]]:
    """The supernet and data."""
    elastic = {"kernels": (3, 5), "expansions": (2, 4)}
    stages = (
        Stage(("ds_k3",), (16,)),
        Stage(("ir",), (64,), (1, 2), 2, **elastic),
        Stage(("ir",), (256,), (1, 2), 2, **elastic),
        Stage(("ir",), (512,), (1, 2, 3), 2, **elastic),
    )
    space = MBConv(stages, stem=16, head=1024, widths=(50, 100), input=(3, 32, 32), classes=10)
    torch.manual_seed(0)
    supernet = Supernet(space).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12_000, 3, 32, 32), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(12_000) % 10, 255.0, torch.zeros(3), torch.ones(3))
    data: Data = from_datasets(images, classes=10, name="noise")
    shared = SharedSupernet(supernet, space, {"validation_fraction": 0.04}, "")
    rng = np.random.default_rng(0)
    return Inherited(shared, data, 2, "cpu"), [sample(space, rng) for _ in range(1000)]


def on_ray(
    evaluator: Any, archs: Sequence[Architecture], executor: RayExecutor
) -> tuple[list[Any], float]:
    """The outcomes in order, and the seconds they took."""
    start, sent, found = time.perf_counter(), 0, dict[int, Any]()
    while len(found) < len(archs):
        while sent < len(archs) and executor.free:
            executor.submit(evaluator, Proposal(sent, archs[sent], 0))
            sent += 1
        trial = executor.next()
        if not isinstance(trial.outcome, Measured):
            raise SystemExit(f"a trial failed: {trial.outcome}")
        found[trial.number] = trial.outcome
    return [found[number] for number in range(len(archs))], time.perf_counter() - start


def median(times: Sequence[float]) -> dict[str, Any]:
    return {"seconds": statistics.median(times), "all": [round(one, 3) for one in times]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    inherited, drawn = made()
    archs = drawn[: options.rows]
    weights = inherited.shared.supernet.state_dict().values()
    images = inherited.data.train.pixels
    found: dict[str, Any] = {
        "rows": options.rows,
        "cores": os.cpu_count(),
        "weights_mib": sum(tensor.nbytes for tensor in weights) / MIB,
        "images_mib": images.nbytes / MIB,
        "sides": [],
    }
    inherited.score(archs[0])
    times = []
    for _ in range(options.rounds):
        inherited._scores.clear()
        start = time.perf_counter()
        expected = [inherited.score(arch) for arch in archs]
        times.append(time.perf_counter() - start)
    found["in_process"] = median(times)
    print(f"in this process: {found['in_process']['seconds']:.2f} s", flush=True)

    least = ray_sharing.LEAST_BYTES
    for count in options.workers:
        for kind in ("shared", "copied"):
            ray_sharing.LEAST_BYTES = least if kind == "shared" else sys.maxsize
            executor = RayExecutor(count)
            try:
                outcomes, _ = on_ray(Empty(), archs[:8], executor)
                before = [one.notes["private"] for one in outcomes]
                evaluator, times, after = Probed(ScoresInherited(inherited)), [], {}
                _, begun = on_ray(evaluator, archs[: 2 * count], executor)
                for _ in range(options.rounds):
                    outcomes, seconds = on_ray(evaluator, archs, executor)
                    scores = [(o.values["accuracy"], o.values["loss"]) for o in outcomes]
                    if scores != expected:
                        raise SystemExit(f"{count} workers ({kind}) gave other scores")
                    times.append(seconds)
                    for outcome in outcomes:
                        after[outcome.notes["pid"]] = outcome.notes["private"]
            finally:
                executor.close()
            side = {
                "workers": count,
                "tensors": kind,
                **median(times),
                "first": begun,
                "speed": found["in_process"]["seconds"] / statistics.median(times),
                "private_mib_before": statistics.median(before) / MIB,
                "private_mib": statistics.mean(after.values()) / MIB,
            }
            found["sides"].append(side)
            print(
                f"{count} workers, {kind}: {side['seconds']:.2f} s ({side['speed']:.2f} × this "
                f"process), {side['private_mib']:.0f} MiB each, of them "
                f"{side['private_mib_before']:.0f} before anything was sent",
                flush=True,
            )
    ray_sharing.LEAST_BYTES = least
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

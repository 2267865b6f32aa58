"""What weight sharing costs, against the plain way to do the same.

    OMP_NUM_THREADS=1 python experiments/benchmarks/supernet.py --out FILE.json
        [--part step|memory|population|path|elastic …] [--rounds 5]

- ``step``: a first-order DARTS step (C 16, 8 cells, batch 16, 3×32×32) of ``GradientSearch``,
  against the paper's algorithm written out (``textbook_darts``); and the same with cells computed
  again in the backward pass (``nas.supernet.recompute``).
- ``memory``: what that step takes at its peak above what the process had when all was built: the
  resident set's high-water mark, of one subprocess a side.
- ``population``: 50 children of an evolution scored with inherited weights and recalibrated
  norms, against one after the other.
- ``path``: extracting and activating a path, against copying its weights.
- ``elastic``: training steps of networks over shared weights against the networks' alone, the time
  until a network is ready, and a family specialised (``elastic_part``).

Rounds alternate between the sides, on one thread; both start from the same weights and see the
same inputs, and their results are compared before they are timed. ``ratio`` is of the medians,
peer to ours; times are in seconds and memory is in MiB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elastic_part import measure_elastic
from textbook_darts import Network
from textbook_darts import Search as Textbook
from torch import nn
from torch.utils.data import TensorDataset

from nas.architecture import Architecture
from nas.budget import Cost
from nas.data import Data
from nas.objective import maximize
from nas.space import sample
from nas.supernet import Supernet, recomputed, search_form
from nas.supernet.population import score_alone, score_population
from nas.trial import Measured, Trial
from search_spaces.darts import Darts
from search_spaces.spos import Spos
from strategies.gradient import (
    Batch,
    GradientSearch,
    GradientSettings,
    alternating,
    first_order,
)
from strategies.regularized_evolution import RegularizedEvolution
from strategies.relaxation import OptionRelaxation

Measurement = dict[str, Any]
Pair = tuple[torch.Tensor, torch.Tensor]

CHANNELS, CELLS, BATCH, CLASSES = 16, 8, 16, 10
SIDES = ("ours", "recomputed", "peer")
RECOMPUTED = ", cells recomputed"


def compare(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    peer_name: str,
    rounds: int,
    unit: str = "s",
) -> Measurement:
    """Both sides in turn; the first round is not counted."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for index in range(rounds + 1):
        for side, run in (("ours", ours), ("peer", peer)):
            start = time.perf_counter()
            run()
            if index:
                times[side].append(time.perf_counter() - start)
    return summary(name, times["ours"], times["peer"], peer_name, unit)


def summary(
    name: str, ours: list[float], peer: list[float], peer_name: str, unit: str
) -> Measurement:
    middle = statistics.median(ours), statistics.median(peer)
    return {
        "name": name,
        "ours": middle[0],
        "peer": middle[1],
        "peer_name": peer_name,
        "ratio": middle[1] / middle[0],
        "unit": unit,
        "ratio_of_minima": min(peer) / min(ours),
        "spread": {"ours": [min(ours), max(ours)], "peer": [min(peer), max(peer)]},
        "rounds": len(ours),
    }


# ------------------------------------------------------------------------------------- step


def batches(count: int) -> list[tuple[Pair, Pair]]:
    generator = torch.Generator().manual_seed(1)

    def batch() -> Pair:
        images = torch.randn(BATCH, 3, 32, 32, generator=generator)
        return images, torch.randint(CLASSES, (BATCH,), generator=generator)

    return [(batch(), batch()) for _ in range(count)]


def our_step(
    fast: bool = True, recompute: bool = False
) -> tuple[GradientSearch, Callable[[Pair, Pair], float]]:
    images = torch.zeros(4, 3, 32, 32)
    data = Data("random", TensorDataset(images, torch.zeros(4, dtype=torch.long)), None,
                (3, 32, 32), CLASSES)  # fmt: skip
    space = Darts(channels=CHANNELS, cells=CELLS, classes=CLASSES)
    settings = GradientSettings(batch_size=BATCH, augment=False)
    search = GradientSearch(
        space,
        data,
        OptionRelaxation(),
        first_order,
        settings,
        seed=0,
        device="cpu",
        form=recomputed(search_form(space)) if recompute else None,
        fast=fast,
    )

    def step(training: Pair, validation: Pair) -> float:
        return alternating(search, Batch(*training), Batch(*validation))

    return search, step


def same_start(search: GradientSearch, peer: Network) -> None:
    """Gives the peer our weights and architecture parameters."""
    ours = list(search.supernet.parameters())
    theirs = peer.weights()
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for mine, its in zip(ours, theirs, strict=True):
            its.copy_(mine)
        for kind, alpha in (("normal", peer.normal), ("reduce", peer.reduce)):
            edges = [f"{kind}/{i}->{node}" for node in range(2, 6) for i in range(node)]
            alpha.copy_(torch.stack([search.parameters[edge] for edge in edges]))


def measure_step(rounds: int) -> list[Measurement]:
    return [_step(rounds, "", recompute=False), _step(rounds, RECOMPUTED, recompute=True)]


def _step(rounds: int, how: str, recompute: bool) -> Measurement:
    search, step = our_step(recompute=recompute)
    network = Network(CHANNELS, CELLS, CLASSES)
    peer = Textbook(network)
    same_start(search, network)
    pairs = batches(4)
    losses = [(step(*pair), peer.step(*pair)) for pair in pairs]
    difference = max(abs(a - b) for a, b in losses)
    print("losses, ours and the textbook's:", losses)
    assert difference <= 1e-3, losses
    name = f"DARTS step, C {CHANNELS}, {CELLS} cells, batch {BATCH}{how}"
    measured = compare(
        name, lambda: step(*pairs[0]), lambda: peer.step(*pairs[0]), "textbook step", rounds
    )
    return {**measured, "largest_loss_difference": difference}


# ----------------------------------------------------------------------------------- memory


def peak_of(side: str) -> float:
    """MiB above what the process had with everything built, in two steps of this side."""
    step: Callable[[Pair, Pair], float]
    if side != "peer":
        _, step = our_step(recompute=side == "recomputed")
    else:
        step = Textbook(Network(CHANNELS, CELLS, CLASSES)).step
    tiny = torch.randn(2, 3, 32, 32)
    nn.Conv2d(3, 4, 3)(tiny).sum().backward()  # the libraries' own start
    pairs = batches(2)
    base = _status("VmRSS")
    for pair in pairs:
        step(*pair)
    return _status("VmHWM") - base


def _status(field: str) -> float:
    """MiB. Not ``getrusage``: that also counts the process which started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_memory(rounds: int) -> list[Measurement]:
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(min(rounds, 3)):
        for side, peaks in found.items():
            command = [sys.executable, __file__, "--peak-of", side]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout.split()[-1]))
    name = f"peak memory of a DARTS step, C {CHANNELS}, {CELLS} cells, batch {BATCH}"
    return [
        summary(name + how, found[side], found["peer"], "textbook step", "MiB")
        for side, how in (("ours", ""), ("recomputed", RECOMPUTED))
    ]


# ------------------------------------------------------------------------------- population


def small_spos() -> Spos:
    """12 blocks of 4 kinds, on 32×32 images."""
    return Spos(
        stem=16,
        channels=(32, 64, 128),
        depths=(4, 4, 4),
        head=256,
        dropout=0.0,
        classes=CLASSES,
        input=(3, 32, 32),
    )


def evolved(space: Spos, trials: int, children: int) -> list[Architecture]:
    """What regularised evolution with its defaults proposes after so many trials.

    Fitness is a sum of one random number an option of each block.
    """
    rng = np.random.default_rng(0)
    worth = {c.label: dict(zip(c.options, rng.random(4), strict=True)) for c in space.choices}
    strategy = RegularizedEvolution(space, [maximize("accuracy")], seed=0)
    for _ in range(trials):
        (proposal,) = strategy.ask(1)
        fitness = sum(worth[label][option] for label, option in proposal.arch.picks)
        strategy.tell(Trial(proposal, Measured({"accuracy": float(fitness)}), Cost()))
    return [proposal.arch for proposal in strategy.ask(children)]


def measure_population(rounds: int) -> list[Measurement]:
    space = small_spos()
    supernet = Supernet(space)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(768, 3, 32, 32, generator=generator)
    labels = torch.randint(CLASSES, (512,), generator=generator)
    recalibration = list(images[512:].split(64))
    batches = list(zip(images[:512].split(256), labels.split(256), strict=True))
    archs = evolved(space, 500, 50)
    blocks = {arch.picks[: index + 1] for arch in archs for index in range(len(arch.picks))}

    def ours() -> list[tuple[float, float]]:
        return score_population(supernet, archs, recalibration, batches)

    def peer() -> list[tuple[float, float]]:
        return [score_alone(supernet, arch, recalibration, batches) for arch in archs]

    pairs = list(zip(ours(), peer(), strict=True))
    difference = max(abs(a - b) for mine, its in pairs for a, b in zip(mine, its, strict=True))
    assert difference <= 1e-5, difference
    measured = compare(
        "scoring 50 evolved children, 12 blocks × 4 kinds, 4 batches of 64 to recalibrate, 512 "
        "images to score",
        ours,
        peer,
        "one at a time",
        rounds,
    )
    facts = {"largest_difference": difference, "distinct": len(set(archs)), "blocks": len(blocks)}
    return [{**measured, **facts, "blocks_one_at_a_time": 12 * len(archs)}]


# ------------------------------------------------------------------------------------- path


def measure_path(rounds: int) -> list[Measurement]:
    space = small_spos()
    supernet = Supernet(space).eval()
    archs = [sample(space, np.random.default_rng(i)) for i in range(20)]
    state = supernet.extract(archs[0]).state_dict()
    into = {name: tensor.clone() for name, tensor in state.items()}

    def copies() -> None:
        for _ in archs:
            for name, tensor in state.items():
                into[name].copy_(tensor)

    ways: dict[str, Callable[[], object]] = {
        "activating a path of the mixture": lambda: [supernet.gates(arch) for arch in archs],
        "a network over views, met before": lambda: [supernet.network(arch) for arch in archs],
        "extracting a stand-alone network": lambda: [supernet.extract(arch) for arch in archs],
    }
    results = []
    for name, way in ways.items():
        measured = compare(f"{name}, 20 times", way, copies, "copying its weights", rounds)
        beyond = (measured["ours"] - measured["peer"]) * 1000 / len(archs)
        results.append({**measured, "milliseconds_beyond_copying": beyond})
        print(f"{name}: {beyond:.3f} ms beyond copying")
    return results


PARTS: dict[str, Callable[[int], list[Measurement]]] = {
    "step": measure_step,
    "memory": measure_memory,
    "population": measure_population,
    "path": measure_path,
    "elastic": lambda rounds: measure_elastic(compare, rounds),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.peak_of:
        print(peak_of(arguments.peak_of))
        return
    results = []
    for part in arguments.part:
        for row in PARTS[part](arguments.rounds):
            results.append(row)
            print(f"{row['name']}: ours {row['ours']:.4g} {row['unit']}", end="")
            if "peer" in row:
                print(
                    f", {row['peer_name']} {row['peer']:.4g} {row['unit']}: {row['ratio']:.2f}× "
                    f"(minima {row['ratio_of_minima']:.2f}×)",
                    end="",
                )
            print()
        if arguments.out:  # after every part, for what is stopped early
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

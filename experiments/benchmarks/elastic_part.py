"""The part ``elastic`` of ``supernet.py``: networks over shared weights against networks alone."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elastic_space import elastic
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from evaluators.one_shot import OneShot
from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.data import Data
from nas.plain import nearest_to, plainest
from nas.space import SearchSpace, network, sample
from nas.specialize import Inherited, fit_predictor, score, specialize
from nas.specialize.candidates import TRIALS
from nas.specialize.family import CHECK
from nas.supernet import Supernet
from nas.supernet.files import load_supernet
from nas.supernet.paths import uniform_paths
from nas.supernet.plans import single
from nas.supernet.sizes import open_sizes
from nas.supernet.training import PathSettings, PathTraining
from search_spaces.mbconv import ofa_mobilenet_v3

Measurement = dict[str, Any]
BATCH = 64
NEW = 20
LIMITS = 10
SETTINGS = PathSettings(epochs=1, batch_size=BATCH, augment=False, channels_last=True)


def measure_elastic(compare: Callable[..., Measurement], rounds: int) -> list[Measurement]:
    """Steps, networks made ready, and a family specialised."""
    return [*_steps(compare, rounds), *_ready(compare, rounds), _family()]


def random_data(space: SearchSpace, images: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, *space.input, generator=generator)
    y = torch.randint(space.classes, (images,), generator=generator)
    return Data("random", TensorDataset(x, y), TensorDataset(x[:64], y[:64]), space.input,
                space.classes)  # fmt: skip


# ------------------------------------------------------------------------------------ steps


def _steps(compare: Callable[..., Measurement], rounds: int) -> list[Measurement]:
    space = elastic()
    data = random_data(space, 256)
    training = PathTraining(
        space,
        Subset(data.train, range(256)),
        data,
        SETTINGS,
        single(uniform_paths(space)),
        0,
        "cpu",
    )
    images, labels = next(iter(torch.utils.data.DataLoader(data.train, BATCH)))
    rng = np.random.default_rng(0)
    sizes = open_sizes(space).options
    largest = nearest_to(space, {label: max(options) for label, options in sizes.items()})
    middle = nearest_to(space, {label: sorted(options)[1] for label, options in sizes.items()})
    for _ in range(200):  # blocks are met, as in any training after its first minute
        training.supernet.network(sample(space, rng))
    drawn = [[sample(space, rng) for _ in range(NEW)] for _ in range(rounds + 1)]
    ours, theirs = iter(drawn), iter(drawn)
    alone = {
        arch: Alone(training.supernet, arch) for arch in {largest, middle, *itertools.chain(*drawn)}
    }
    return [
        compare(
            f"step of one network, {NEW} times",
            lambda: [training.step(images, labels, [middle]) for _ in range(NEW)],
            lambda: [alone[middle].step(images, labels) for _ in range(NEW)],
            "the network alone",
            rounds,
        ),
        compare(
            f"step of the largest network, which uses every tensor whole, {NEW} times",
            lambda: [training.step(images, labels, [largest]) for _ in range(NEW)],
            lambda: [alone[largest].step(images, labels) for _ in range(NEW)],
            "the network alone",
            rounds,
        ),
        compare(
            f"step of {NEW} random networks, each new",
            lambda: [training.step(images, labels, [arch]) for arch in next(ours)],
            lambda: [alone[arch].step(images, labels) for arch in next(theirs)],
            "networks alone, made before",
            rounds,
        ),
    ]


class Alone:
    """A network with weights of its own, and its step of SGD."""

    def __init__(self, supernet: Supernet, arch: Architecture) -> None:
        self.network = supernet.extract(arch).train()
        self.optimiser = torch.optim.SGD(
            self.network.parameters(), SETTINGS.learning_rate, SETTINGS.momentum,
            weight_decay=SETTINGS.weight_decay,
        )  # fmt: skip

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        self.optimiser.zero_grad()
        images = images.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(
            self.network(images), labels, label_smoothing=SETTINGS.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert SETTINGS.gradient_clip is not None
        nn.utils.clip_grad_norm_(self.network.parameters(), SETTINGS.gradient_clip)
        self.optimiser.step()
        return float(loss.detach())


# ------------------------------------------------------------------------------------ ready


def _ready(compare: Callable[..., Measurement], rounds: int) -> list[Measurement]:
    rows = []
    for title, space in (("the small space", elastic()), ("OFA-MobileNetV3", ofa_mobilenet_v3())):
        supernet = Supernet(space).eval()
        rng = np.random.default_rng(0)
        for _ in range(100):
            supernet.network(sample(space, rng))
        drawn = iter([[sample(space, rng) for _ in range(NEW)] for _ in range(3 * rounds + 3)])
        known = [sample(space, rng) for _ in range(NEW)]
        states = {arch: supernet.extract(arch).state_dict() for arch in known}

        def built(space: SearchSpace = space, states: Any = states) -> None:
            for arch, state in states.items():
                network(space, arch).load_state_dict(state)

        ways: dict[str, Callable[[], object]] = {
            "over views, met before": lambda of=supernet, archs=known: list(map(of.network, archs)),
            "over views, new": lambda of=supernet, rest=drawn: list(map(of.network, next(rest))),
            "extracted": lambda of=supernet, archs=known: list(map(of.extract, archs)),
        }
        for name, way in ways.items():
            row = compare(
                f"a network of {title}, {name}, {NEW} times", way, built,
                "built and loaded", rounds,
            )  # fmt: skip
            milliseconds = row["ours"] * 1000 / NEW
            rows.append({**row, "milliseconds": milliseconds})
            print(f"{title}, {name}: {milliseconds:.2f} ms a network")
    return rows


# ----------------------------------------------------------------------------------- family


def _family() -> Measurement:
    """From a trained supernet with a predictor to exported networks; the training is short."""
    space = elastic()
    data = random_data(space, 2000)
    largest = nearest_to(space, {k: max(v) for k, v in open_sizes(space).options.items()})
    least, most = (architecture_cost(space, arch).macs for arch in (plainest(space), largest))
    limits = [f"macs={round(x)}" for x in np.geomspace(1.1 * least, most, LIMITS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "supernet.safetensors"
        OneShot(space, data, path, "sandwich", SETTINGS).fit()
        shared = load_supernet(path, space)
        rows = score(Inherited(shared, data), Path(folder) / "scores.json", 100)
        predictor = fit_predictor(shared, rows)
        start = time.perf_counter()
        family = specialize(shared, limits, Path(folder) / "out", data=data, predictor=predictor)
        seconds = time.perf_counter() - start
    parts = {name: sum(one.seconds[name] for one in family) / LIMITS for name in family[0].seconds}
    print(f"{LIMITS} limits: {seconds:.1f} s; a limit:", parts)
    return {
        "name": f"specialisation of {LIMITS} limits, {TRIALS} predictions and {CHECK} scored "
        "networks each",
        "ours": seconds,
        "unit": "s",
        "seconds_a_limit": parts,
    }

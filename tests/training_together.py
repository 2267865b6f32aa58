"""Trainings of shared weights for several processes, and one process that does the work of all."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elastic import elastic
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset

from evaluators.one_shot import OneShot
from nas.data import Data, split
from nas.errors import WorkerError
from nas.supernet.parallel import ALONE, Group, sum_gradients
from nas.supernet.plans import PLANS
from nas.supernet.training import PathSettings, PathTraining, path_output
from nas.training import augmented, fetch, reproducible
from search_spaces.nasbench201 import NasBench201

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import own_space_transformer

EPOCHS = 3
SLOTS = NasBench201(channels=4, cells=1, input=(1, 8, 8))
# Space, sampling and settings. Batches of 33 examples cannot be cut in halves.
KINDS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "layer norms": (own_space_transformer.space, "uniform", {"paths": 2, "learning_rate": 0.05}),
    "phases": (own_space_transformer.space, "progressive", {"learning_rate": 0.02}),
    "slots": (lambda: SLOTS, "uniform", {"gradient_clip": 1.0}),
    "sizes": (elastic, "sandwich", {"paths": 1, "gradient_clip": 1.0, "channels_last": True}),
}


def training(kind: str, data: Data, group: Group = ALONE) -> PathTraining:
    space, sampling, settings = KINDS[kind]
    made = space()
    part, _ = split(data, 0.2)
    part = Subset(part.dataset, part.indices[:66])
    read = PathSettings(**{"epochs": EPOCHS, "batch_size": 34, "learning_rate": 0.05, **settings})
    plan = PLANS[sampling](made, read.paths)
    return PathTraining(made, part, data, read, plan, 5, "cpu", 1, False, group)


def statistics(module: nn.Module) -> list[torch.Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]


def by_shares(kind: str, data: Data, size: int) -> PathTraining:
    """One process that trains on the shares of all ranks, one after the other.

    Training in one phase, written out: each share with statistics of its own, gradients added.
    """
    peer = training(kind, data)
    settings, phase = peer.settings, peer.plan.phases[0]
    held = [[b.clone() for b in statistics(peer.supernet)] for _ in range(size)]
    for epoch in range(EPOCHS):
        rng = np.random.default_rng([peer.seed, epoch, 7])
        with reproducible(peer.seed + 1_000_003 * (epoch + 1), 1):
            order = torch.randperm(len(peer.examples))
            parts = order.tensor_split(math.ceil(len(order) / settings.batch_size))
            for index, part in enumerate(parts):
                for group in peer.optimiser.param_groups:
                    group["lr"] = settings.rate(epoch + index / len(parts))
                images, labels = fetch(peer.examples, part)
                images = augmented(images, peer.data.crop_padding, peer.data.flip)
                archs = phase.paths(rng)
                peer.optimiser.zero_grad()
                for rank, own in enumerate(held):
                    rows = slice(len(part) * rank // size, len(part) * (rank + 1) // size)
                    for kept, buffer in zip(statistics(peer.supernet), own, strict=True):
                        kept.copy_(buffer)
                    target = None
                    for arch in archs:
                        output = path_output(peer.supernet, arch, images[rows])
                        if target is None:
                            loss = F.cross_entropy(output, labels[rows], label_smoothing=0.1)
                        else:
                            loss = F.kl_div(output.log_softmax(1), target, reduction="batchmean")
                        (loss * len(labels[rows]) / len(part)).backward()
                        if phase.teaching == "first" and target is None:
                            target = output.detach().softmax(1)
                    for kept, buffer in zip(statistics(peer.supernet), own, strict=True):
                        buffer.copy_(kept)
                nn.utils.clip_grad_norm_(peer.supernet.parameters(), settings.gradient_clip)
                with peer._unused_kept(archs):
                    peer.optimiser.step()
        for buffers in zip(statistics(peer.supernet), *held, strict=True):
            mean = torch.stack(buffers[1:]).mean(0)
            for buffer in buffers:
                buffer.copy_(mean)
    return peer


# ------------------------------------------------------------------------ what workers run


def all_kinds(evaluator: OneShot, folder: Path, group: Group, report: Callable[..., None]) -> None:
    """Every training on each rank; what came of it lands in the folder.

    Args:
        evaluator: its training is one of them, without a checkpoint.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        trained = training(kind, evaluator.data, group)
        while not trained.done:
            trained.advance()
        found[kind] = trained.state_dict()
    found["gradients"] = gradients(group)
    found["one-shot"] = evaluator._shared(None, group, report)[0]
    trained = training("slots", evaluator.data, group)
    with torch.no_grad():
        next(trained.supernet.parameters()).mul_(1 + group.rank / 100)
    try:
        trained.advance()
    except WorkerError as error:
        found["apart"] = str(error)
    torch.save(found, folder / f"{group.rank}.pt")


def gradients(group: Group) -> tuple[float, list[torch.Tensor | None]]:
    """Of parameters: both ranks have one, the second alone, none."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 10.0 * group.rank])
    if group.rank == 1:
        parameters[1].grad = torch.tensor([3.0, 4.0])
    loss = sum_gradients(group, parameters, 0.5 + group.rank)
    return loss, [parameter.grad for parameter in parameters]

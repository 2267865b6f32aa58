"""Many paths of a supernet scored at once, with batch-norm statistics of their own.

What a path computes up to a place, and with it the statistics that its norms there are to have,
depends on the options before that place alone. So paths are run as a tree: where a network is a
sequence of parts, each beginning that paths share is calibrated and evaluated once, and equal
paths once altogether.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nas.architecture import Architecture
from nas.errors import UnsupportedRequest
from nas.layers.mobile import InOrder
from nas.supernet.folding import Folded, fold
from nas.supernet.gates import Gates
from nas.supernet.mixture import Mixed, Skippable
from nas.supernet.norms import recalibrate
from nas.supernet.supernet import Supernet

Score = tuple[float, float]
"""Accuracy (fraction) and mean cross-entropy (nats)."""
Labelled = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Batches of images and labels."""


def score_population(
    supernet: Supernet,
    archs: Sequence[Architecture],
    recalibration: Sequence[torch.Tensor],
    batches: Labelled,
) -> list[Score]:
    """The accuracy and loss of each architecture with the shared weights.

    What extracting each, ``recalibrate`` and evaluating it give, up to rounding. The supernet is
    left as it was. Architectures that pick a number below the largest are scored one by one.

    What is held at a time is what the parts of one path give for all batches.

    Args:
        recalibration: inputs, (N, …) each, that batch-norm statistics are estimated on; where
            there are none, the shared ones are taken.
        batches: what is scored on.

    Raises:
        ValueError: there is nothing to score on.
        UnsupportedRequest: an architecture's weights are not shared, or a part of the network
            changes its input in place.
    """
    if not batches:
        raise ValueError("scoring needs at least one batch")
    paths: dict[Architecture, Gates] = {}
    scores: dict[Architecture, Score] = {}
    for arch in dict.fromkeys(archs):
        try:
            paths[arch] = supernet.gates(arch)
        except UnsupportedRequest:  # a number that a mixture cannot tell
            scores[arch] = score_alone(supernet, arch, recalibration, batches)
    if paths:
        parts = [Part.of(module) for module in sequence(supernet.largest)]
        with torch.no_grad(), _as_it_was(supernet):
            tree = _Tree(supernet, parts, paths, [labels for _, labels in batches])
            images = [_channels_last(images) for images, _ in batches]
            tree.visit(0, list(paths), [_channels_last(x) for x in recalibration], images)
            scores |= tree.scores
    return [scores[arch] for arch in archs]


def score_alone(
    supernet: Supernet,
    arch: Architecture,
    recalibration: Sequence[torch.Tensor],
    batches: Labelled,
) -> Score:
    """The same of one architecture, by its extracted network."""
    network = supernet.extract(arch).eval()
    if recalibration:
        recalibrate(network, recalibration)
    with torch.no_grad():
        return _score([network(images) for images, _ in batches], [labels for _, labels in batches])


def sequence(network: nn.Module) -> list[nn.Module]:
    """The parts of which each is called on what the one before gives; the network where it is
    no sequence.
    """
    if type(network) is nn.Sequential:
        return [part for child in network for part in sequence(child)]
    if type(network) is InOrder:
        return [part for child in network.layers.values() for part in sequence(child)]
    return [network]


@dataclass(frozen=True)
class Part:
    """A part of a sequence: what in a path it depends on, and its norms.

    Attributes:
        in_place: whether a layer of it says that it may change its input.
    """

    module: nn.Module
    labels: tuple[str, ...]
    norms: tuple[_BatchNorm, ...]
    in_place: bool

    @classmethod
    def of(cls, module: nn.Module) -> Part:
        inside = list(module.modules())
        labels = {part.label for part in inside if isinstance(part, Mixed | Skippable)}
        norms = [
            part for part in inside if isinstance(part, _BatchNorm) and part.track_running_stats
        ]
        in_place = any(getattr(part, "inplace", False) for part in inside)
        return cls(module, tuple(sorted(labels)), tuple(norms), in_place)

    def key(self, gates: Gates) -> Hashable:
        """Equal for paths that this part does the same for."""
        return tuple(gates.get(label) for label in self.labels)

    def picked(self, gates: Gates) -> nn.Module | None:
        """The module that a path runs here, where it is one that asks for no gates."""
        if not self.labels:
            return self.module
        gate = gates.get(self.labels[0])
        if type(self.module) is not Mixed or not isinstance(gate, str):
            return None
        option = self.module.option(gate)
        inside = () if option is None else option.modules()
        return None if any(isinstance(part, Mixed | Skippable) for part in inside) else option

    def run(self, x: torch.Tensor, instead: nn.Module | None = None) -> torch.Tensor:
        """What it, or another module in its place, gives; x is left as it is."""
        version = x._version
        module = self.module if instead is None else instead
        out: torch.Tensor = module(x.clone() if self.in_place else x)
        if x._version != version:
            raise UnsupportedRequest(
                f"{type(module).__name__} changes its input in place, which paths share"
            )
        return out


class _Tree:
    """The paths by their beginnings, run in depth first."""

    def __init__(
        self,
        supernet: Supernet,
        parts: Sequence[Part],
        paths: Mapping[Architecture, Gates],
        labels: Sequence[torch.Tensor],
    ) -> None:
        self.supernet = supernet
        self.parts = parts
        self.paths = paths
        self.labels = labels
        self.scores: dict[Architecture, Score] = {}
        self._folded: dict[nn.Module, Folded | None] = {}
        self._last_norm = max((i for i, part in enumerate(parts) if part.norms), default=-1)

    def visit(
        self,
        index: int,
        archs: Sequence[Architecture],
        recalibration: Sequence[torch.Tensor],
        images: Sequence[torch.Tensor],
    ) -> None:
        """Runs the parts from an index on, for paths that are the same before it."""
        if index == len(self.parts):
            score = _score(images, self.labels)
            self.scores.update(dict.fromkeys(archs, score))
            return
        part = self.parts[index]
        groups: dict[Hashable, list[Architecture]] = {}
        for arch in archs:
            groups.setdefault(part.key(self.paths[arch]), []).append(arch)
        for group in groups.values():
            with self.supernet.under(self.paths[group[0]]):
                calibrated = self._calibrated(part, index, recalibration)
                plain = self._without_norms(part, self.paths[group[0]])
                given = [part.run(batch, plain) for batch in images]
            self.visit(index + 1, group, calibrated, given)

    def _without_norms(self, part: Part, gates: Gates) -> nn.Module | None:
        """What does the same as the part does now, with its norms folded, where that is known."""
        picked = part.picked(gates) if part.norms else None
        if picked is None:
            return None
        if picked not in self._folded:
            self._folded[picked] = fold(picked)
        folded = self._folded[picked]
        return None if folded is None else folded.update()

    def _calibrated(
        self, part: Part, index: int, recalibration: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """What the part gives for these inputs while its norms learn their statistics."""
        if not recalibration or index > self._last_norm:
            return []
        for norm in part.norms:
            norm.reset_running_stats()
            norm.train()
        given = [part.run(batch) for batch in recalibration]
        for norm in part.norms:
            norm.eval()
        return given


@contextmanager
def _as_it_was(supernet: Supernet) -> Iterator[None]:
    """In eval mode within, every norm taking a plain average; afterwards as before."""
    modes = [(module, module.training) for module in supernet.modules()]
    norms = [module for module in supernet.modules() if isinstance(module, _BatchNorm)]
    momenta = [(norm, norm.momentum) for norm in norms]
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        supernet.eval()
        for norm in norms:
            norm.momentum = None
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """How a CPU convolves images fastest."""
    if x.dim() != 4 or x.device.type != "cpu":
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _score(outputs: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> Score:
    correct, loss, count = 0, 0.0, 0
    for logits, expected in zip(outputs, labels, strict=True):
        correct += int((logits.argmax(dim=1) == expected).sum())
        loss += float(F.cross_entropy(logits, expected, reduction="sum"))
        count += len(expected)
    return correct / count, loss / count

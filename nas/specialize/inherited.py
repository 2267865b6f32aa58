"""Sub-networks with the weights of a trained supernet: extracted, recalibrated, scored.

As the evaluator ``one_shot`` does it, and with the same numbers for the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nas.architecture import Architecture
from nas.components import OPAQUE, create
from nas.data import Data, check_fits, split
from nas.errors import ConfigError, DataError
from nas.objective import Metric
from nas.supernet import recalibrate
from nas.supernet.files import SharedSupernet
from nas.training import Device, choose_device, evaluate, fetch, reproducible
from nas.trial import Fidelity, Measured, Proposal

BATCH_SIZE = 64
"""Where the supernet's settings tell none."""
VALIDATION_FRACTION = 0.2

Score = tuple[float, float]
"""Accuracy (fraction) and mean cross-entropy (nats)."""


def data_of(shared: SharedSupernet, data: Any = None) -> Data:
    """The data that a supernet's networks are scored and tested on.

    Args:
        data: a data set, or its description; what the supernet was trained on if not given.

    Raises:
        ConfigError: none is given and the supernet's lives in a script.
        DataError: they do not fit the space, or are normalised otherwise than what the supernet
            was trained on.
    """
    if data is None:
        data = shared.facts.get("data")
        if data is None or (isinstance(data, Mapping) and OPAQUE in data):
            raise ConfigError(
                "the supernet was trained on data that live in a Python script, or does not say on "
                "which: give them (--data)"
            )
    found: Data = data if isinstance(data, Data) else create("datasets", data, "data")
    check_fits(found, shared.space)
    before, here = shared.facts.get("preprocessing"), json.loads(json.dumps(found.preprocessing))
    if before and here and before != here:
        raise DataError(
            f"data set {found.name!r} is normalised by {here}, but the supernet was trained on "
            f"images normalised by {before}: its weights do not fit the others"
        )
    return found


class Inherited:
    """Makes and scores the networks of a supernet's architectures.

    Args:
        data: of ``data_of``; scored is on the part of the training set that the supernet's
            training held out, so the test set is not looked at.
        recalibration_batches: batches of training images that batch-norm statistics are estimated
            on; 0 leaves the supernet's.
        threads: of the CPU; more than one is not reproducible to the bit.
    """

    def __init__(
        self,
        shared: SharedSupernet,
        data: Data,
        recalibration_batches: int = 20,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        if recalibration_batches < 0:
            raise ConfigError(
                f"recalibration_batches must be at least 0, got {recalibration_batches}"
            )
        fraction = float(shared.facts.get("validation_fraction", VALIDATION_FRACTION))
        settings = shared.facts.get("settings")
        size = BATCH_SIZE
        if isinstance(settings, Mapping):
            size = int(settings.get("batch_size", BATCH_SIZE))
        self.shared = shared
        self.data = data
        self.recalibration_batches = recalibration_batches
        self.device = device
        self.threads = threads
        examples, self._held_out = split(data, fraction)
        place = choose_device(device)
        shared.supernet.to(place)
        used = min(len(examples), recalibration_batches * size)
        with reproducible(0, threads):
            self._batches = [
                fetch(examples, torch.arange(start, min(start + size, used)))[0].to(place)
                for start in range(0, used - 1, size)  # one example alone has no variance
            ]
        self._scores: dict[Architecture, Score] = {}

    def __reduce__(self) -> Any:
        given = (self.shared, self.data, self.recalibration_batches, self.device, self.threads)
        return Inherited, given

    def network(self, arch: Architecture) -> nn.Module:
        """The network of an architecture, with statistics of its own, in eval mode.

        Raises:
            InvalidArchitecture: it is not one of the space.
        """
        network = self.shared.supernet.extract(arch).eval()
        if self._batches:
            with reproducible(0, self.threads):
                recalibrate(network, self._batches)
        return network

    def score(self, arch: Architecture) -> Score:
        """Its accuracy and loss on the examples that were held out; each is found out once."""
        if arch not in self._scores:
            self._scores[arch] = evaluate(
                self.network(arch), self._held_out, device=self.device, threads=self.threads
            )
        return self._scores[arch]

    def test(self, network: nn.Module) -> float | None:
        """A network's accuracy on the test set; ``None`` where there is none."""
        if self.data.test is None:
            return None
        return evaluate(network, self.data.test, device=self.device, threads=self.threads)[0]


class ScoresInherited:
    """An evaluator of sub-networks, by the scores of ``Inherited``; trains nothing."""

    metrics = (
        Metric("accuracy", "fraction", "maximize"),
        Metric("loss", "nats", "minimize"),
    )

    def __init__(self, inherited: Inherited) -> None:
        self.inherited = inherited

    def evaluate(self, proposal: Proposal) -> Measured:
        accuracy, loss = self.inherited.score(proposal.arch)
        return Measured({"accuracy": accuracy, "loss": loss})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

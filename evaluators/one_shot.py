"""One-shot evaluation: a supernet is trained once, and architectures are scored with its weights.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling" (SPOS), ECCV
2020: one uniformly drawn path a step. Chu et al., "FairNAS: Rethinking Evaluation Fairness of
Weight Sharing Neural Architecture Search", ICCV 2021: every option once in each step. Any
black-box strategy searches on it: evolution is SPOS, random search is Li & Talwalkar's random
search with weight sharing (UAI 2019).

What differs from the papers: paths are drawn without regard to their MACs (SPOS draws within a
range); the optimiser is SPOS's in both kinds of sampling; norms are recalibrated on training
images without augmentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from nas.budget import Cost
from nas.components import describe
from nas.data import Data, check_fits, split
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.evaluator import OnEpoch
from nas.objective import Metric
from nas.space import SearchSpace, validate
from nas.supernet import Supernet, recalibrate
from nas.supernet.checkpoint import load_training, save_training
from nas.supernet.training import (
    Paths,
    PathSettings,
    PathTraining,
    fair_paths,
    uniform_paths,
)
from nas.training import Device, choose_device, evaluate, fetch, reproducible, weights
from nas.trial import Fidelity, Measured, Proposal

CHECKPOINT = "supernet.safetensors"
"""The file in a run's folder."""

SETTINGS = PathSettings()
"""SPOS's."""

Sampling = Literal["uniform", "fair"]
SAMPLING: dict[str, Callable[[SearchSpace], Paths]] = {
    "uniform": uniform_paths,
    "fair": fair_paths,
}


class OneShot:
    """Scores architectures with the weights of a supernet that is trained once, before the first.

    Metrics: ``accuracy`` (fraction, maximised) and ``loss`` (cross-entropy in nats, minimised) on
    held-out examples of the training set, the same as those of the ``training`` evaluator. A
    trial trains nothing; the supernet's training is charged to the first trial of a search.

    ``fit`` trains the supernet and puts a checkpoint on disk after every epoch, from which
    training that was killed goes on. A search calls it before its first trial and the trained
    weights travel with the evaluator, so that workers need no file and never train.

    Args:
        checkpoint: the file of the supernet, which runs with the same settings may share; without
            it a search keeps ``supernet.safetensors`` in its run folder.
        sampling: ``"uniform"``, one random path a step, or ``"fair"``, every option of every
            choice in one of the paths of each step, whose gradients are added up.
        settings: of the training.
        seed: of the training.
        validation_fraction: share of the training set that is held out.
        recalibration_batches: batches of training examples from which the batch-norm statistics
            of each scored path are estimated anew; 0 takes the supernet's, an average over all
            paths.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU; more than one is not reproducible to the bit.

    Raises:
        DataError: the data do not fit the space, or are too few.
        UnsupportedRequest: fair sampling of a space whose choices differ or depend on others.
        ConfigError: an argument is out of range.
    """

    metrics = (
        Metric("accuracy", "fraction", "maximize"),
        Metric("loss", "nats", "minimize"),
    )

    def __init__(
        self,
        space: SearchSpace,
        data: Data,
        checkpoint: str | Path | None = None,
        sampling: Sampling = "uniform",
        settings: PathSettings = SETTINGS,
        seed: int = 0,
        validation_fraction: float = 0.2,
        recalibration_batches: int = 20,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        check_fits(data, space)
        if sampling not in get_args(Sampling):
            raise ConfigError(
                f"there is no sampling {sampling!r}: {nearest(sampling, get_args(Sampling))}"
            )
        SAMPLING[sampling](space)
        for name, value, least in (
            ("seed", seed, 0),
            ("recalibration_batches", recalibration_batches, 0),
            ("threads", threads, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        choose_device(device)
        split(data, validation_fraction)
        self.space = space
        self.data = data
        self.checkpoint = checkpoint
        self.sampling = sampling
        self.settings = settings
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.recalibration_batches = recalibration_batches
        self.device = device
        self.threads = threads
        self._weights: dict[str, torch.Tensor] | None = None
        self._seconds = 0.0
        self._live: tuple[Supernet, list[torch.Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None}  # made from the weights again where it is needed

    def fit(self, folder: Path | None = None, on_epoch: OnEpoch | None = None) -> Cost:
        """Trains the supernet, or what is left of it; nothing when that is done.

        Args:
            folder: where the checkpoint is kept if ``checkpoint`` does not say.
            on_epoch: called after each epoch with its number, from 1, and its loss in nats.

        Returns:
            What training took in all. An epoch is a pass over the training part by one path; fair
            sampling makes one for every option.

        Raises:
            NotFinite: the training loss is not finite.
            DataError: the checkpoint is damaged.
            ResumeError: the checkpoint is of a supernet trained otherwise.
        """
        if self._weights is None:
            path = Path(self.checkpoint) if self.checkpoint is not None else None
            if path is None and folder is not None:
                path = folder / CHECKPOINT
            examples, _ = split(self.data, self.validation_fraction)
            training = PathTraining(
                self.space,
                examples,
                self.data,
                self.settings,
                self.seed,
                self.device,
                self.threads,
            )
            seconds = 0.0
            if path is not None and path.exists():
                seconds = load_training(path, training, self._facts())
            paths = SAMPLING[self.sampling](self.space)
            while not training.done:
                start = time.perf_counter()
                training.advance(paths)
                seconds += time.perf_counter() - start
                if path is not None:
                    save_training(path, training, self._facts(), seconds)
                if on_epoch is not None:
                    on_epoch(training.epoch, training.curve[-1])
            self._weights, self._seconds = weights(training.supernet), seconds
        passes = len(self.space.choices[0].options) if self.sampling == "fair" else 1
        return Cost(seconds=self._seconds, epochs=float(self.settings.epochs * passes))

    def evaluate(self, proposal: Proposal) -> Measured:
        """Scores an architecture; trains the supernet first if ``fit`` was never called.

        Raises:
            UnsupportedRequest: a fidelity is asked for, which inherited weights have not.
        """
        validate(self.space, proposal.arch)
        if proposal.fidelity != Fidelity():
            raise UnsupportedRequest(
                f"one_shot trains no architecture, so it has no fidelity; asked for "
                f"{proposal.fidelity}"
            )
        supernet, batches = self._supernet()
        network = supernet.extract(proposal.arch).eval()
        _, held_out = split(self.data, self.validation_fraction)
        with reproducible(0, self.threads):
            if batches:
                recalibrate(network, batches)
        accuracy, loss = evaluate(network, held_out, device=self.device, threads=self.threads)
        return Measured({"accuracy": accuracy, "loss": loss})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

    def _supernet(self) -> tuple[Supernet, list[torch.Tensor]]:
        """The trained supernet and the batches for recalibration, kept once they are made."""
        if self._live is None:
            self.fit()
            assert self._weights is not None
            device = choose_device(self.device)
            with reproducible(0, self.threads):
                supernet = Supernet(self.space)
                supernet.load_state_dict(self._weights)
                examples, _ = split(self.data, self.validation_fraction)
                used = min(len(examples), self.recalibration_batches * self.settings.batch_size)
                size = self.settings.batch_size
                starts = range(0, used - 1, size)  # one example alone has no variance
                batches = [
                    fetch(examples, torch.arange(start, min(start + size, used)))[0].to(device)
                    for start in starts
                ]
            self._live = supernet.to(device).eval(), batches
        return self._live

    def _facts(self) -> dict[str, Any]:
        """What the trained weights depend on."""
        arguments = ("space", "data", "sampling", "settings", "seed", "validation_fraction")
        return {name: describe(getattr(self, name)) for name in arguments}

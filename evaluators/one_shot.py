"""One-shot evaluation: a supernet is trained once, and architectures are scored with its weights.

Which architectures a step of its training has, and what they learn from, is the sampling
(``nas.supernet.plans``): one path of Guo et al., "Single Path One-Shot Neural Architecture Search
with Uniform Sampling" (SPOS, ECCV 2020), every option once of Chu et al., "FairNAS" (ICCV 2021),
the sandwich rule of Yu & Huang, "Universally Slimmable Networks" (ICCV 2019), or the progressive
shrinking of Cai et al., "Once-for-all" (ICLR 2020). Any black-box strategy searches on it:
evolution is SPOS's and once-for-all's, random search is Li & Talwalkar's random search with weight
sharing (UAI 2019).

What differs from the papers: paths are drawn without regard to their MACs (SPOS draws within a
range); the optimiser is SPOS's whatever the sampling, with settings of its own for what is asked
for; norms are recalibrated on training images without augmentation.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from nas.budget import Cost
from nas.components import describe
from nas.data import Data, check_fits, split
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.evaluator import OnEpoch
from nas.history import write_file
from nas.objective import Metric
from nas.shared import Shared, own
from nas.space import SearchSpace, validate
from nas.supernet import Supernet, recalibrate
from nas.supernet.checkpoint import load_training, save_training
from nas.supernet.parallel import ALONE, Group
from nas.supernet.plans import PLANS
from nas.supernet.training import PathSettings, PathTraining
from nas.supernet.workers import (
    Workers,
    as_workers,
    check_workers,
    run_resumable,
    run_workers,
)
from nas.training import Device, choose_device, evaluate, fetch, reproducible, weights
from nas.trial import Fidelity, Measured, Proposal

CHECKPOINT = "supernet.safetensors"
"""The file in a run's folder."""

SETTINGS = PathSettings()
"""SPOS's."""

Sampling = Literal["uniform", "fair", "sandwich", "progressive"]


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
        sampling: ``"uniform"``, one random path a step; ``"fair"``, every option of every choice
            in one of the paths of each step; ``"sandwich"``, the largest, random ones and the
            smallest; ``"progressive"``, the largest first, then ever smaller ones. The gradients
            of a step's paths are added up.
        settings: of the training.
        seed: of the training.
        validation_fraction: share of the training set that is held out.
        recalibration_batches: batches of training examples from which the batch-norm statistics
            of each scored path are estimated anew; 0 takes the supernet's, an average over all
            paths.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU; more than one is not reproducible to the bit.
        kernel_transforms: whether smaller kernels are made of larger ones by learnt matrices, as
            once-for-all's are; otherwise they are their centres.
        workers: processes that train the supernet together, each on its rows of every batch: so
            many on this machine, where there are GPUs with one each, or ``Workers`` (of a Ray
            cluster, say). Another number of them may go on from a checkpoint; the bits are then
            others.

    Raises:
        DataError: the data do not fit the space, or are too few.
        UnsupportedRequest: fair sampling of a space whose choices differ or depend on others, or
            sandwich or progressive sampling of a space in which no size is open.
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
        kernel_transforms: bool = False,
        workers: int | Workers = 1,
    ) -> None:
        check_fits(data, space)
        if sampling not in PLANS:
            raise ConfigError(f"there is no sampling {sampling!r}: {nearest(sampling, PLANS)}")
        PLANS[sampling](space, settings.paths)  # refuses what the space does not have
        for name, value, least in (
            ("seed", seed, 0),
            ("recalibration_batches", recalibration_batches, 0),
            ("threads", threads, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        choose_device(device)
        examples, _ = split(data, validation_fraction)
        check_workers(workers, len(examples), settings.batch_size, device)
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
        self.kernel_transforms = kernel_transforms
        self.workers = workers
        self._weights: dict[str, torch.Tensor] | None = None
        self._cost = Cost()
        self._live: tuple[Supernet, list[torch.Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is alive is made from the weights again where it is needed. They are never written
        # into: a scored network's, and its statistics, are copies.
        weights = self._weights
        shared = None if weights is None else {n: Shared(t) for n, t in weights.items()}
        return {**self.__dict__, "_live": None, "_weights": shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state["_weights"]
        if weights is not None:
            weights = {name: own(tensor) for name, tensor in weights.items()}
        self.__dict__ |= {**state, "_weights": weights}

    def fit(self, folder: Path | None = None, on_epoch: OnEpoch | None = None) -> Cost:
        """Trains the supernet, or what is left of it; nothing when that is done.

        Args:
            folder: where the checkpoint is kept if ``checkpoint`` does not say.
            on_epoch: called after each epoch with its number, from 1, and its loss in nats.

        Returns:
            What training took in all, in seconds of the clock however many workers there are. An
            epoch is a pass over the training part by one path; a step of several paths makes
            several.

        Raises:
            NotFinite: the training loss is not finite.
            DataError: the checkpoint is damaged.
            ResumeError: the checkpoint is of a supernet trained otherwise.
            WorkerError: one of several workers died (on Ray, more often than is retried); the
                next call goes on from the checkpoint.
        """
        if self._weights is None:
            path = Path(self.checkpoint) if self.checkpoint is not None else None
            if path is None and folder is not None:
                path = folder / CHECKPOINT
            training, seconds = self._begun(path, ALONE)
            workers = as_workers(self.workers)
            if workers.count == 1 or training.done:
                found = self._finished(path, training, seconds, on_epoch)
            elif workers.on == "processes":
                work = functools.partial(self._shared, path)
                found = run_workers(work, workers.count, self.device, self.threads, on_epoch)
            else:
                found = self._far(workers, path, on_epoch)
            self._weights, self._cost = found
        return self._cost

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

    def _begun(self, path: Path | None, group: Group) -> tuple[PathTraining, float]:
        """The training, where the checkpoint left it, and the seconds that it had taken."""
        examples, _ = split(self.data, self.validation_fraction)
        training = PathTraining(
            self.space,
            examples,
            self.data,
            self.settings,
            PLANS[self.sampling](self.space, self.settings.paths),
            self.seed,
            self.device,
            self.threads,
            self.kernel_transforms,
            group,
        )
        if path is None or not path.exists():
            return training, 0.0
        return training, load_training(path, training, self._facts())

    def _finished(
        self, path: Path | None, training: PathTraining, seconds: float, on_epoch: OnEpoch | None
    ) -> tuple[dict[str, torch.Tensor], Cost]:
        """Trains what is left; the weights, and what they took in all."""
        while not training.done:
            start = time.perf_counter()
            training.advance()
            seconds += time.perf_counter() - start
            if path is not None and training.group.rank == 0:
                save_training(path, training, self._facts(), seconds)
            if on_epoch is not None:
                on_epoch(training.epoch, training.curve[-1])
        return weights(training.supernet), Cost(seconds=seconds, epochs=training.passes)

    def _shared(
        self, path: Path | None, group: Group, report: OnEpoch
    ) -> tuple[dict[str, torch.Tensor], Cost]:
        """What each of several workers does."""
        return self._finished(path, *self._begun(path, group), report)

    def _far(
        self, workers: Workers, path: Path | None, on_epoch: OnEpoch | None
    ) -> tuple[dict[str, torch.Tensor], Cost]:
        """The same on machines that may not see the checkpoint: it travels."""

        def on_kept(content: bytes, told: tuple[int, float]) -> None:
            if path is not None:
                write_file(path, content)
            if on_epoch is not None:
                on_epoch(*told)

        kept = path.read_bytes() if path is not None and path.exists() else b""
        return run_resumable(self._travelling, kept, workers, self.device, self.threads, on_kept)

    def _travelling(
        self, kept: bytes, group: Group, keep: Callable[[bytes, Any], None]
    ) -> tuple[dict[str, torch.Tensor], Cost]:
        """What each of several workers does, with a checkpoint of its own."""
        with tempfile.TemporaryDirectory(prefix="nasforge-") as folder:
            path = Path(folder) / CHECKPOINT
            if kept:
                path.write_bytes(kept)

            def on_epoch(epoch: int, loss: float) -> None:
                if group.rank == 0:
                    keep(path.read_bytes(), (epoch, loss))

            return self._finished(path, *self._begun(path, group), on_epoch)

    def _supernet(self) -> tuple[Supernet, list[torch.Tensor]]:
        """The trained supernet and the batches for recalibration, kept once they are made."""
        if self._live is None:
            self.fit()
            assert self._weights is not None
            device = choose_device(self.device)
            with reproducible(0, self.threads):
                supernet = Supernet(self.space, kernel_transforms=self.kernel_transforms)
                supernet.load_state_dict(self._weights, assign=True)  # the same memory
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
        arguments = (
            *("space", "data", "sampling", "settings", "seed", "validation_fraction"),
            "kernel_transforms",
        )
        return {name: describe(getattr(self, name)) for name in arguments}

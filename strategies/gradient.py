"""The search that differentiable strategies share: two parameter sets, one supernet.

In every step the architecture parameters take a step on one half of the training set, and the
shared weights one on the other. What a strategy adds is how its parameters become gates, and
what else it minimises (``Relaxation``): each is a module of its own with its paper's settings.

Weights and architecture parameters are never both given gradients in the same pass: a weight
step needs none for the gates, an architecture step none for the weights, and each is then
cheaper by what it leaves out.

Several processes may make every step together (``nas.supernet.parallel``). Each has the same
parameters, draws the same gates and takes its rows of both batches; gradients of weights and of
architecture parameters are averaged before they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset

from nas.architecture import Architecture
from nas.data import Data, Item, check_fits, split
from nas.errors import ConfigError
from nas.space import SearchSpace
from nas.supernet import Form, Gates, Supernet, discretize, parallel, search_form
from nas.training import Device, augmented, choose_device, fetch, reproducible
from nas.trial import NotFinite
from strategies.optimiser_state import plain, restored


@dataclass(frozen=True)
class GradientSettings:
    """How weights and architecture parameters are trained; the defaults are those of DARTS.

    Attributes:
        epochs: passes over the weights' half of the training set.
        batch_size: of each step, in both halves.
        weight_lr, weight_lr_min: of SGD on the weights, from the first down a cosine over the
            epochs to the second.
        momentum, nesterov, weight_decay, gradient_clip: of SGD on the weights.
        arch_lr, arch_beta1, arch_beta2, arch_weight_decay: of Adam on the architecture
            parameters.
        warmup_epochs: in which the architecture parameters rest.
        augment: whether training images are cropped and mirrored as the data set says.
    """

    epochs: int = 50
    batch_size: int = 64
    weight_lr: float = 0.025
    weight_lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    arch_lr: float = 3e-4
    arch_beta1: float = 0.5
    arch_beta2: float = 0.999
    arch_weight_decay: float = 1e-3
    warmup_epochs: int = 0
    augment: bool = True
    nesterov: bool = False

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 2, "gradient_clip": 1e-12, "weight_lr": 1e-12}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"settings: {field.name} must be finite, got {value!r}")
            if value < least.get(field.name, 0):
                raise ConfigError(
                    f"settings: {field.name} must be at least {least.get(field.name, 0)}, "
                    f"got {value!r}"
                )
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"settings: warmup_epochs must be below epochs ({self.epochs}), or the "
                f"architecture parameters never move; got {self.warmup_epochs}"
            )

    def rate(self, epoch: int) -> float:
        """The learning rate of the weights in an epoch, from 0."""
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.weight_lr_min + (self.weight_lr - self.weight_lr_min) * cosine


class Relaxation(Protocol):
    """How architecture parameters become gates, and what is minimised besides the loss."""

    def parameters(self, supernet: Supernet) -> dict[str, nn.Parameter]:
        """The architecture parameters at the start, by label; drawn from torch's generator."""

    def gates(self, parameters: Mapping[str, torch.Tensor], progress: float) -> Gates:
        """The gates of one forward pass; draws from torch's generator where it samples.

        Args:
            progress: share of the search that is done, from 0 to 1.
        """

    def loss(
        self, loss: torch.Tensor, parameters: Mapping[str, torch.Tensor], progress: float
    ) -> torch.Tensor:
        """What an architecture step minimises, of the cross-entropy on its batch."""

    def weights(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        """The strengths of the options, to be discretised."""


@dataclass
class Batch:
    """Images and labels of one step, on the device.

    Attributes:
        part: how much of the step's examples they are: those of one of several processes.
    """

    images: torch.Tensor
    labels: torch.Tensor
    part: float = 1.0


ArchitectureStep = Callable[["GradientSearch", Batch, Batch], None]
"""Sets the gradients of the architecture parameters: from (search, training, validation).

Those of several processes are averaged afterwards."""

Steps = Callable[["GradientSearch", Batch, Batch], float]
"""Moves weights and architecture parameters, and gives the training loss, in nats."""


class GradientSearch:
    """The supernet, the architecture parameters, their optimisers, and epochs of both.

    Args:
        space: whose supernet is trained.
        data: its training set is cut into two halves, one for the weights and one for the
            architecture parameters.
        step: what an architecture step is.
        share: how much of the training set the weights' half is; 1 is all of it, for ``jointly``.
        form: how the supernet is made; the space's own search form where it has one.
        steps: what is done with a batch of each half.
        penalty: what an architecture step minimises besides, of its gates.
        fast: whether the supernet is computed by the kernels that are fast on a CPU
            (``Supernet.fast``); the same up to rounding.
        group: the processes that train together, all with the same arguments and state.

    Attributes:
        epoch: how many are done.
        curve: the mean training loss of each, in nats.
        examples: how many were taken through the supernet and back.
        whole: as many are one pass over the whole training set.
        training_examples: how many train the weights.

    Raises:
        DataError: the data do not fit the space.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Data,
        relaxation: Relaxation,
        step: ArchitectureStep,
        settings: GradientSettings,
        seed: int,
        device: Device = "auto",
        threads: int = 1,
        share: float = 0.5,
        form: Form | None = None,
        steps: Steps | None = None,
        penalty: Callable[[Gates], torch.Tensor] | None = None,
        fast: bool = True,
        group: parallel.Group = parallel.ALONE,
    ) -> None:
        check_fits(data, space)
        if seed < 0:
            raise ConfigError(f"seed must be zero or more, got {seed}")
        self.space = space
        self.data = data
        self.relaxation = relaxation
        self.step = step
        self.settings = settings
        self.seed = seed
        self.device = choose_device(device)
        self.threads = threads
        self.steps = alternating if steps is None else steps
        self.penalty = penalty
        self.group = group
        self.epoch = 0
        self.examples = 0
        self.curve: list[dict[str, float]] = []
        self._training, self._validation = halves(data, share)
        self.training_examples = len(self._training)
        self.whole = self.training_examples / share
        with reproducible(seed, threads):
            self.supernet = Supernet(space, search_form(space) if form is None else form)
            self.supernet.to(self.device).train()
            self.supernet.fast = fast
            self.parameters = {
                label: nn.Parameter(parameter.data.to(self.device))
                for label, parameter in relaxation.parameters(self.supernet).items()
            }
        self.weight_optimiser = torch.optim.SGD(
            self.supernet.parameters(),
            lr=settings.weight_lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        self.arch_optimiser = torch.optim.Adam(
            self.parameters.values(),
            lr=settings.arch_lr,
            betas=(settings.arch_beta1, settings.arch_beta2),
            weight_decay=settings.arch_weight_decay,
        )

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return self.epoch >= self.settings.epochs

    @property
    def progress(self) -> float:
        """Share of the epochs that are done, counted within an epoch too."""
        return self._position / self.settings.epochs

    def advance(self) -> None:
        """One epoch. The same seed and state give the same result, whatever came before.

        Raises:
            NotFinite: a loss is not; the message names the epoch.
            WorkerError: another process of the group is gone, or has come to other parameters.
        """
        with reproducible(self.seed + 1_000_003 * (self.epoch + 1), self.threads):
            losses = [self.steps(self, *pair) for pair in self._batches()]
        mean = sum(losses) / len(losses)
        if not math.isfinite(mean):
            raise NotFinite(f"the search's training loss is {mean} in epoch {self.epoch + 1}")
        self.epoch += 1
        self._position = float(self.epoch)
        self.curve.append({"epoch": self.epoch, "train_loss": mean})
        if self.group.size > 1:
            parallel.average_statistics(self.group, (self.supernet,))
            what = f"the parameters after epoch {self.epoch}"
            parallel.check_same(self.group, self.state_dict(), self.device, what)

    _position = 0.0

    def _batches(self) -> Iterator[tuple[Batch, Batch]]:
        settings = self.settings
        order = torch.randperm(len(self._training))
        other = torch.randperm(len(self._validation))
        parts = order.tensor_split(max(1, math.ceil(len(order) / settings.batch_size)))
        for group in self.weight_optimiser.param_groups:
            group["lr"] = settings.rate(self.epoch)
        start = 0
        for index, part in enumerate(parts):
            self._position = self.epoch + index / len(parts)
            chosen = other[torch.arange(start, start + len(part)) % len(other)]
            start += len(part)
            yield self._fetched(self._training, part), self._fetched(self._validation, chosen)

    def _fetched(self, dataset: Any, chosen: torch.Tensor) -> Batch:
        rows = parallel.share(self.group, len(chosen))
        with self._own_randomness(int(chosen[0])):
            images, labels = fetch(dataset, chosen[rows])  # its transforms may draw
        images = images.to(self.device)
        if self.settings.augment:
            of = (len(chosen), rows)
            images = augmented(images, self.data.crop_padding, self.data.flip, of)
        return Batch(images, labels.to(self.device), len(labels) / len(chosen))

    def _own_randomness(self, index: int) -> AbstractContextManager[None]:
        """Within, each process draws its own numbers; afterwards all draw the same gates."""
        return parallel.own_randomness(self.group, (self.seed, self.examples, index), self.threads)

    def cross_entropy(self, batch: Batch, gates: Gates) -> torch.Tensor:
        """The mean cross-entropy of the supernet under these gates, in nats."""
        return self.loss(batch, lambda: self.supernet(batch.images, gates))

    def loss(self, batch: Batch, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The mean cross-entropy, in nats, over the rows of all processes.

        Args:
            run: gives the logits of this one's.
        """
        self.examples += round(len(batch.labels) / batch.part)
        with self._own_randomness(0):  # dropout; as many numbers as it has rows
            logits = run()
        loss = F.cross_entropy(logits, batch.labels)
        return parallel.whole_loss(self.group, loss, batch.part)

    def architecture_loss(self, loss: torch.Tensor, gates: Gates) -> torch.Tensor:
        """What the architecture parameters minimise, of the cross-entropy under these gates."""
        loss = self.relaxation.loss(loss, self.parameters, self.progress)
        return loss if self.penalty is None else loss + self.penalty(gates)

    def step_weights(self) -> None:
        """A step down the weights' gradients, which are cut to length."""
        parallel.mean_gradients(self.group, self.supernet.parameters())
        nn.utils.clip_grad_norm_(self.supernet.parameters(), self.settings.gradient_clip)
        self.weight_optimiser.step()

    def step_architecture(self) -> None:
        """A step down the gradients of the architecture parameters."""
        parallel.mean_gradients(self.group, self.parameters.values())
        self.arch_optimiser.step()

    @property
    def resting(self) -> bool:
        """Whether the architecture parameters do, in the warm-up."""
        return self.epoch < self.settings.warmup_epochs

    def validation_batch(self) -> Batch:
        """The same examples of the architecture's half every time, as they are."""
        chosen = torch.arange(min(self.settings.batch_size, len(self._validation)))
        images, labels = fetch(self._validation, chosen)
        return Batch(images.to(self.device), labels.to(self.device))

    @contextmanager
    def frozen_weights(self) -> Iterator[None]:
        """Within, the weights get no gradients (and cost none)."""
        wanted = [(p, p.requires_grad) for p in self.supernet.parameters()]
        try:
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, before in wanted:
                parameter.requires_grad_(before)

    def weights(self) -> dict[str, list[float]]:
        """The strengths of the options at the moment, by slot."""
        return self.relaxation.weights(self.parameters)

    def architecture(self) -> Architecture:
        """The architecture of the moment."""
        return discretize(self.space, self.weights())

    def state_dict(self) -> dict[str, Any]:
        """All that the following epochs depend on."""
        return {
            "epoch": self.epoch,
            "examples": self.examples,
            "supernet": {k: v.detach().clone() for k, v in self.supernet.state_dict().items()},
            "parameters": {k: v.detach().clone() for k, v in self.parameters.items()},
            "weight_optimiser": plain(self.weight_optimiser.state_dict()),
            "arch_optimiser": plain(self.arch_optimiser.state_dict()),
            "curve": [dict(point) for point in self.curve],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = int(state["epoch"])
        self.examples = int(state["examples"])
        self._position = float(self.epoch)
        self.supernet.load_state_dict(state["supernet"])
        with torch.no_grad():
            for label, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][label])
        self.weight_optimiser.load_state_dict(restored(state["weight_optimiser"]))
        self.arch_optimiser.load_state_dict(restored(state["arch_optimiser"]))
        self.curve = [dict(point) for point in state["curve"]]


def halves(data: Data, share: float) -> tuple[Subset[Item], Subset[Item]]:
    """The training set in two parts, the first a share of it; where that is 1, all of it twice."""
    if share != 1:
        return split(data, 1 - share)
    length = len(data.train)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    whole = Subset(data.train, torch.arange(length))  # type: ignore[arg-type]  # a tensor indexes at once
    return whole, whole


def first_order(search: GradientSearch, training: Batch, validation: Batch) -> None:
    """The gradient of the validation loss at the present weights."""
    with search.frozen_weights():
        gates = search.relaxation.gates(search.parameters, search.progress)
        loss = search.architecture_loss(search.cross_entropy(validation, gates), gates)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def alternating(search: GradientSearch, training: Batch, validation: Batch) -> float:
    """A step of the architecture parameters, then one of the weights, each on its own half."""
    if not search.resting:
        search.arch_optimiser.zero_grad()
        search.step(search, training, validation)
        search.step_architecture()
    search.weight_optimiser.zero_grad()
    with torch.no_grad():
        gates = search.relaxation.gates(search.parameters, search.progress)
    loss = search.cross_entropy(training, gates)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    search.step_weights()
    return float(loss.detach())


def jointly(search: GradientSearch, training: Batch, validation: Batch) -> float:
    """One pass on one batch for both, and a step of both."""
    search.arch_optimiser.zero_grad()
    search.weight_optimiser.zero_grad()
    gates = search.relaxation.gates(search.parameters, search.progress)
    loss = search.cross_entropy(training, gates)
    search.architecture_loss(loss, gates).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    search.step_weights()
    if not search.resting:
        search.step_architecture()
    return float(loss.detach())

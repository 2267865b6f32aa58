"""Training of shared weights by sampled paths: in every step some architectures, one update.

Which architectures is the caller's affair (``Paths``): one drawn uniformly (Guo et al., "Single
Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020), as many as make every
option of every choice be trained once (Chu et al., "FairNAS", ICCV 2021), or a controller's. The
gradients of a step's architectures are added up.

Weights that no architecture of a step uses are left as they are, and so is their momentum: also
the rest of a tensor of which an architecture takes the leading channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from nas.architecture import Architecture, Scalar
from nas.data import Data, Item, check_fits
from nas.errors import ConfigError, InvalidArchitecture, UnsupportedRequest, nearest
from nas.space import SearchSpace, from_picks, sample
from nas.supernet.supernet import Supernet
from nas.training import (
    Device,
    Recipe,
    augmented,
    choose_device,
    fetch,
    reproducible,
    training_loss,
)
from nas.trial import NotFinite

Schedule = Literal["linear", "cosine", "restarts"]


@dataclass(frozen=True)
class PathSettings:
    """How shared weights are trained; the defaults are those of SPOS.

    Its learning rate, 0.5 for 1,024 images a step, is scaled to this batch size; its 150,000
    steps on ImageNet are 120 epochs. Its gradients were not clipped, and it decayed no norms.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        learning_rate: of SGD, at the start.
        learning_rate_min: where the schedule ends.
        schedule: down a line or a cosine over all epochs, or down a cosine that restarts after
            ``period`` epochs, and then after twice as many each time.
        momentum, nesterov, weight_decay: of SGD.
        label_smoothing: share of the target spread over all classes.
        gradient_clip: the largest norm a step's gradient may have; ``None`` for no bound.
        augment: whether training images are cropped and mirrored as the data set says.
        period: in epochs, for ``restarts``.
    """

    epochs: int = 120
    batch_size: int = 64
    learning_rate: float = 0.5 * 64 / 1024
    learning_rate_min: float = 0.0
    schedule: Schedule = "linear"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    gradient_clip: float | None = 5.0
    augment: bool = True
    period: int = 10

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[bool, str]] = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "learning_rate_min": (
                0 <= self.learning_rate_min <= self.learning_rate,
                "from 0 to learning_rate",
            ),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "off where momentum is 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "gradient_clip": (self.gradient_clip is None or self.gradient_clip > 0, "above 0"),
            "period": (self.period >= 1, "at least 1"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            holds, expected = ranges.get(field.name, (True, ""))
            if not holds or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"settings: {field.name} must be {expected}, got {value!r}")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(
                f"settings: there is no schedule {self.schedule!r}: "
                f"{nearest(self.schedule, get_args(Schedule))}"
            )

    def rate(self, position: float) -> float:
        """The learning rate after so many epochs, which need not be whole."""
        done = position / self.epochs
        if self.schedule == "restarts":
            period = float(self.period)
            while position >= period:
                position, period = position - period, 2 * period
            done = position / period
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate_min + (self.learning_rate - self.learning_rate_min) * left


# ------------------------------------------------------------------------------------ paths

Paths = Callable[[np.random.Generator], Sequence[Architecture]]
"""Draws the architectures of one step."""


def uniform_paths(space: SearchSpace) -> Paths:
    """One random architecture a step, as ``nas.space.sample`` draws it."""
    return lambda rng: [sample(space, rng)]


def fair_paths(space: SearchSpace) -> Paths:
    """So many architectures a step that every option of every choice is in exactly one of them.

    Each choice's options are dealt in a random order of its own.

    Raises:
        UnsupportedRequest: choices differ in how many options they have, or depend on others.
    """
    first, *others = space.choices
    for choice in others:
        if len(choice.options) != len(first.options):
            raise UnsupportedRequest(
                f"{space.name!r} cannot be sampled with strict fairness: {first.label!r} has "
                f"{len(first.options)} options and {choice.label!r} has {len(choice.options)}, so "
                "they cannot all be trained equally often in one step; sample uniformly"
            )

    def draw(rng: np.random.Generator) -> list[Architecture]:
        orders = {
            choice.label: [choice.options[i] for i in rng.permutation(len(choice.options))]
            for choice in space.choices
        }
        return [deal(orders, turn) for turn in range(len(first.options))]

    def deal(orders: Mapping[str, Sequence[Scalar]], turn: int) -> Architecture:
        try:
            return from_picks(space, {label: order[turn] for label, order in orders.items()})
        except InvalidArchitecture as error:
            raise UnsupportedRequest(
                f"{space.name!r} cannot be sampled with strict fairness: its choices depend on "
                f"each other ({error}); sample uniformly"
            ) from error

    rng = np.random.default_rng(0)
    for _ in range(20):  # what depends on others shows itself before any training
        draw(rng)
    return draw


def path_output(supernet: Supernet, arch: Architecture, x: torch.Tensor) -> Any:
    """What a path gives in the supernet's mode; in training it moves the shared statistics.

    Through the largest network where slots alone are open, which needs no skeleton; else through
    the architecture's own, over views.
    """
    if not _sizes_are_open(supernet):
        return supernet(x, supernet.gates(arch))
    output = supernet.network(arch)(x)
    if supernet.training:
        supernet.keep_statistics(arch)
    return output


def _sizes_are_open(supernet: Supernet) -> bool:
    sizes = (*supernet.numbers.values(), *supernet.depths.values())
    return any(len(options) > 1 for options in sizes)


# --------------------------------------------------------------------------------- training


class PathTraining:
    """A supernet, its optimiser, and epochs of training on sampled paths.

    An epoch's randomness depends on the seed and on its number alone: training that goes on from
    a state equals training that was never interrupted, on a CPU to the bit.

    Args:
        examples: what is trained on, a part of ``data``'s training set.
        data: how its images may be augmented.
        threads: of the CPU; more than one is not reproducible to the bit.

    Attributes:
        epoch: how many are done.
        curve: the mean training loss of each, in nats.

    Raises:
        DataError: the data do not fit the space.
        UnsupportedRequest: the space's weights cannot be shared.
    """

    def __init__(
        self,
        space: SearchSpace,
        examples: Subset[Item],
        data: Data,
        settings: PathSettings,
        seed: int = 0,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        check_fits(data, space)
        self.space = space
        self.examples = examples
        self.data = data
        self.settings = settings
        self.seed = seed
        self.device = choose_device(device)
        self.threads = threads
        self.epoch = 0
        self.curve: list[float] = []
        self._recipe = Recipe(label_smoothing=settings.label_smoothing)
        with reproducible(seed, threads):
            self.supernet = Supernet(space).to(self.device).train()
        self.optimiser = torch.optim.SGD(
            self.supernet.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return self.epoch >= self.settings.epochs

    def advance(self, paths: Paths) -> None:
        """One epoch.

        Raises:
            NotFinite: the loss is not; the message names the epoch.
        """
        settings = self.settings
        rng = np.random.default_rng([self.seed, self.epoch, 7])
        total = 0.0
        self.supernet.train()
        with reproducible(self.seed + 1_000_003 * (self.epoch + 1), self.threads):
            order = torch.randperm(len(self.examples))
            parts = order.tensor_split(math.ceil(len(order) / settings.batch_size))
            for index, part in enumerate(parts):
                for group in self.optimiser.param_groups:
                    group["lr"] = settings.rate(self.epoch + index / len(parts))
                images, labels = fetch(self.examples, part)
                images = images.to(self.device)
                if settings.augment:
                    images = augmented(images, self.data.crop_padding, self.data.flip)
                total += len(part) * self.step(images, labels.to(self.device), paths(rng))
        mean = total / len(order)
        if not math.isfinite(mean):
            raise NotFinite(f"the supernet's training loss is {mean} in epoch {self.epoch + 1}")
        self.epoch += 1
        self.curve.append(mean)

    def step(
        self, images: torch.Tensor, labels: torch.Tensor, archs: Sequence[Architecture]
    ) -> float:
        """One update on the summed gradients of these architectures; gives their mean loss."""
        self.optimiser.zero_grad()
        total = 0.0
        for arch in archs:
            loss = training_loss(path_output(self.supernet, arch, images), labels, self._recipe)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += float(loss.detach())
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.supernet.parameters(), self.settings.gradient_clip)
        with self._unused_kept(archs):
            self.optimiser.step()
        return total / len(archs)

    @contextmanager
    def _unused_kept(self, archs: Sequence[Architecture]) -> Iterator[None]:
        """Puts back, after the update, what the architectures do not use of a tensor they use.

        A tensor of which nothing is used has no gradient, and the optimiser leaves it alone.
        """
        if not _sizes_are_open(self.supernet):
            yield
            return
        masks = used_parts(self.supernet, archs)
        before = {
            parameter: (parameter.detach().clone(), self._momentum(parameter))
            for parameter in masks
        }
        yield
        with torch.no_grad():
            for parameter, mask in masks.items():
                value, momentum = before[parameter]
                parameter.copy_(torch.where(mask, parameter, value))
                moved = self.optimiser.state[parameter].get("momentum_buffer")
                if moved is not None:
                    moved.copy_(torch.where(mask, moved, momentum))

    def _momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        held = self.optimiser.state[parameter].get("momentum_buffer")
        return torch.zeros_like(parameter) if held is None else held.clone()

    def state_dict(self) -> dict[str, Any]:
        """All that the following epochs depend on, besides the arguments."""
        names: dict[torch.Tensor, str] = {p: name for name, p in self.supernet.named_parameters()}
        return {
            "epoch": self.epoch,
            "curve": list(self.curve),
            "supernet": {k: v.detach().clone() for k, v in self.supernet.state_dict().items()},
            "momentum": {
                names[parameter]: entry["momentum_buffer"].detach().clone()
                for parameter, entry in self.optimiser.state.items()
                if entry.get("momentum_buffer") is not None
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = int(state["epoch"])
        self.curve = [float(loss) for loss in state["curve"]]
        self.supernet.load_state_dict(state["supernet"])
        parameters = dict(self.supernet.named_parameters())
        self.optimiser.state.clear()
        for name, momentum in state["momentum"].items():
            parameter = parameters[name]
            self.optimiser.state[parameter]["momentum_buffer"] = momentum.to(parameter, copy=True)


def used_parts(
    supernet: Supernet, archs: Sequence[Architecture]
) -> dict[nn.Parameter, torch.Tensor]:
    """Masks of the parameters of which these architectures together use a part, not all."""
    masks: dict[nn.Parameter, torch.Tensor] = {}
    whole: set[nn.Parameter] = set()
    for arch in archs:
        for module in supernet.network(arch).modules():
            for tensor in module._parameters.values():
                base = None if tensor is None else tensor._base
                if isinstance(tensor, nn.Parameter):
                    whole.add(tensor)
                elif tensor is not None and isinstance(base, nn.Parameter):
                    mask = masks.setdefault(base, torch.zeros_like(base, dtype=torch.bool))
                    mask.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(
                        True
                    )
    return {parameter: mask for parameter, mask in masks.items() if parameter not in whole}

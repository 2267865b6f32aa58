"""Training of shared weights by sampled paths: in every step some architectures, one update.

Which architectures, and what they learn from, is the caller's affair (``nas.supernet.plans``). The
gradients of a step's architectures are added up.

Weights that no architecture of a step uses are left as they are, and so is their momentum: also
the rest of a tensor of which an architecture takes the leading channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from nas.architecture import Architecture
from nas.data import Data, Item, check_fits
from nas.space import SearchSpace
from nas.supernet import parallel
from nas.supernet.importance import sort_channels
from nas.supernet.path_settings import PathSettings as PathSettings
from nas.supernet.path_settings import make_optimiser, zero_residuals
from nas.supernet.plans import Plan, Teaching
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
from nas.training.distillation import soft_target_loss
from nas.trial import NotFinite


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
        plan: which architectures are trained when, and what they learn from.
        threads: of the CPU; more than one is not reproducible to the bit.
        kernel_transforms: see ``nas.supernet.Supernet``.
        group: the processes that train together, all with the same arguments; each trains on its
            rows of every batch, and all have the same weights at the end of every epoch.

    Attributes:
        epoch: how many are done.
        curve: the mean training loss of each, in nats.
        passes: how often an architecture has seen all examples.
        phase: which one of the plan has begun; -1 before the first step.

    Raises:
        DataError: the data do not fit the space.
        UnsupportedRequest: the space's weights cannot be shared.
        ConfigError: a batch has too few rows for so many processes.
    """

    def __init__(
        self,
        space: SearchSpace,
        examples: Subset[Item],
        data: Data,
        settings: PathSettings,
        plan: Plan,
        seed: int = 0,
        device: Device = "auto",
        threads: int = 1,
        kernel_transforms: bool = False,
        group: parallel.Group = parallel.ALONE,
    ) -> None:
        check_fits(data, space)
        parallel.check_shares(len(examples), settings.batch_size, group.size)
        self.space = space
        self.examples = examples
        self.data = data
        self.settings = settings
        self.plan = plan
        self.seed = seed
        self.device = choose_device(device)
        self.threads = threads
        self.group = group
        self.epoch = 0
        self.curve: list[float] = []
        self.passes = 0.0
        self.phase = -1
        self._teacher: nn.Module | None = None
        self._recipe = Recipe(label_smoothing=settings.label_smoothing)
        with reproducible(seed, threads):
            supernet = Supernet(space, kernel_transforms=kernel_transforms)
            if settings.zero_residuals:
                zero_residuals(supernet)
            self.supernet = supernet.to(self.device).train()
        self.optimiser = make_optimiser(self.supernet, settings)

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return self.epoch >= self.settings.epochs

    def advance(self) -> None:
        """One epoch.

        Raises:
            NotFinite: the loss is not; the message names the epoch.
            WorkerError: another process of the group is gone, or has come to other weights.
        """
        settings, plan = self.settings, self.plan
        rng = np.random.default_rng([self.seed, self.epoch, 7])
        starts = plan.starts(settings.epochs)
        total, seen = 0.0, 0
        self.supernet.train()
        with reproducible(self.seed + 1_000_003 * (self.epoch + 1), self.threads):
            order = torch.randperm(len(self.examples))
            parts = order.tensor_split(math.ceil(len(order) / settings.batch_size))
            for index, part in enumerate(parts):
                position = self.epoch + index / len(parts)
                while self.phase + 1 < len(plan.phases) and starts[self.phase + 1] <= position:
                    self._begin()
                phase, start = plan.phases[self.phase], starts[self.phase]
                length = starts[self.phase + 1] - start
                rate = phase.rate * settings.rate((position - start) * (settings.epochs / length))
                for parameters in self.optimiser.param_groups:
                    parameters["lr"] = rate
                rows = parallel.share(self.group, len(part))
                seeds = (self.seed, self.epoch, index)
                with parallel.own_randomness(self.group, (*seeds, 0), self.threads):
                    images, labels = fetch(self.examples, part[rows])  # its transforms may draw
                images, labels = images.to(self.device), labels.to(self.device)
                if settings.augment:
                    of = (len(part), rows)
                    images = augmented(images, self.data.crop_padding, self.data.flip, of)
                archs, mine = phase.paths(rng), len(labels) / len(part)
                with parallel.own_randomness(self.group, (*seeds, 1), self.threads):
                    loss = self.step(images, labels, archs, phase.teaching, mine)
                total += len(part) * loss
                seen += len(archs) * len(part)
        mean = total / len(order)
        if not math.isfinite(mean):
            raise NotFinite(f"the supernet's training loss is {mean} in epoch {self.epoch + 1}")
        self.epoch += 1
        self.passes += seen / len(order)
        self.curve.append(mean)
        self._agree()

    def _agree(self) -> None:
        """Makes the state the same on all ranks: statistics are averaged, and weights already are.

        Raises:
            WorkerError: they are not.
        """
        if self.group.size > 1:
            teacher = () if self._teacher is None else (self._teacher,)
            parallel.average_statistics(self.group, (self.supernet, *teacher))
            what = f"the weights after epoch {self.epoch}"
            parallel.check_same(self.group, self.state_dict(), self.device, what)

    def _begin(self) -> None:
        """Begins the next phase: with an optimiser that is new, and a teacher after the first."""
        self.phase += 1
        phase, teacher = self.plan.phases[self.phase], self.plan.teacher
        if self.phase == 0:
            return
        if self._teacher is None and teacher is not None:
            self._teacher = self._frozen(teacher)
        if phase.sort:
            assert teacher is not None
            sort_channels(self.supernet, teacher, phase.trained, phase.sort)
        self.optimiser.state.clear()

    def _frozen(self, arch: Architecture) -> nn.Module:
        """A copy that teaches; like the authors' in training mode, with each batch's statistics."""
        return self.supernet.extract(arch).requires_grad_(False).train()

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        archs: Sequence[Architecture],
        teaching: Teaching = "labels",
        part: float = 1.0,
    ) -> float:
        """One update on the summed gradients of these architectures; gives their mean loss.

        Args:
            images, labels: of a batch, this rank's rows.
            part: how much of the batch they are.
        """
        self.optimiser.zero_grad()
        if self.settings.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        total = 0.0
        target = None
        if teaching == "teacher":
            assert self._teacher is not None
            with torch.no_grad():
                target = _logits(self._teacher(images))
        for arch in archs:
            output = path_output(self.supernet, arch, images)
            if teaching == "first" and target is not None:
                loss = soft_target_loss(_logits(output), target, 1.0)
            else:
                loss = training_loss(output, labels, self._recipe)
                if teaching == "first":
                    target = _logits(output).detach()
                elif target is not None:
                    loss = loss + soft_target_loss(_logits(output), target, 1.0)
            loss.backward(torch.full_like(loss, part))  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += part * float(loss.detach())
        total = parallel.sum_gradients(self.group, self.supernet.parameters(), total)
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
        masks = self.supernet.used_parts(archs)
        before = {
            parameter: (parameter.detach().clone(), self._moving(parameter)) for parameter in masks
        }
        yield
        with torch.no_grad():
            for parameter, mask in masks.items():
                value, moving = before[parameter]
                zero = parameter.new_zeros(())
                torch.where(mask, parameter, value, out=parameter)
                for key, held in self.optimiser.state[parameter].items():
                    if torch.is_tensor(held) and held.shape == mask.shape:
                        torch.where(mask, held, moving.get(key, zero), out=held)

    def _moving(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        """What the optimiser keeps of every number of a parameter."""
        return {
            key: held.clone()
            for key, held in self.optimiser.state[parameter].items()
            if torch.is_tensor(held) and held.shape == parameter.shape
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the following epochs depend on, besides the arguments."""
        names: dict[torch.Tensor, str] = {p: name for name, p in self.supernet.named_parameters()}
        teacher = {} if self._teacher is None else self._teacher.state_dict()
        return {
            "epoch": self.epoch,
            "curve": list(self.curve),
            "passes": self.passes,
            "phase": self.phase,
            "supernet": {k: v.detach().clone() for k, v in self.supernet.state_dict().items()},
            "optimiser": {
                f"{key}/{names[parameter]}": held.detach().clone()
                for parameter, entry in self.optimiser.state.items()
                for key, held in entry.items()
                if torch.is_tensor(held)
            },
            "teacher": {name: tensor.detach().clone() for name, tensor in teacher.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = int(state["epoch"])
        self.curve = [float(loss) for loss in state["curve"]]
        self.passes = float(state["passes"])
        self.phase = int(state["phase"])
        self.supernet.load_state_dict(state["supernet"])
        self._teacher = None
        if state["teacher"] and self.plan.teacher is not None:
            self._teacher = self._frozen(self.plan.teacher)
            self._teacher.load_state_dict(state["teacher"])
        parameters = dict(self.supernet.named_parameters())
        self.optimiser.state.clear()
        for name, held in state["optimiser"].items():
            key, _, of = name.partition("/")
            self.optimiser.state[parameters[of]][key] = held.clone().to(self.device)


def _logits(output: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output

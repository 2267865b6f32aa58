"""Learning from a teacher: its soft targets, and how its features lie to each other.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015: the mean of the
cross-entropy with the labels and of that with the teacher's softened outputs. Park, Kim, Lu &
Cho, "Relational Knowledge Distillation", CVPR 2019: distances and angles among the examples of a
batch. Features are what comes into the last linear layer, scaled to length 1 as in the authors'
code for classification.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F

from nas.errors import ConfigError


@dataclass(frozen=True)
class Distillation:
    """What is learnt from a teacher, and how much it counts.

    Attributes:
        temperature: by which logits are divided before the softmax.
        soft: share of the loss that is the cross-entropy with the teacher's outputs (times the
            squared temperature, so that it weighs alike at any), the labels' being the rest.
        distance: weight of the loss of distances, which is added; the paper's is 25.
        angle: weight of the loss of angles, which is added; the paper's is 50. It takes memory of
            the batch size to the third.
    """

    temperature: float = 4.0
    soft: float = 0.5
    distance: float = 0.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature > 0, "above 0"),
            "soft": (0 <= self.soft <= 1, "from 0 to 1"),
            "distance": (self.distance >= 0, "0 or more"),
            "angle": (self.angle >= 0, "0 or more"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            holds, expected = ranges[field.name]
            if not holds or not math.isfinite(value):
                raise ConfigError(f"distillation: {field.name} must be {expected}, got {value!r}")

    @property
    def relations(self) -> bool:
        """Whether features play a part."""
        return self.distance > 0 or self.angle > 0


DEFAULT_DISTILLATION = Distillation()


def soft_target_loss(
    logits: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The divergence of softened outputs from the teacher's, times the squared temperature.

    Its gradient is that of the cross-entropy with the teacher's softened outputs.

    Args:
        logits, teacher: (N, classes).
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def distance_loss(features: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How the distances of all pairs, each as a share of their mean, differ (Huber's loss).

    Args:
        features, teacher: (N, …) of the same N.
    """
    return F.smooth_l1_loss(_distances(features), _distances(teacher))


def _distances(features: torch.Tensor) -> torch.Tensor:
    points = F.normalize(features.float().flatten(1), dim=1)
    far = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    apart = far > 0
    return far / far[apart].mean() if bool(apart.any()) else far


def angle_loss(features: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How the cosines of the angles of all triplets differ (Huber's loss).

    Args:
        features, teacher: (N, …) of the same N.
    """
    return F.smooth_l1_loss(_cosines(features), _cosines(teacher))


def _cosines(features: torch.Tensor) -> torch.Tensor:
    points = F.normalize(features.float().flatten(1), dim=1)
    directions = F.normalize(points[None] - points[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


class Lesson:
    """A teacher and its student, in training; made by ``lesson``."""

    def __init__(self, teacher: nn.Module, settings: Distillation, student: nn.Module) -> None:
        self.teacher = teacher
        self.settings = settings
        taps = (Tap(student), Tap(teacher)) if settings.relations else ()
        self.taps = taps

    def loss(
        self,
        hard: torch.Tensor,
        output: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        images: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            hard: the loss by the labels.
            output: the student's (its auxiliary logits learn from the labels alone).
            images: (N, …), as the student saw them.
        """
        settings = self.settings
        logits = output[0] if isinstance(output, tuple) else output
        with torch.no_grad():
            target = self.teacher(images)
        loss = (1 - settings.soft) * hard
        if settings.soft:
            loss = loss + settings.soft * soft_target_loss(logits, target, settings.temperature)
        if self.taps:
            mine, its = self.taps[0].features(logits), self.taps[1].features(target).detach()
            if settings.distance:
                loss = loss + settings.distance * distance_loss(mine, its)
            if settings.angle:
                loss = loss + settings.angle * angle_loss(mine, its)
        return loss


class Tap:
    """Hears what goes into the linear layers of a network, and what comes out."""

    def __init__(self, network: nn.Module) -> None:
        self.name = type(network).__name__
        self.heard: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.handles = [
            module.register_forward_hook(self._hear)
            for module in network.modules()
            if isinstance(module, nn.Linear)
        ]

    def _hear(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if not torch.is_inference_mode_enabled():  # a validation in between is not of a lesson
            self.heard.append((inputs[0], output))

    def features(self, logits: torch.Tensor) -> torch.Tensor:
        """What went into the layer that gave these logits."""
        found = [features for features, output in self.heard if output is logits]
        self.heard.clear()
        if not found:
            raise ConfigError(
                f"distillation: {self.name} does not end in a linear layer, so it has no features "
                "to compare: set distance and angle to 0"
            )
        return found[0]

    def remove(self) -> None:
        """Takes the ears off."""
        self.heard.clear()
        for handle in self.handles:
            handle.remove()


@contextlib.contextmanager
def lesson(
    teacher: nn.Module | None,
    settings: Distillation,
    student: nn.Module,
    images: torch.Tensor,
) -> Iterator[Lesson | None]:
    """Has a student taught for a while; the teacher stays as it is and in eval mode.

    Args:
        teacher: gives logits (N, classes) for what the student sees; ``None`` for no teacher.
        images: (N, …), with which both are tried first.

    Raises:
        ConfigError: the teacher does not take the images or tells another number of classes
            apart, or features are compared and there are none.
    """
    if teacher is None:
        yield None
        return
    modes = [
        (module, module.training) for network in (teacher, student) for module in network.modules()
    ]
    both = None
    home = next((tensor.device for tensor in teacher.state_dict().values()), images.device)
    try:
        teacher.to(images.device).eval()
        student.eval()
        with torch.no_grad():
            check_teacher(teacher, images, student(images).shape[1])
            both = Lesson(teacher, settings, student)
            both.loss(images.new_zeros(()), student(images), images)
        for module, training in modes:
            module.training = training
        teacher.eval()
        yield both
    finally:
        for tap in both.taps if both is not None else ():
            tap.remove()
        teacher.to(home)
        for module, training in modes:
            module.training = training


def check_teacher(teacher: nn.Module, images: torch.Tensor, classes: int) -> None:
    """Raises ``ConfigError`` unless a teacher (in eval mode) tells so many classes apart."""
    try:
        with torch.no_grad():
            found = teacher(images)
    except (RuntimeError, ValueError) as error:
        example = "x".join(map(str, images.shape[1:]))
        raise ConfigError(
            f"the teacher {type(teacher).__name__} takes no examples of shape {example}: {error}"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if len(shape) != 2:
        raise ConfigError(
            f"the teacher {type(teacher).__name__} gave {shape or type(found).__name__}, expected "
            f"logits of shape (N, {classes})"
        )
    if shape[1] != classes:
        raise ConfigError(
            f"the teacher {type(teacher).__name__} tells {shape[1]} classes apart, but the data "
            f"have {classes}"
        )

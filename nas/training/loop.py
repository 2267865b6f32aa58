"""The training loop: its epochs, step by step, from the start or from where it stood.

Stochastic gradient descent with momentum, a linear warm-up and a cosine to zero, step by step.
On a CPU the same seed gives the same weights to the bit, and torch's own random state is as it
was afterwards.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from nas.data import Item
from nas.errors import ConfigError, DataError
from nas.training.augmentation import augmented, cutout, mixup, resized
from nas.training.averaging import Average, put
from nas.training.batches import Device, choose_device, fetch, reproducible
from nas.training.distillation import DEFAULT_DISTILLATION, Distillation, Lesson, lesson
from nas.training.drop_path import dropping
from nas.training.precision import Gradients
from nas.training.recipe import Recipe
from nas.training_state import TrainingState, restore, state_of
from nas.trial import NotFinite


def train(
    network: nn.Module,
    dataset: Dataset[Item],
    recipe: Recipe,
    epochs: int,
    seed: int,
    *,
    crop_padding: int = 0,
    flip: bool = False,
    resolution: int | None = None,
    device: Device = "cpu",
    threads: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation = DEFAULT_DISTILLATION,
) -> list[float]:
    """Trains a network in place and gives the mean training loss of each epoch, in nats.

    The network ends with the weights of the last step or, where the recipe has an average, with
    that.

    Args:
        seed: of the order of the examples and of the augmentation.
        crop_padding, flip: the augmentation, where the recipe wants one; borders are repeated.
        resolution: images are resized to this height and width first, in pixels.
        threads: of the CPU; more than one is not reproducible to the bit.
        on_epoch: called after each epoch with its number, from 1, and its loss; the network is
            then as it would be if training ended there.
        teacher: gives logits (N, classes) for the images that the network sees.
        distillation: what is learnt from the teacher.

    Raises:
        NotFinite: the loss or a gradient is NaN or infinite; the message names the epoch, the
            step and the parameter.
        DataError: an item cannot be loaded, or there are fewer than two.
        ConfigError: the teacher tells another number of classes apart, or does not take the
            images.
        UnsupportedRequest: paths are to be dropped of a network that has none.
    """
    return train_until(
        network,
        dataset,
        recipe,
        epochs,
        seed,
        crop_padding=crop_padding,
        flip=flip,
        resolution=resolution,
        device=device,
        threads=threads,
        on_epoch=on_epoch,
        teacher=teacher,
        distillation=distillation,
    ).curve


def train_until(
    network: nn.Module,
    dataset: Dataset[Item],
    recipe: Recipe,
    epochs: int,
    seed: int,
    *,
    schedule_epochs: int | None = None,
    start: TrainingState | None = None,
    crop_padding: int = 0,
    flip: bool = False,
    resolution: int | None = None,
    device: Device = "cpu",
    threads: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation = DEFAULT_DISTILLATION,
    hopeless: Callable[[int], bool] | None = None,
) -> TrainingState:
    """``train`` for the first epochs of a longer schedule, from its start or from where it stood.

    On a CPU, training to epoch 1 and from there to epoch 3 gives to the bit what training to
    epoch 3 at once gives, given the same ``schedule_epochs`` and everything else.

    Args:
        epochs: where it ends, counted from the very start.
        schedule_epochs: how many the learning rate's schedule has; by default it ends with
            ``epochs``.
        start: where it was left; ``seed`` plays no part any more then.
        hopeless: asked after each epoch but the last, by its number from 1, whether to end there.

    Raises:
        ConfigError: the epochs are out of the schedule, or not behind those of ``start``.
    """
    whole = epochs if schedule_epochs is None else schedule_epochs
    done = 0 if start is None else start.epochs
    if epochs < 1:
        raise ConfigError(f"epochs must be at least 1, got {epochs}")
    if not done < epochs <= whole:
        raise ConfigError(
            f"epochs must be above the {done} trained and at most the {whole} of the schedule, "
            f"got {epochs}"
        )
    length = len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    if length < 2:
        raise DataError(f"there must be two examples at least to train on, got {length}")
    place = choose_device(device)
    inner = torch.channels_last if recipe.channels_last else torch.preserve_format
    network.to(place, memory_format=inner).train()  # type: ignore[call-overload]  # both at once
    optimizer = make_optimizer(network, recipe)
    batches = math.ceil(length / recipe.batch_size)
    curve: list[float] = []
    with contextlib.ExitStack() as stack:
        taught = None
        if teacher is not None:
            with reproducible(seed, threads):
                first = resized(fetch(dataset, torch.arange(2))[0].to(place), resolution)
                taught = stack.enter_context(lesson(teacher, distillation, network, first))
        drop_paths = stack.enter_context(dropping(network, recipe.drop_path))
        stack.enter_context(reproducible(seed, threads))
        gradients = Gradients(network, optimizer, recipe, place)
        if start is not None:
            curve += start.curve
            restore(start, network, optimizer, place)
            gradients.load(start.scale)
        average = _average(network, recipe, start)
        for epoch in range(done, epochs):
            total = torch.zeros((), device=place)
            drop_paths(epoch / whole)
            # Parts of equal size rather than a short last one: a batch of one has no statistics.
            for index, chosen in enumerate(torch.randperm(length).tensor_split(batches)):
                images, labels = fetch(dataset, chosen)
                images = resized(images.to(place), resolution)
                if recipe.augment:
                    images = augmented(images, crop_padding, flip)
                images = cutout(images, recipe.cutout)
                step = epoch * batches + index
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step, whole * batches)
                with gradients.forward():
                    loss = batch_loss(network, images, labels.to(place), recipe, taught)
                gradients.step(loss, f"epoch {epoch + 1}, step {index + 1}")
                if average is not None:
                    average.update(network, step)
                total += loss.detach() * len(chosen)
            curve.append(float(total) / length)
            if not math.isfinite(curve[-1]):
                raise NotFinite(f"the training loss is {curve[-1]} in epoch {epoch + 1}")
            with contextlib.nullcontext() if average is None else average.applied(network):
                if on_epoch is not None:
                    on_epoch(epoch + 1, curve[-1])
                stopped = epoch + 1 < epochs and hopeless is not None and hopeless(epoch + 1)
            if stopped:
                break
        averaged = None if average is None else average.state
        state = state_of(network, optimizer, place, curve, averaged, gradients.state())
    if average is not None:
        put(network.state_dict(), average.state)
    if recipe.channels_last:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as above
    return state


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """The recipe's optimiser of a network's parameters."""
    groups: list[dict[str, object]] = [{"params": list(network.parameters())}]
    if not recipe.decay_norms:
        norms = {
            id(parameter)
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
            for parameter in module.parameters()
        }
        every = list(network.parameters())
        groups = [
            {"params": [p for p in every if id(p) not in norms]},
            {"params": [p for p in every if id(p) in norms], "weight_decay": 0.0},
        ]
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )


def _average(network: nn.Module, recipe: Recipe, start: TrainingState | None) -> Average | None:
    if recipe.average == 0:
        return None
    average = Average(network, recipe.average)
    if start is not None:
        if not start.average:
            raise ConfigError("recipe: average is set, but the training was begun without one")
        average.load(start.average)
    return average


def batch_loss(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    taught: Lesson | None = None,
) -> torch.Tensor:
    """The loss of a batch, mixed and taught as is asked for, in nats.

    Args:
        images: (N, …), cropped and mirrored already.
        labels: (N,).
    """
    if recipe.channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    if recipe.mixup:
        images, order, share = mixup(images, recipe.mixup)
        output = network(images)
        mixed_in = training_loss(output, labels[order.to(labels.device)], recipe)
        loss = share * training_loss(output, labels, recipe) + (1 - share) * mixed_in
    else:
        output = network(images)
        loss = training_loss(output, labels, recipe)
    return loss if taught is None else taught.loss(loss, output, images)


def training_loss(
    output: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    labels: torch.Tensor,
    recipe: Recipe,
) -> torch.Tensor:
    """The mean cross-entropy of a batch, in nats.

    Args:
        output: (N, classes) logits, or a pair of those and a second classifier's, whose
            cross-entropy is added with the recipe's weight.
        labels: (N,).
    """
    if isinstance(output, tuple):
        logits, auxiliary = output
        loss = training_loss(logits, labels, recipe)
        return loss + recipe.auxiliary_weight * training_loss(auxiliary, labels, recipe)
    return F.cross_entropy(output, labels, label_smoothing=recipe.label_smoothing)

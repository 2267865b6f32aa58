"""Whole trainings: an architecture's new network, all the data, its accuracy afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from nas.architecture import Architecture
from nas.data import Data, Item, check_fits
from nas.space import SearchSpace, network
from nas.training.augmentation import resized
from nas.training.batches import Device, choose_device, fetch, reproducible
from nas.training.distillation import DEFAULT_DISTILLATION, Distillation
from nas.training.loop import train
from nas.training.recipe import DEFAULT_RECIPE, Recipe


@dataclass(frozen=True)
class Retrained:
    """A fully trained network.

    Attributes:
        weights: its state, on the CPU.
        test_accuracy: fraction of the test set; ``None`` where there is no test set.
        train_loss: of the last epoch, in nats.
        curve: the training loss of each epoch.
    """

    weights: dict[str, torch.Tensor]
    test_accuracy: float | None
    train_loss: float
    curve: list[float]


def evaluate(
    network: nn.Module,
    dataset: Dataset[Item],
    *,
    resolution: int | None = None,
    device: Device = "cpu",
    threads: int = 1,
) -> tuple[float, float]:
    """The accuracy (fraction) and the mean cross-entropy (nats) of a network in eval mode."""
    length = len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass
    place = choose_device(device)
    modes = [(module, module.training) for module in network.modules()]
    network.to(place).eval()
    correct, loss = 0, 0.0
    try:
        with reproducible(0, threads), torch.inference_mode():
            for chosen in torch.arange(length).tensor_split(math.ceil(length / 256)):
                images, labels = fetch(dataset, chosen)
                labels = labels.to(place)
                logits = network(resized(images.to(place), resolution))
                correct += int((logits.argmax(dim=1) == labels).sum())
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    finally:
        for module, training in modes:
            module.training = training
    return correct / length, loss / length


def retrain(
    space: SearchSpace,
    arch: Architecture,
    data: Data,
    *,
    epochs: int,
    recipe: Recipe = DEFAULT_RECIPE,
    seed: int = 0,
    device: Device = "auto",
    threads: int = 1,
    on_epoch: Callable[[int, float], None] | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation = DEFAULT_DISTILLATION,
) -> Retrained:
    """Trains an architecture from new weights on the whole training set, and tests it.

    Args:
        teacher: gives logits for the images that the network sees; ``load_teacher`` makes one of
            an exported folder.
        distillation: what is learnt from it.

    Raises:
        DataError: the data do not fit the space.
        NotFinite: the loss or a gradient is NaN or infinite.
        ConfigError: the teacher does not fit the data.
    """
    check_fits(data, space)
    built = initialised(space, arch, seed)
    curve = train(
        built,
        data.train,
        recipe,
        epochs,
        seed,
        crop_padding=data.crop_padding,
        flip=data.flip,
        device=device,
        threads=threads,
        on_epoch=on_epoch,
        teacher=teacher,
        distillation=distillation,
    )
    accuracy = None
    if data.test is not None:
        accuracy, _ = evaluate(built, data.test, device=device, threads=threads)
    return Retrained(weights(built), accuracy, curve[-1], curve)


def initialised(space: SearchSpace, arch: Architecture, seed: int) -> nn.Module:
    """An architecture's network with the initial weights of a seed."""
    with reproducible(seed, 1):
        return network(space, arch)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a network's state on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }

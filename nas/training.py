"""The training loop: a recipe, its epochs, and a network's accuracy afterwards.

Stochastic gradient descent with Nesterov momentum, a linear warm-up and a cosine to zero, step
by step. Nothing here knows of search. On a CPU the same seed gives the same weights to the bit,
and torch's own random state is as it was afterwards.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, TensorDataset

from nas.architecture import Architecture
from nas.data import Data, Images, Item, check_fits, load_item
from nas.errors import ConfigError, DataError, nearest
from nas.space import SearchSpace, network
from nas.training_state import TrainingState, restore, state_of
from nas.trial import NotFinite

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        learning_rate: at its highest, after the warm-up.
        momentum: Nesterov's.
        weight_decay: of every weight, norms included.
        batch_size: examples a step; the batches of an epoch are of equal size, give or take one.
        warmup: share of the steps in which the learning rate rises from zero.
        label_smoothing: share of the target spread over all classes.
        gradient_clip: the largest norm a step's gradient may have; ``None`` for no bound.
        augment: whether training images are cropped and mirrored as the data set says.
        auxiliary_weight: of the loss of a second classifier, for a network that has one: in
            training it returns a pair (logits, auxiliary logits).
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    warmup: float = 0.1
    label_smoothing: float = 0.0
    gradient_clip: float | None = 5.0
    augment: bool = True
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[bool, str]] = {
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "warmup": (0 <= self.warmup < 1, "from 0 to below 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "gradient_clip": (self.gradient_clip is None or self.gradient_clip > 0, "above 0"),
            "auxiliary_weight": (self.auxiliary_weight >= 0, "0 or more"),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            holds, expected = ranges.get(field.name, (True, ""))
            if not holds or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"recipe: {field.name} must be {expected}, got {value!r}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of so many."""
        warm = self.warmup * steps
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


DEFAULT_RECIPE = Recipe()


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
) -> list[float]:
    """Trains a network in place and gives the mean training loss of each epoch, in nats.

    Args:
        seed: of the order of the examples and of the augmentation.
        crop_padding, flip: the augmentation, where the recipe wants one; borders are repeated.
        resolution: images are resized to this height and width first, in pixels.
        threads: of the CPU; more than one is not reproducible to the bit.
        on_epoch: called after each epoch with its number, from 1, and its loss.

    Raises:
        NotFinite: the loss is NaN or infinite; the message names the epoch.
        DataError: an item cannot be loaded, or there are fewer than two.
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
) -> TrainingState:
    """``train`` for the first epochs of a longer schedule, from its start or from where it stood.

    On a CPU, training to epoch 1 and from there to epoch 3 gives to the bit what training to
    epoch 3 at once gives, given the same ``schedule_epochs`` and everything else.

    Args:
        epochs: where it ends, counted from the very start.
        schedule_epochs: how many the learning rate's schedule has; by default it ends with
            ``epochs``.
        start: where it was left; ``seed`` plays no part any more then.

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
    network.to(place).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    batches = math.ceil(length / recipe.batch_size)
    curve: list[float] = []
    with reproducible(seed, threads):
        if start is not None:
            curve += start.curve
            restore(start, network, optimizer, place)
        for epoch in range(done, epochs):
            total = torch.zeros((), device=place)
            # Parts of equal size rather than a short last one: a batch of one has no statistics.
            for index, chosen in enumerate(torch.randperm(length).tensor_split(batches)):
                images, labels = fetch(dataset, chosen)
                images = _resized(images.to(place), resolution)
                if recipe.augment:
                    images = augmented(images, crop_padding, flip)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(epoch * batches + index, whole * batches)
                optimizer.zero_grad()
                loss = training_loss(network(images), labels.to(place), recipe)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                if recipe.gradient_clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
                optimizer.step()
                total += loss.detach() * len(chosen)
            curve.append(float(total) / length)
            if not math.isfinite(curve[-1]):
                raise NotFinite(f"the training loss is {curve[-1]} in epoch {epoch + 1}")
            if on_epoch is not None:
                on_epoch(epoch + 1, curve[-1])
        return state_of(network, optimizer, place, curve)


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
                logits = network(_resized(images.to(place), resolution))
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
) -> Retrained:
    """Trains an architecture from new weights on the whole training set, and tests it.

    Raises:
        DataError: the data do not fit the space.
        NotFinite: the loss is NaN or infinite.
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


def choose_device(device: Device) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one."""
    if device not in get_args(Device):
        raise ConfigError(f"there is no device {device!r}: {nearest(device, get_args(Device))}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigError("device 'cuda': torch finds no GPU here; use 'cpu' or 'auto'")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and available) else "cpu")


def fetch(dataset: Dataset[Any], indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Items of a data set as one batch; at once where it is in memory, else one by one."""
    if type(dataset) is Subset:
        return fetch(dataset.dataset, torch.as_tensor(dataset.indices)[indices])
    if type(dataset) is Images:
        return dataset.batch(indices)
    if type(dataset) is TensorDataset:
        images, labels = dataset.tensors
        return images[indices].float(), labels[indices].long()
    items = [load_item(dataset, index, "data") for index in indices.tolist()]
    return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])


@contextlib.contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Torch's generators seeded, so many threads; all as it was afterwards."""
    before = torch.get_num_threads()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    gpus = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices=gpus):
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(before)


def _resized(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    if resolution is None or images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(
        images, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False
    )


def augmented(images: torch.Tensor, crop_padding: int, flip: bool) -> torch.Tensor:
    """Each image shifted by up to the padding in both directions, and mirrored half the time.

    Args:
        images: (N, C, H, W); examples of another shape are left as they are.
        crop_padding: in pixels; the borders are repeated.
    """
    count, _, height, width = images.shape if images.ndim == 4 else (0, 0, 0, 0)
    if flip and count:
        mirrored = (torch.rand(count) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if crop_padding and count:
        padded = F.pad(images, [crop_padding] * 4, mode="replicate")
        top, left = torch.randint(2 * crop_padding + 1, (2, count, 1)).to(images.device)
        rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
        example = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        images = padded[example, channel, rows, columns]
    return images

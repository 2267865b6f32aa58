"""Training from scratch at the fidelity asked for, and the accuracy on held-out data.

The same share of the training set, always the same examples, is held out for validation; the
test set is not touched. Lower fidelities train for fewer epochs, on the first examples of one
fixed order, or on smaller images.
"""

from __future__ import annotations

from typing import Any

from safetensors.torch import save
from torch.utils.data import Subset

from nas.budget import Cost
from nas.data import Data, check_fits, split
from nas.delivery import WEIGHTS
from nas.errors import ConfigError
from nas.objective import Metric
from nas.space import SearchSpace
from nas.training import (
    DEFAULT_RECIPE,
    Device,
    Recipe,
    choose_device,
    evaluate,
    initialised,
    train,
    weights,
)
from nas.trial import Fidelity, Measured, Proposal


class TrainingEvaluator:
    """Trains each architecture briefly from scratch and validates it on held-out examples.

    Metrics: ``accuracy`` (fraction, maximised) and ``loss`` (cross-entropy in nats, minimised),
    both on the validation part. The trial's notes hold the training loss of every epoch
    (``curve``) and, where it is known, how raw pixels were normalised (``preprocessing``).

    Args:
        epochs, data_fraction, resolution: the fidelity where a proposal leaves it open; the
            resolution is the height and width images are resized to, in pixels.
        validation_fraction: share of the training set that is held out.
        keep_weights: whether a trial keeps its trained weights, as ``model.safetensors``.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU, a trial; more than one is not reproducible to the bit.

    Raises:
        DataError: the data do not fit the space, or are too few.
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
        epochs: int = 3,
        data_fraction: float = 1.0,
        resolution: int | None = None,
        validation_fraction: float = 0.2,
        recipe: Recipe = DEFAULT_RECIPE,
        device: Device = "auto",
        threads: int = 1,
        keep_weights: bool = True,
    ) -> None:
        check_fits(data, space)
        Fidelity(epochs, data_fraction, resolution)  # checks the defaults as a proposal's own
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        choose_device(device)
        split(data, validation_fraction)
        self.space = space
        self.data = data
        self.epochs = epochs
        self.data_fraction = data_fraction
        self.resolution = resolution
        self.validation_fraction = validation_fraction
        self.recipe = recipe
        self.device = device
        self.threads = threads
        self.keep_weights = keep_weights
        self._check_resolution(resolution)

    def evaluate(self, proposal: Proposal) -> Measured:
        """Trains and validates; raises ``NotFinite`` where the training loss is not finite."""
        epochs, data_fraction, resolution = self._filled(proposal.fidelity)
        self._check_resolution(resolution)
        part, held_out = split(self.data, self.validation_fraction)
        used = max(2, round(data_fraction * len(part)))
        part = Subset(part.dataset, part.indices[:used])
        built = initialised(self.space, proposal.arch, proposal.seed)
        curve = train(
            built,
            part,
            self.recipe,
            epochs,
            proposal.seed,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
            resolution=resolution,
            device=self.device,
            threads=self.threads,
        )
        accuracy, loss = evaluate(
            built, held_out, resolution=resolution, device=self.device, threads=self.threads
        )
        notes: dict[str, Any] = {"curve": curve}
        if self.data.preprocessing:
            notes["preprocessing"] = dict(self.data.preprocessing)
        return Measured(
            {"accuracy": accuracy, "loss": loss},
            Cost(epochs=epochs * data_fraction),
            notes,
            {WEIGHTS: save(weights(built))} if self.keep_weights else {},
        )

    def planned_epochs(self, fidelity: Fidelity) -> float:
        epochs, data_fraction, _ = self._filled(fidelity)
        return epochs * data_fraction

    def _filled(self, asked: Fidelity) -> tuple[int, float, int | None]:
        return (
            self.epochs if asked.epochs is None else asked.epochs,
            self.data_fraction if asked.data_fraction is None else asked.data_fraction,
            self.resolution if asked.resolution is None else asked.resolution,
        )

    def _check_resolution(self, resolution: int | None) -> None:
        if resolution is not None and len(self.data.input) != 3:
            raise ConfigError(
                f"a resolution is for images, but data set {self.data.name!r} has examples of "
                f"shape {self.data.input}"
            )

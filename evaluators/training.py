"""Training from scratch at the fidelity asked for, and the accuracy on held-out data.

The same share of the training set, always the same examples, is held out for validation; the
test set is not touched. Lower fidelities train for fewer epochs, on the first examples of one
fixed order, or on smaller images.
"""

from __future__ import annotations

from dataclasses import asdict

from torch.utils.data import Subset

from nas.budget import Cost
from nas.data import Data, check_fits, split
from nas.errors import ConfigError, DataError
from nas.objective import Metric
from nas.space import SearchSpace
from nas.training import Device, Recipe, choose_device, evaluate, initialised, train, weights
from nas.trial import Fidelity, Measured, Proposal

WEIGHTS = "model.safetensors"


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
        recipe: Recipe = Recipe(),  # noqa: B008  # frozen
        device: Device = "auto",
        threads: int = 1,
        keep_weights: bool = True,
    ) -> None:
        check_fits(data, space)
        # Checks the defaults as it would a proposal's own.
        self._default = Fidelity(epochs, data_fraction, resolution)
        if resolution is not None and len(data.input) != 3:
            raise ConfigError(f"a resolution is for images, but the examples are {data.input}")
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        choose_device(device)
        split(data, validation_fraction)
        self.space = space
        self.data = data
        self.epochs_ = epochs
        self.data_fraction = data_fraction
        self.resolution = resolution
        self.validation_fraction = validation_fraction
        self.recipe = recipe
        self.device = device
        self.threads = threads
        self.keep_weights = keep_weights

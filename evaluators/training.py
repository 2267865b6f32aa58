"""Training from scratch at the fidelity asked for, and the accuracy on held-out data.

The same share of the training set, always the same examples, is held out for validation; the
test set is not touched. Lower fidelities train for fewer epochs, on the first examples of one
fixed order, or on smaller images.

A trial can be continued where ``schedule_epochs`` says how long the whole training is: a lower
fidelity is then the beginning of it, at the learning rates of the whole, and training 1 epoch and
going on to 3 gives to the bit (on a CPU) what training 3 at once gives. Without it every fidelity
has a schedule of its own that ends at zero. Such a trial is a better guess of what the
architecture can do and no beginning of a longer one, so a longer one starts anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from safetensors.torch import save
from torch.utils.data import Subset

from nas.budget import Cost
from nas.data import Data, check_fits, split
from nas.delivery import WEIGHTS
from nas.errors import ConfigError, DataError
from nas.objective import Metric
from nas.space import SearchSpace
from nas.training import (
    DEFAULT_RECIPE,
    Device,
    Recipe,
    choose_device,
    evaluate,
    initialised,
    train_until,
    weights,
)
from nas.training_state import TrainingState
from nas.trial import CHECKPOINT, Fidelity, Measured, Proposal, Trial


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
        schedule_epochs: the epochs of the whole training, of which every trial is the beginning
            (``max_epochs`` of a fidelity layer). A trial that ends before them leaves a
            checkpoint of its weights, momentum and random state. By default the schedule ends
            with the trial, and there are no checkpoints.
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
        schedule_epochs: int | None = None,
    ) -> None:
        check_fits(data, space)
        Fidelity(epochs, data_fraction, resolution)  # checks the defaults as a proposal's own
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        if schedule_epochs is not None and schedule_epochs < epochs:
            raise ConfigError(
                f"schedule_epochs must be at least epochs ({epochs}), got {schedule_epochs}"
            )
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
        self.schedule_epochs = schedule_epochs
        self._check_resolution(resolution)

    def evaluate(self, proposal: Proposal) -> Measured:
        """Trains and validates; raises ``NotFinite`` where the training loss is not finite."""
        return self._trained(proposal, None)

    def evaluate_from(self, proposal: Proposal, earlier: Trial) -> Measured:
        """Trains on from the checkpoint of an earlier trial, and validates.

        Where that cannot be done it trains from the very start, which gives the same values (on
        a CPU) at the full cost; the note ``restarted`` says why.
        """
        start = self._start(proposal, earlier)
        if isinstance(start, TrainingState):
            return self._trained(proposal, start)
        measured = self._trained(proposal, None)
        return replace(measured, notes={**measured.notes, "restarted": start})

    def _start(self, proposal: Proposal, earlier: Trial) -> TrainingState | str:
        """Where to go on from, or why that cannot be done."""
        if earlier.arch != proposal.arch:
            raise ConfigError(
                f"{proposal.arch} cannot continue trial {earlier.number}, which is of "
                f"{earlier.arch}"
            )
        if self.schedule_epochs is None:
            return "each fidelity has a schedule of its own: schedule_epochs is not set"
        if (
            self._filled(proposal.fidelity)[1:] != self._filled(earlier.proposal.fidelity)[1:]
            or proposal.seed != earlier.proposal.seed
        ):
            return f"trial {earlier.number} had another seed, data fraction or resolution"
        artifacts = earlier.outcome.artifacts if isinstance(earlier.outcome, Measured) else {}
        if CHECKPOINT not in artifacts:
            return f"trial {earlier.number} has no checkpoint"
        try:
            state = TrainingState.from_bytes(artifacts[CHECKPOINT])
        except DataError as error:
            return f"trial {earlier.number}: {error}"
        if state.epochs >= self._filled(proposal.fidelity)[0]:
            return f"trial {earlier.number} was trained for {state.epochs} epochs already"
        return state

    def _trained(self, proposal: Proposal, start: TrainingState | None) -> Measured:
        epochs, data_fraction, resolution = self._filled(proposal.fidelity)
        self._check_resolution(resolution)
        part, held_out = split(self.data, self.validation_fraction)
        used = max(2, round(data_fraction * len(part)))
        part = Subset(part.dataset, part.indices[:used])
        built = initialised(self.space, proposal.arch, proposal.seed)
        state = train_until(
            built,
            part,
            self.recipe,
            epochs,
            proposal.seed,
            schedule_epochs=self.schedule_epochs,
            start=start,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
            resolution=resolution,
            device=self.device,
            threads=self.threads,
        )
        accuracy, loss = evaluate(
            built, held_out, resolution=resolution, device=self.device, threads=self.threads
        )
        notes: dict[str, Any] = {"curve": state.curve}
        if self.data.preprocessing:
            notes["preprocessing"] = dict(self.data.preprocessing)
        artifacts = {WEIGHTS: save(weights(built))} if self.keep_weights else {}
        if self.schedule_epochs is not None and epochs < self.schedule_epochs:
            artifacts[CHECKPOINT] = state.to_bytes()
        trained = epochs - (0 if start is None else start.epochs)
        return Measured(
            {"accuracy": accuracy, "loss": loss},
            Cost(epochs=trained * data_fraction),
            notes,
            artifacts,
        )

    def planned_epochs(self, fidelity: Fidelity) -> float:
        epochs, data_fraction, _ = self._filled(fidelity)
        return epochs * data_fraction

    def planned_epochs_from(self, fidelity: Fidelity, earlier: Fidelity) -> float:
        whole = self.planned_epochs(fidelity)
        # What keeps its checkpoint from being taken up, see ``_start``.
        if self.schedule_epochs is None or self._filled(fidelity)[1:] != self._filled(earlier)[1:]:
            return whole
        return max(0.0, whole - self.planned_epochs(earlier))

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

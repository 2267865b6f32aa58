"""Training from scratch at the fidelity asked for, and the accuracy on held-out data.

The same share of the training set, always the same examples, is held out for validation; the
test set is not touched. Lower fidelities train for fewer epochs, on the first examples of one
fixed order, on smaller images, or narrower and shallower networks.

A trial can be continued where ``schedule_epochs`` says how long the whole training is: a lower
fidelity is then the beginning of it, at the learning rates of the whole, and training 1 epoch and
going on to 3 gives to the bit (on a CPU) what training 3 at once gives. Without it every fidelity
has a schedule of its own that ends at zero. Such a trial is a better guess of what the
architecture can do and no beginning of a longer one, so a longer one starts anew.

With ``early_stop`` a training ends when its validation accuracy, carried on
(``nas.training.extrapolation``), is unlikely to end above the best that was measured at the same
fidelity before it began. What such a trial reports is what was measured where it ended; its notes
say so. Only the accuracy is judged: not for searches in which a smaller network is worth less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from safetensors.torch import save
from torch.utils.data import Subset

from nas.budget import Cost
from nas.data import Data, check_fits, check_resolution, split
from nas.delivery import WEIGHTS
from nas.errors import ConfigError, DataError
from nas.fidelity import at_size, filled, format_fidelity
from nas.objective import Metric
from nas.space import SearchSpace
from nas.training import (
    DEFAULT_DISTILLATION,
    DEFAULT_RECIPE,
    Device,
    Distillation,
    Recipe,
    choose_device,
    evaluate,
    initialised,
    load_teacher,
    train_until,
    weights,
)
from nas.training.extrapolation import EarlyStop, extrapolated
from nas.training_state import TrainingState
from nas.trial import CHECKPOINT, STOPPED, Fidelity, Measured, Proposal, Trial

BEST = "best_known"
"""The note of a proposal in which it is told the accuracy that it should surpass."""

VALIDATION_CURVE = "validation_curve"
"""The note that holds the validation accuracy (fraction) after each epoch."""


class TrainingEvaluator:
    """Trains each architecture briefly from scratch and validates it on held-out examples.

    Metrics: ``accuracy`` (fraction, maximised) and ``loss`` (cross-entropy in nats, minimised),
    both on the validation part. The trial's notes hold the training loss of every epoch
    (``curve``) and, where it is known, how raw pixels were normalised (``preprocessing``).
    Networks of other channels or cells than the space's keep no weights: they are not its own.

    Args:
        epochs, data_fraction, resolution: the fidelity where a proposal leaves it open; the
            resolution is the height and width images are resized to, in pixels.
        validation_fraction: share of the training set that is held out.
        recipe: of the training; a published one by its name, or fields of one's own.
        keep_weights: whether a trial keeps its trained weights, as ``model.safetensors``.
        schedule_epochs: the epochs of the whole training, of which every trial is the beginning
            (``max_epochs`` of a fidelity layer). A trial that ends before them leaves a
            checkpoint of its weights, momentum and random state. By default the schedule ends
            with the trial, and there are no checkpoints.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU, a trial; more than one is not reproducible to the bit.
        validate_each_epoch: whether the notes hold the accuracy after each epoch, too
            (``validation_curve``).
        early_stop: when a training is given up; ``None`` for never. It validates each epoch.
        teacher: a folder that ``nas export`` or ``nas retrain`` wrote, whose network teaches.
        distillation: what is learnt from the teacher.

    Raises:
        DataError: the data do not fit the space, or are too few; or the teacher's folder is
            damaged.
        ConfigError: an argument is out of range, or the teacher does not fit the data.
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
        validate_each_epoch: bool = False,
        early_stop: EarlyStop | None = None,
        teacher: str | None = None,
        distillation: Distillation = DEFAULT_DISTILLATION,
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
        self.validate_each_epoch = validate_each_epoch
        self.early_stop = early_stop
        self.teacher = teacher
        self.distillation = distillation
        check_resolution(data, resolution)
        # Read once and here: it travels to workers that may not see the folder.
        self._teacher = None if teacher is None else load_teacher(teacher, data.input, data.classes)

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
            return self._trained(proposal, start, earlier.notes.get(VALIDATION_CURVE, ()))
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
        mine, its = self._filled(proposal.fidelity), self._filled(earlier.proposal.fidelity)
        if replace(mine, epochs=its.epochs) != its or proposal.seed != earlier.proposal.seed:
            return f"trial {earlier.number} had another seed, data fraction or resolution, or size"
        artifacts = earlier.outcome.artifacts if isinstance(earlier.outcome, Measured) else {}
        if CHECKPOINT not in artifacts:
            return f"trial {earlier.number} has no checkpoint"
        try:
            state = TrainingState.from_bytes(artifacts[CHECKPOINT])
        except DataError as error:
            return f"trial {earlier.number}: {error}"
        if state.epochs >= _epochs(mine):
            return f"trial {earlier.number} was trained for {state.epochs} epochs already"
        return state

    def informed(self, proposal: Proposal, trials: Sequence[Trial]) -> Proposal:
        """Tells a proposal the best accuracy known at its fidelity, where trainings are given up.

        See ``nas.evaluator.WantsHistory``.
        """
        if self.early_stop is None:
            return proposal
        fidelity = self._filled(proposal.fidelity)
        found = [
            trial.values["accuracy"]
            for trial in trials
            if "accuracy" in trial.values
            and STOPPED not in trial.notes
            and self._filled(trial.proposal.fidelity) == fidelity
        ]
        if not found:
            return proposal
        return replace(proposal, notes={**proposal.notes, BEST: max(found)})

    def _trained(
        self, proposal: Proposal, start: TrainingState | None, before: Sequence[float] = ()
    ) -> Measured:
        fidelity = self._filled(proposal.fidelity)
        epochs, resolution = _epochs(fidelity), fidelity.resolution
        check_resolution(self.data, resolution)
        space = at_size(self.space, fidelity)
        part, held_out = split(self.data, self.validation_fraction)
        used = max(2, round((fidelity.data_fraction or 1.0) * len(part)))
        part = Subset(part.dataset, part.indices[:used])
        built = initialised(space, proposal.arch, proposal.seed)
        stopped: dict[str, Any] = {}
        validated = list(before)

        def validate() -> tuple[float, float]:
            return evaluate(
                built, held_out, resolution=resolution, device=self.device, threads=self.threads
            )

        def each_epoch(epoch: int, loss: float) -> None:
            validated.append(validate()[0])

        def hopeless(epoch: int) -> bool:
            stopped.update(self._given_up(proposal, validated, epoch, epochs))
            return bool(stopped)

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
            on_epoch=each_epoch if self.validate_each_epoch or self.early_stop else None,
            teacher=self._teacher,
            distillation=self.distillation,
            hopeless=None if self.early_stop is None else hopeless,
        )
        accuracy, loss = validate()
        notes: dict[str, Any] = {"curve": state.curve}
        if len(validated) == state.epochs:
            notes[VALIDATION_CURVE] = validated
        if stopped:
            notes[STOPPED] = stopped
        if self.data.preprocessing:
            notes["preprocessing"] = dict(self.data.preprocessing)
        artifacts = {}
        if self.keep_weights and space == self.space:
            artifacts[WEIGHTS] = save(weights(built))
        if self.schedule_epochs is not None and epochs < self.schedule_epochs and not stopped:
            artifacts[CHECKPOINT] = state.to_bytes()
        trained = state.epochs - (0 if start is None else start.epochs)
        return Measured(
            {"accuracy": accuracy, "loss": loss},
            Cost(epochs=trained * (fidelity.data_fraction or 1.0)),
            notes,
            artifacts,
        )

    def _given_up(
        self, proposal: Proposal, validated: Sequence[float], epoch: int, epochs: int
    ) -> dict[str, Any]:
        """Why a training ends here, as JSON; nothing where it goes on."""
        best = proposal.notes.get(BEST)
        stop = self.early_stop
        if stop is None or best is None or epoch < stop.least_epochs or len(validated) != epoch:
            return {}
        forecast = extrapolated(validated, epochs)
        probability = forecast.above(best)
        if probability >= stop.probability:
            return {}
        return {
            "epoch": epoch,
            "of": epochs,
            BEST: best,
            "probability": probability,
            "forecast": forecast.mean,
            "forecast_deviation": forecast.deviation,
            "why": f"accuracy {forecast.mean:.4f} ± {forecast.deviation:.4f} expected after "
            f"{epochs} epochs: above {best:.4f} with a probability of {probability:.2g}",
        }

    def planned_epochs(self, fidelity: Fidelity) -> float:
        whole = self._filled(fidelity)
        return _epochs(whole) * (whole.data_fraction or 1.0)

    def planned_epochs_from(self, fidelity: Fidelity, earlier: Fidelity) -> float:
        whole = self.planned_epochs(fidelity)
        mine, its = self._filled(fidelity), self._filled(earlier)
        # What keeps its checkpoint from being taken up, see ``_start``.
        if self.schedule_epochs is None or replace(mine, epochs=its.epochs) != its:
            return whole
        return max(0.0, whole - self.planned_epochs(earlier))

    def _filled(self, asked: Fidelity) -> Fidelity:
        return filled(asked, Fidelity(self.epochs, self.data_fraction, self.resolution))


def _epochs(fidelity: Fidelity) -> int:
    """Of one that leaves none open."""
    if fidelity.epochs is None:
        raise ConfigError(f"{format_fidelity(fidelity)} leaves the epochs open")
    return fidelity.epochs

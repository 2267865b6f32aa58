"""Short training from the parent's weights: a child starts from what its parent has learnt.

What is inherited is said by ``nas.morphism.inherit``: a child that grew out of its parent by
network morphisms computes what the parent does before it is trained at all (Chen, Goodfellow &
Shlens, Net2Net, ICLR 2016; Elsken, Metzen & Hutter, NASH, 2017; Cai et al., EAS, AAAI 2018);
any other takes over the tensors that match (Real et al., large-scale evolution, ICML 2017).

As in NASH, each trial has a schedule of its own that starts at the full learning rate (a warm
restart), and momentum and weight decay start anew. What differs from Net2Net: the copies of a
channel are told apart by unequal shares in what reads them, not by noise on the weights, so
that the function is preserved all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.utils.data import Subset

from nas.budget import Cost
from nas.data import Data, check_fits, check_resolution, split
from nas.delivery import WEIGHTS
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.fidelity import format_fidelity
from nas.morphism import Inherited, inherit
from nas.objective import Metric
from nas.space import SearchSpace, validate
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
from nas.trial import Fidelity, Measured, Proposal, Trial


class InheritedTraining:
    """Trains each architecture briefly from its parent's weights and validates it.

    Metrics: ``accuracy`` (fraction, maximised) and ``loss`` (cross-entropy in nats, minimised),
    on the same held-out part of the training set as those of the ``training`` evaluator. A trial
    keeps its weights, as ``model.safetensors``, for its children. One without a parent, or whose
    parent's weights are not at hand, is trained from scratch.

    The notes of a trial with a parent hold ``inherited``: the ``parent``, the ``share`` of its
    numbers that are the parent's, whether the function was ``preserved``, and if not, or nothing
    was inherited, ``why``. All notes hold the training loss of every epoch (``curve``). A proposal
    that notes a ``learning_rate`` (an individual of large-scale evolution) is trained with it.

    Args:
        epochs: of a trial that inherits, where the proposal leaves it open.
        first_epochs: of one that does not, where the proposal leaves it open; by default as many.
        data_fraction, resolution: the fidelity where a proposal leaves it open; the resolution is
            the height and width images are resized to, in pixels.
        validation_fraction: share of the training set that is held out.
        recipe: of the training; a published one by its name, or fields of one's own.
        noise: how unequal the shares of copied channels are, see ``nas.morphism.inherit``.
        device: ``auto`` is a GPU where there is one.
        threads: of the CPU, a trial; more than one is not reproducible to the bit.

    Raises:
        DataError: the data do not fit the space, or are too few.
        ConfigError: an argument is out of range.
        UnsupportedRequest: when a proposal asks for other channels or cells.
    """

    metrics = (
        Metric("accuracy", "fraction", "maximize"),
        Metric("loss", "nats", "minimize"),
    )

    def __init__(
        self,
        space: SearchSpace,
        data: Data,
        epochs: int = 2,
        first_epochs: int | None = None,
        data_fraction: float = 1.0,
        resolution: int | None = None,
        validation_fraction: float = 0.2,
        recipe: Recipe = DEFAULT_RECIPE,
        noise: float = 0.5,
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        check_fits(data, space)
        Fidelity(epochs, data_fraction, resolution)  # checks the defaults as a proposal's own
        if first_epochs is not None and first_epochs < 1:
            raise ConfigError(f"first_epochs must be at least 1, got {first_epochs}")
        if not 0 <= noise < 1:
            raise ConfigError(f"noise must be at least 0 and below 1, got {noise}")
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        choose_device(device)
        split(data, validation_fraction)
        self.space = space
        self.data = data
        self.epochs = epochs
        self.first_epochs = first_epochs
        self.data_fraction = data_fraction
        self.resolution = resolution
        self.validation_fraction = validation_fraction
        self.recipe = recipe
        self.noise = noise
        self.device = device
        self.threads = threads
        check_resolution(data, resolution)

    def evaluate(self, proposal: Proposal) -> Measured:
        """Trains from scratch and validates; raises ``NotFinite`` where the loss is not finite."""
        why = "the parent's trial was not measured" if proposal.parent is not None else ""
        return self._trained(proposal, why)

    def evaluate_child(self, proposal: Proposal, parent: Trial) -> Measured:
        """Trains from the weights of the trial it was made from, and validates.

        Where those are not at hand or damaged it trains from scratch; the notes say so.
        """
        validate(self.space, proposal.arch)
        return self._trained(proposal, self._inherited(proposal, parent))

    def _inherited(self, proposal: Proposal, parent: Trial) -> Inherited | str:
        """What a child inherits, or why it inherits nothing."""
        artifacts = parent.outcome.artifacts if isinstance(parent.outcome, Measured) else {}
        if WEIGHTS not in artifacts:
            return f"trial {parent.number} has no {WEIGHTS}"
        try:
            return inherit(
                self.space,
                parent.arch,
                load(artifacts[WEIGHTS]),
                proposal.arch,
                proposal.seed,
                self.noise,
            )
        except (DataError, SafetensorError) as error:
            return f"{WEIGHTS} of trial {parent.number} is not to be used: {error}"

    def _trained(self, proposal: Proposal, start: Inherited | str) -> Measured:
        inherits = isinstance(start, Inherited)
        epochs, data_fraction, resolution = self._filled(proposal.fidelity, inherits)
        check_resolution(self.data, resolution)
        part, held_out = split(self.data, self.validation_fraction)
        used = max(2, round(data_fraction * len(part)))
        part = Subset(part.dataset, part.indices[:used])
        built = initialised(self.space, proposal.arch, proposal.seed)
        notes: dict[str, Any] = {}
        if isinstance(start, Inherited):
            built.load_state_dict(start.weights)
        if proposal.parent is not None:
            notes["inherited"] = _note(proposal.parent, start)
        state = train_until(
            built,
            part,
            self._recipe(proposal),
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
        notes["curve"] = state.curve
        if self.data.preprocessing:
            notes["preprocessing"] = dict(self.data.preprocessing)
        return Measured(
            {"accuracy": accuracy, "loss": loss},
            Cost(epochs=epochs * data_fraction),
            notes,
            {WEIGHTS: save(weights(built))},
        )

    def _recipe(self, proposal: Proposal) -> Recipe:
        """The recipe, with the learning rate that the proposal notes, if it notes one."""
        noted = proposal.notes.get("learning_rate")
        return self.recipe if noted is None else replace(self.recipe, learning_rate=float(noted))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        """The most that a trial trains, from scratch or not."""
        both = [self._filled(fidelity, inherits) for inherits in (False, True)]
        return max(epochs * data_fraction for epochs, data_fraction, _ in both)

    def _filled(self, asked: Fidelity, inherits: bool) -> tuple[int, float, int | None]:
        if asked.channels is not None or asked.cells is not None:
            raise UnsupportedRequest(
                f"inherited: {format_fidelity(asked)} asks for networks of other channels or "
                "cells, whose weights are of no use to the space's own: the training evaluator "
                "takes it"
            )
        epochs = self.epochs if inherits or self.first_epochs is None else self.first_epochs
        return (
            epochs if asked.epochs is None else asked.epochs,
            self.data_fraction if asked.data_fraction is None else asked.data_fraction,
            self.resolution if asked.resolution is None else asked.resolution,
        )


def _note(parent: int, start: Inherited | str) -> dict[str, Any]:
    if isinstance(start, str):
        return {"parent": parent, "share": 0.0, "preserved": False, "why": start}
    found = {"parent": parent, "share": round(start.reused, 6), "preserved": start.preserved}
    return found | ({"why": start.why} if start.why else {})

"""A family of networks from one supernet: for each of several limits the best, exported."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture
from nas.components import describe
from nas.data import Data
from nas.delivery import check_formats, deliver
from nas.errors import ConfigError, InfeasibleLimit
from nas.history import write_file
from nas.predictor import FittedSurrogate
from nas.space import format_architecture
from nas.specialize.candidates import ONCE_FOR_ALL, TRIALS, Candidate, candidates
from nas.specialize.inherited import Inherited
from nas.specialize.limits import Costs, Limits, Table, family_of
from nas.specialize.picture import family_png
from nas.supernet.files import SharedSupernet
from nas.training import Recipe, train, weights

FORMAT = "nasforge-family/1"
FAMILY = "family.json"
PICTURE = "family.png"
CHECK = 8

FINE_TUNING = Recipe(
    learning_rate=0.01, weight_decay=4e-5, warmup=0.0, label_smoothing=0.1, decay_norms=False
)
"""A tenth of a training's learning rate, falling to zero along a cosine: the weights are good."""


@dataclass(frozen=True, eq=False)
class Specialized:
    """A network of the family.

    Attributes:
        limits: what it had to keep.
        arch: what it is.
        costs: in ``nas.specialize.limits.METRICS``, as far as they are known.
        predicted: the accuracy that the predictor expected.
        accuracy: with inherited weights, on the held-out training examples: what it was chosen by.
        test_accuracy: the same on the test set; ``None`` where there is none.
        fine_tuned: test accuracy after fine-tuning; ``None`` without.
        weights: its state, on the CPU.
        folder: where it was written; ``None`` if it was not.
        seconds: all that it took, and ``search``, ``check``, ``fine_tune``, ``export`` of that.
        files: what ``deploy.json`` says (``nas.delivery.deliver``).
    """

    limits: Limits
    arch: Architecture
    costs: Mapping[str, float]
    predicted: float
    accuracy: float
    test_accuracy: float | None
    fine_tuned: float | None
    weights: Mapping[str, torch.Tensor]
    folder: Path | None
    seconds: Mapping[str, float]
    files: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What is known of it as JSON, but for the architecture's text."""
        return {
            "limits": dict(self.limits.values),
            "folder": None if self.folder is None else self.folder.name,
            "digest": self.arch.digest(),
            "costs": dict(self.costs),
            "predicted_accuracy": self.predicted,
            "held_out_accuracy": self.accuracy,
            "test_accuracy": self.test_accuracy,
            "fine_tuned_test_accuracy": self.fine_tuned,
            "seconds": dict(self.seconds),
            "files": dict(self.files),
        }


class UnmetLimits(InfeasibleLimit):
    """Some limits of a family cannot be met; the others' networks are there.

    Attributes:
        met: the networks that were found and written.
        unmet: why not, by limits.
    """

    def __init__(self, met: Sequence[Specialized], unmet: Mapping[Limits, str]) -> None:
        super().__init__("; ".join(unmet.values()))
        self.met = list(met)
        self.unmet = dict(unmet)


def specialize(
    shared: SharedSupernet,
    limits: Sequence[Limits | str],
    out: str | Path | None = None,
    *,
    data: Data,
    predictor: FittedSurrogate,
    table: Table | str | Path | None = None,
    strategy: str | Mapping[str, Any] = ONCE_FOR_ALL,
    trials: int = TRIALS,
    check: int = CHECK,
    finetune: int = 0,
    recipe: Recipe = FINE_TUNING,
    formats: Sequence[str] = ("source",),
    recalibration_batches: int = 20,
    seed: int = 0,
    threads: int = 1,
    on_progress: Callable[[str], None] | None = None,
) -> list[Specialized]:
    """Finds, tests and exports the best sub-network under each of these limits.

    A strategy maximises the predicted accuracy; the best ``check`` of what it found are scored
    with inherited weights on held-out examples, and the best of those is taken, recalibrated,
    tested and, if asked for, trained for a few more epochs on the whole training set.

    Args:
        limits: one network each: ``"latency_ms=3"``, ``"latency_ms=3,parameters=2e6"``.
        out: the family's folder: each network's in it, ``family.json`` and ``family.png``;
            nothing is written without.
        data: of ``nas.specialize.data_of``.
        predictor: of ``fit_predictor`` or ``load_predictor``.
        table: tells latencies; a file, or what ``nas.latency.files.read`` gives.
        strategy: any that needs no training, by name or description.
        trials: predictions for each network.
        check: how many are scored truly.
        finetune: epochs; 0 for none.
        recipe: of those.
        formats: of ``nas.delivery.FORMATS``.
        threads: of the CPU; more than one is not reproducible to the bit.
        on_progress: told in words what is being done.

    Raises:
        UnmetLimits: after the others were delivered, of limits that no sub-network keeps.
        ConfigError: nonsense among the arguments, or a limit on latency without a table.
        ExportError: as ``nas.delivery.deliver``.
    """
    family = family_of(limits)
    for name, value, least in (
        ("trials", trials, 1),
        ("check", check, 1),
        ("finetune", finetune, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")
    costs = Costs(shared.space, table)
    for one in family:
        costs.check(one)
    check_formats(shared.space, formats)
    say = on_progress or (lambda text: None)
    inherited = Inherited(shared, data, recalibration_batches, threads=threads)
    met: list[Specialized] = []
    unmet: dict[Limits, str] = {}
    for one in family:
        start = time.perf_counter()
        try:
            found = candidates(
                shared.space,
                one,
                predictor,
                costs,
                strategy,
                trials,
                seed,
                lambda done, best, one=one: say(  # type: ignore[misc]  # bound in the loop
                    f"{one}: {done} of {trials} predicted, the best {best:.4f}"
                ),
            )
        except InfeasibleLimit as error:
            unmet[one] = str(error)
            continue
        searched = time.perf_counter() - start
        met.append(
            _delivered(
                one,
                found[:check],
                inherited,
                costs,
                None if out is None else Path(out) / one.name,
                finetune,
                recipe,
                formats,
                seed,
                searched,
                say,
            )
        )
    if out is not None:
        document = {
            "format": FORMAT,
            "supernet": shared.digest,
            "space": shared.space.name,
            "data": describe(data),
            "predictor": {
                "model": predictor.name,
                "rows": len(predictor.values),
                "kendall": predictor.validation.agreement.kendall,
            },
            "strategy": describe(strategy),
            "trials": trials,
            "seed": seed,
            "networks": [
                {"architecture": format_architecture(shared.space, one.arch), **one.document()}
                for one in met
            ],
            "unmet": [{"limits": dict(one.values), "reason": why} for one, why in unmet.items()],
        }
        write_file(Path(out) / FAMILY, json.dumps(document, indent=1, ensure_ascii=False).encode())
        if met:
            write_file(Path(out) / PICTURE, family_png(met))
    if unmet:
        raise UnmetLimits(met, unmet)
    return met


def _delivered(
    limits: Limits,
    found: Sequence[Candidate],
    inherited: Inherited,
    costs: Costs,
    folder: Path | None,
    finetune: int,
    recipe: Recipe,
    formats: Sequence[str],
    seed: int,
    searched: float,
    say: Callable[[str], None],
) -> Specialized:
    """The truly best of these candidates, ready to be used."""
    seconds = {"search": searched}
    data = inherited.data
    start = time.perf_counter()
    say(f"{limits}: scoring the best {len(found)} with inherited weights")
    scores = [inherited.score(candidate.arch) for candidate in found]
    order = sorted(range(len(found)), key=lambda i: (-scores[i][0], scores[i][1]))
    chosen, accuracy = found[order[0]], scores[order[0]][0]
    network = inherited.network(chosen.arch)
    tested = inherited.test(network)
    seconds["check"] = time.perf_counter() - start
    tuned = None
    if finetune:
        start = time.perf_counter()
        train(
            network,
            data.train,
            recipe,
            finetune,
            seed,
            crop_padding=data.crop_padding,
            flip=data.flip,
            device=inherited.device,
            threads=inherited.threads,
            on_epoch=lambda epoch, loss: say(
                f"{limits}: fine-tuning, epoch {epoch} of {finetune}, loss {loss:.4f}"
            ),
        )
        tuned = inherited.test(network.eval())
        seconds["fine_tune"] = time.perf_counter() - start
    known = costs.of(chosen.arch, costs.metrics)
    made = weights(network)
    files: dict[str, Any] = {}
    if folder is not None:
        start = time.perf_counter()
        say(f"{limits}: exporting")
        facts = {
            "limits": dict(limits.values),
            "test_accuracy": tested if tuned is None else tuned,
            "test_accuracy_before_fine_tuning": tested if finetune else None,
            "fine_tuned_epochs": finetune,
            "held_out_accuracy": accuracy,
            **known,
            "supernet": inherited.shared.digest,
            "data": data.name,
        }
        files = deliver(
            inherited.shared.space,
            chosen.arch,
            folder,
            made,
            formats=formats,
            facts={key: value for key, value in facts.items() if value is not None},
            preprocessing=data.preprocessing or inherited.shared.facts.get("preprocessing"),
        )
        seconds["export"] = time.perf_counter() - start
    return Specialized(
        limits,
        chosen.arch,
        known,
        chosen.predicted,
        accuracy,
        tested,
        tuned,
        made,
        folder,
        {"all": sum(seconds.values()), **seconds},
        files,
    )

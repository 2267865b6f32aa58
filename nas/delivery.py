"""From a search to a network a user can take away: export of a trial, retraining, both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture
from nas.errors import ExportError
from nas.history import History
from nas.space import SearchSpace
from nas.trial import Measured, Trial

if TYPE_CHECKING:
    from nas.data import Data

WEIGHTS = "model.safetensors"
"""The artifact in which an evaluator leaves the weights it trained."""


def export_trial(history: History, trial: Trial, space: SearchSpace, folder: str | Path) -> Path:
    """Writes a measured trial's network with the weights of the search.

    Raises:
        ExportError: the trial was not measured, or its evaluator kept no weights.
    """
    from safetensors.torch import load

    from nas.export import export

    if not isinstance(trial.outcome, Measured):
        raise ExportError(f"trial {trial.number} was not measured, so there is nothing to export")
    content = history.artifact(trial, WEIGHTS)
    if content is None:
        raise ExportError(
            f"trial {trial.number} kept no weights; train it with 'nas retrain', which exports too"
        )
    facts = {"trial": trial.number, "values": dict(trial.values)}
    preprocessing = trial.outcome.notes.get("preprocessing")
    return export(
        space, trial.arch, folder, load(content), facts=facts, preprocessing=preprocessing
    )


def retrain_and_export(
    space: SearchSpace,
    arch: Architecture,
    data: Data,
    folder: str | Path,
    *,
    epochs: int,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Trains an architecture on all training data, tests it, and writes it stand-alone.

    Returns:
        The folder, and what is known of the network: its costs and its test accuracy.
    """
    from nas.cost import architecture_cost
    from nas.export import export
    from nas.training import retrain

    trained = retrain(space, arch, data, epochs=epochs, seed=seed, on_epoch=on_epoch)
    found = architecture_cost(space, arch)
    facts = {
        "test_accuracy": trained.test_accuracy,
        "parameters": found.parameters,
        "macs": found.macs,
        "peak_memory_bytes": found.peak_memory_bytes,
        "epochs": epochs,
        "seed": seed,
        "data": data.name,
    }
    written = export(
        space, arch, folder, trained.weights, facts=facts, preprocessing=data.preprocessing
    )
    return written, facts

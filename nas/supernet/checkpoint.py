"""The state of a training of shared weights in a file: what training that was killed goes on from.

The format is that of ``nas.supernet.files``: when the training is done, the same file is the
supernet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.components import describe
from nas.errors import DataError, ResumeError, nearest
from nas.supernet import files
from nas.supernet.training import PathTraining


def save_training(
    path: Path, training: PathTraining, facts: Mapping[str, Any], seconds: float
) -> None:
    """Writes the state of a training whole or not at all, as safetensors.

    Args:
        facts: what it depends on, as JSON: a file with others is refused when it is read.
        seconds: what it took until now.

    Raises:
        JournalError: the disk does not take it.
    """
    state = training.state_dict()
    kinds = [kind for kind, value in state.items() if isinstance(value, Mapping)]
    document = {
        **files.about(training.supernet),
        "facts": {
            **facts,
            "preprocessing": describe(training.data.preprocessing),
            "seconds": seconds,
        },
        "training": {
            "kinds": kinds,
            "done": training.done,
            "epochs": training.settings.epochs,
            **{key: value for key, value in state.items() if key not in kinds},
        },
    }
    files.write(path, document, {kind: state[kind] for kind in kinds})


def load_training(path: Path, training: PathTraining, facts: Mapping[str, Any]) -> float:
    """Puts a training where the file left it; gives the seconds that it had taken.

    Raises:
        DataError: the file is no such checkpoint, or is damaged.
        ResumeError: it is of a training with other facts; the message names the first.
    """
    stored = files.read(path)
    found, left = stored.document["facts"], stored.document["training"]
    if left is None:
        raise DataError(
            f"{path} holds a supernet, but not where its training was left: give another path for "
            "the checkpoint"
        )
    for key, value in json.loads(json.dumps(dict(facts))).items():
        if key not in found or found[key] != value:
            raise ResumeError(
                f"{path} holds a supernet of another training: {key} is "
                f"{found.get(key, nearest(key, found))!r} there and {value!r} here"
            )
    training.load_state_dict(
        {**left, **{kind: stored.tensors.get(kind, {}) for kind in left["kinds"]}}
    )
    return float(found["seconds"])

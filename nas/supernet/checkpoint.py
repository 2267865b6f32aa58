"""Trained shared weights in a file: what training that was killed goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nas.errors import DataError, ResumeError, nearest
from nas.history import write_file
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
    tensors = {
        f"{kind}/{name}": tensor.cpu().contiguous()
        for kind in ("supernet", "momentum")
        for name, tensor in state[kind].items()
    }
    document = {
        "epoch": state["epoch"],
        "curve": state["curve"],
        "facts": dict(facts),
        "seconds": seconds,
    }
    write_file(path, save(tensors, {"training": json.dumps(document)}))


def load_training(path: Path, training: PathTraining, facts: Mapping[str, Any]) -> float:
    """Puts a training where the file left it; gives the seconds that it had taken.

    Raises:
        DataError: the file is no such checkpoint, or is damaged.
        ResumeError: it is of a training with other facts; the message names the first.
    """
    tensors: dict[str, dict[str, Any]] = {"supernet": {}, "momentum": {}}
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["training"])
            for key in file.keys():  # noqa: SIM118  # it is no mapping
                kind, _, name = key.partition("/")
                tensors[kind][name] = file.get_tensor(key)
        found, seconds = document["facts"], float(document["seconds"])
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{path} is no checkpoint of a supernet, or is damaged: {error}") from error
    for key, value in json.loads(json.dumps(dict(facts))).items():
        if key not in found or found[key] != value:
            raise ResumeError(
                f"{path} holds a supernet of another training: {key} is "
                f"{found.get(key, nearest(key, found))!r} there and {value!r} here"
            )
    training.load_state_dict({**document, **tensors})
    return seconds

"""What all formats share: weights into a network, facts as JSON, files written all or none."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.errors import ExportError


def with_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network with its weights loaded, in eval mode; ``ExportError`` where they do not fit."""
    try:
        model.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ExportError(f"the weights are not those of this architecture: {error}") from error
    return model.eval()


def as_json(document: Any) -> bytes:
    """A JSON file's content; ``ExportError`` for what JSON cannot hold."""
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"facts and preprocessing must be JSON: {error}") from error
    return text.encode() + b"\n"


def check_target(folder: Path, names: Iterable[str]) -> None:
    """Raises ``ExportError`` where files of these names cannot go into the folder."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; an export goes into a folder")
    for name in names:
        if (folder / name).is_dir():
            raise ExportError(f"{folder / name} is a folder, where a file would be written")


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files into a folder beside the target first; a rename is what makes them appear."""
    target = folder.resolve()
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.mkdir()
        for name, content in files.items():
            with open(made / name, "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
        if not target.exists():
            made.rename(target)
            return
        for name in files:
            (made / name).replace(target / name)
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)

"""A teacher from a folder that ``nas export`` or ``nas retrain`` wrote.

The network is built by its space and filled with the folder's weights. Nothing of the folder is
run: its ``model.py`` is not looked at, and a space that is not a registered one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nas import registry
from nas.architecture import Architecture
from nas.components import create
from nas.errors import ConfigError, DataError, NasError
from nas.space import SearchSpace, network
from nas.training.distillation import check_teacher

FILES = ("architecture.json", "model.safetensors", "check.safetensors")


class Teacher(nn.Module):
    """A trained network that takes images of other sizes, too: it resizes them to its own.

    Args:
        network: gives logits.
        input: the shape of one of its examples.
    """

    def __init__(self, network: nn.Module, input: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.input = input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.input[1:]
        if x.ndim == 4 and len(size) == 2 and tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        logits: torch.Tensor = self.network(x)
        return logits


def load_teacher(folder: str | Path, input: tuple[int, ...], classes: int) -> Teacher:
    """The network of an exported folder, in eval mode, checked against the output it must give.

    Args:
        input, classes: of the data it is to teach on.

    Raises:
        DataError: a file is missing or damaged, or the weights do not give the folder's output.
        ConfigError: its space is no registered one, or it does not fit the data.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} is no exported network: it has no {name} (nas export and nas retrain "
                "write such folders)"
            )
    try:
        document = json.loads((folder / FILES[0]).read_text())
        described, picks = document["search_space"], document["picks"]
        arch = Architecture(document["space"], tuple(picks.items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / FILES[0]} describes no network: {error!r}") from error
    for name in _names(described):
        if name not in registry.names("spaces"):
            raise ConfigError(
                f"{folder}: its space {name!r} is not a registered one, and building it would run "
                "code that the folder names: make the network yourself and give it as the teacher"
            )
    space: SearchSpace = create("spaces", described, str(folder / FILES[0]))
    teacher = Teacher(_filled(space, arch, folder), space.input).eval()
    if len(input) == 3 and space.input[:1] != input[:1]:
        raise ConfigError(
            f"the teacher in {folder} takes examples of shape {space.input}, the data's are {input}"
        )
    try:
        check_teacher(teacher, torch.zeros(2, *input), classes)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    return teacher


def _filled(space: SearchSpace, arch: Architecture, folder: Path) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nas.export.merge import merge

    try:
        weights, check = load_file(folder / FILES[1]), load_file(folder / FILES[2])
        with torch.random.fork_rng(devices=[]):
            # What is exported is the form for inference.
            built = merge(network(space, arch)).eval()
        built.load_state_dict(weights)
        with torch.no_grad():
            output = built(check["input"])
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise DataError(f"{folder} does not hold the weights of {arch}: {error}") from error
    except NasError as error:
        raise type(error)(f"{folder}: {error}") from error
    if output.shape != check["output"].shape or not torch.allclose(
        output, check["output"], rtol=1e-3, atol=1e-4
    ):
        raise DataError(f"{folder} is damaged: its weights do not give the output of {FILES[2]}")
    return built


def _names(description: Any) -> list[str]:
    """All components that a description names, at any depth."""
    if isinstance(description, Mapping):
        own = [str(description["name"])] if "name" in description else []
        return own + [name for value in description.values() for name in _names(value)]
    if isinstance(description, list):
        return [name for value in description for name in _names(value)]
    return []

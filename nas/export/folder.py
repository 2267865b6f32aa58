"""A network's folder: verified first, then written, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.architecture import Architecture
from nas.components import describe
from nas.cost import count
from nas.errors import ExportError, UnsupportedRequest
from nas.export.source import Description, model_source
from nas.export.verify import verify
from nas.space import SearchSpace, format_architecture, network

FILES = ("model.py", "model.safetensors", "check.safetensors", "architecture.json")
BATCH = 2


def export(
    space: SearchSpace,
    arch: Architecture,
    folder: str | Path,
    weights: Mapping[str, torch.Tensor],
    *,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> Path:
    """Writes an architecture's network so that it can be used with torch alone.

    The folder gets ``model.py`` (the network as readable source; run, it checks itself),
    ``model.safetensors``, ``check.safetensors`` (an input and the output it must give) and
    ``architecture.json``. The source is run and compared with the network here before anything
    is written. Files of these names are replaced; others in the folder are left alone.

    Args:
        space: where the architecture comes from.
        arch: whose network is written.
        folder: made where there is none.
        weights: the ``state_dict`` of ``nas.space.network(space, arch)``.
        facts: what is known of the network, as JSON.
        preprocessing: how inputs are normalised, as JSON.

    Returns:
        The folder.

    Raises:
        InvalidArchitecture: the architecture is not one of the space.
        ExportError: the weights do not fit, the network cannot be written as source or does not
            come out the same, or the folder cannot be written. Nothing is written then.
    """
    from safetensors.torch import save

    folder = Path(folder)
    facts = None if facts is None else dict(facts)
    preprocessing = dict(preprocessing) if isinstance(preprocessing, Mapping) else preprocessing
    _json([facts, preprocessing])  # refused before any work
    _check_target(folder)
    # What the constructors and a forward pass draw must not show in the caller's random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        try:
            # Of another instance: a forward pass may leave traces that verification would see.
            cost = count(network(space, arch), space.input)
        except UnsupportedRequest as error:
            raise ExportError(f"the network's cost cannot be told: {error}") from error
        original = _with_weights(network(space, arch), weights)
        state = {name: _copied(tensor) for name, tensor in original.state_dict().items()}
        text = format_architecture(space, arch)
        source = model_source(
            original,
            {torch.float32, *(tensor.dtype for tensor in state.values())},
            Description(space.name, text, space.input, cost.parameters, cost.macs, preprocessing),
        )
        x = torch.randn(BATCH, *space.input, generator=torch.Generator().manual_seed(0))
        output = verify(source, original, x)
        check = {"input": x, "output": _copied(output)}
    document = {
        "space": arch.space,
        "search_space": describe(space),
        "text": text,
        "digest": arch.digest(),
        "picks": arch.as_dict(),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "preprocessing": preprocessing,
        "facts": facts,
    }
    _write(
        folder,
        {
            "model.py": source.encode(),
            "model.safetensors": save(state),
            "check.safetensors": save(check),
            "architecture.json": _json(document),
        },
    )
    return folder


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """With memory of its own, in order: safetensors takes nothing else."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _with_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    try:
        model.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ExportError(f"the weights are not those of this architecture: {error}") from error
    return model.eval()


def _json(document: Any) -> bytes:
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(f"facts and preprocessing must be JSON: {error}") from error
    return text.encode() + b"\n"


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; an export goes into a folder")
    for name in FILES:
        if (folder / name).is_dir():
            raise ExportError(f"{folder / name} is a folder, where a file would be written")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
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

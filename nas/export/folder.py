"""A network's folder: verified first, then written, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture
from nas.components import describe
from nas.cost import count
from nas.errors import ExportError, UnsupportedRequest
from nas.export.merge import check_merged, merge
from nas.export.shared import as_json, check_target, with_weights, write
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

    What is written is the network's inference form (``nas.export.merge``): blocks with branches
    for training are one convolution there. Parameters and MACs are those of this form.

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
    folder = Path(folder)
    check_target(folder, FILES)
    write(folder, source_files(space, arch, weights, facts=facts, preprocessing=preprocessing))
    return folder


def source_files(
    space: SearchSpace,
    arch: Architecture,
    weights: Mapping[str, torch.Tensor],
    *,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> dict[str, bytes]:
    """The contents ``export`` writes, verified, by file name."""
    from safetensors.torch import save

    facts = None if facts is None else dict(facts)
    preprocessing = dict(preprocessing) if isinstance(preprocessing, Mapping) else preprocessing
    as_json([facts, preprocessing])  # refused before any work
    # What the constructors and a forward pass draw must not show in the caller's random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        try:
            # Of another instance: a forward pass may leave traces that verification would see.
            cost = count(merge(network(space, arch)), space.input)
        except UnsupportedRequest as error:
            raise ExportError(f"the network's cost cannot be told: {error}") from error
        trained = with_weights(network(space, arch), weights)
        original = merge(trained)
        state = {name: _copied(tensor) for name, tensor in original.state_dict().items()}
        text = format_architecture(space, arch)
        source = model_source(
            original,
            {torch.float32, *(tensor.dtype for tensor in state.values())},
            Description(space.name, text, space.input, cost.parameters, cost.macs, preprocessing),
        )
        x = torch.randn(BATCH, *space.input, generator=torch.Generator().manual_seed(0))
        output = verify(source, original, x)
        check_merged(trained, original, x)
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
    return {
        "model.py": source.encode(),
        "model.safetensors": save(state),
        "check.safetensors": save(check),
        "architecture.json": as_json(document),
    }


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """With memory of its own, in order: safetensors takes nothing else."""
    return tensor.clone(memory_format=torch.contiguous_format)

"""From a search to a network a user can take away: export of a trial, retraining, both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture
from nas.errors import ExportError, UnsupportedRequest, nearest
from nas.history import History
from nas.space import SearchSpace
from nas.trial import Measured, Trial

if TYPE_CHECKING:
    import torch

    from nas.data import Data
    from nas.export.quantize import Int8
    from nas.training import Recipe

WEIGHTS = "model.safetensors"
"""The artifact in which an evaluator leaves the weights it trained."""

FORMATS = ("source", "onnx", "pt2")
"""Plain PyTorch (``nas.export.export``), and the graphs of ``nas.export.graph``."""

DEPLOY = "deploy.json"
"""The file that says what each graph file beside it is: size, difference from torch, accuracy."""

LARGE_LOSS = 0.02
"""Test accuracy (fraction) above whose loss 8 bits are warned of."""


def deliver(
    space: SearchSpace,
    arch: Architecture,
    folder: str | Path,
    weights: Mapping[str, torch.Tensor],
    *,
    formats: Sequence[str] = ("source",),
    int8: Int8 | None = None,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> dict[str, Any]:
    """Writes a network in several formats, all checked before any is written.

    ``source`` gives what ``nas.export.export`` writes, ``onnx`` and ``pt2`` give ``model.onnx``
    and ``model.pt2`` (``nas.export.graph``), ``int8`` gives ``model.int8.onnx`` as well
    (``nas.export.quantize``). With any but the source comes ``deploy.json``. Files of these names
    are replaced; others in the folder are left alone.

    Args:
        folder: made where there is none.
        weights: the ``state_dict`` of ``nas.space.network(space, arch)``.
        formats: of ``FORMATS``.
        int8: data to quantise with; only together with ``onnx``.
        facts, preprocessing: what is known of the network, and how inputs are normalised, as JSON.

    Returns:
        What ``deploy.json`` says: file name to its bytes and measurements. Empty for the source
        alone.

    Raises:
        InvalidArchitecture: the architecture is not one of the space.
        ExportError: a format does not exist, needs packages that are not installed, or its file
            computes something else than torch; or the folder cannot be written. Nothing is
            written then.
        UnsupportedRequest: int8 without ONNX.
        DataError: the data do not fit the space.
    """
    from nas.export.folder import FILES, source_files
    from nas.export.shared import as_json, check_target, write

    check_formats(space, formats, int8)
    folder = Path(folder)
    deployed = [format for format in FORMATS[1:] if format in formats]
    check_target(folder, [*FILES, *(f"model.{f}" for f in (*deployed, "int8.onnx")), DEPLOY])
    told: dict[str, Any] = {"facts": facts, "preprocessing": preprocessing}
    files: dict[str, bytes] = {}
    document: dict[str, Any] = {}
    if deployed:
        from nas.export.graph import graph_files

        graphs = graph_files(space, arch, weights, deployed, **told)
        for format, graph in graphs.items():
            files[f"model.{format}"] = graph.content
            document[f"model.{format}"] = {
                "bytes": len(graph.content),
                "largest_relative_difference": graph.difference,
            }
        if int8 is not None:
            from nas.export.quantize import quantized

            name = "model.int8.onnx"
            files[name], document[name] = quantized(graphs["onnx"].content, int8)
        files[DEPLOY] = as_json({"digest": arch.digest(), "files": document})
    if "source" in formats:
        files |= source_files(space, arch, weights, **told)
    write(folder, files)
    return document


def check_formats(space: SearchSpace, formats: Sequence[str], int8: Int8 | None = None) -> None:
    """Raises what ``deliver`` would, of all that can be told without the weights."""
    if not formats:
        raise UnsupportedRequest(f"there is no format to export to: {nearest('', FORMATS)}")
    for format in formats:
        if format not in FORMATS:
            raise UnsupportedRequest(f"there is no format {format!r}: {nearest(format, FORMATS)}")
    graphs = [format for format in formats if format != "source"]
    if graphs:
        from nas.export.graph import check_graphs

        check_graphs(graphs)
    if int8 is not None:
        if "onnx" not in formats:
            raise UnsupportedRequest(
                f"int8 is made from ONNX: ask for the format onnx too, beside {', '.join(formats)}"
            )
        from nas.export.quantize import check_int8

        check_int8(int8, space)


def lines(document: Mapping[str, Any]) -> list[str]:
    """What ``deploy.json`` says of its files, for people."""
    found = []
    for name, values in document.items():
        if "test_accuracy" not in values:
            found.append(
                f"{name}: {values['bytes']:,} bytes, outputs within "
                f"{values['largest_relative_difference']:.1g} of torch's (relative)"
            )
            continue
        size, accuracy = values["bytes"], values["test_accuracy"]
        latency = values["latency_ms_on_this_cpu_1_thread"]
        found += [
            f"{name}: {size['int8']:,} bytes, {size['int8'] / size['float32']:.0%} of float32",
            f"    test accuracy {accuracy['float32']:.2%} before, {accuracy['int8']:.2%} after "
            f"({values['test_images']} images)",
            f"    latency on this CPU, one thread, one example: {latency['float32']:.3g} ms "
            f"before, {latency['int8']:.3g} ms after",
            f"    ranges from {values['calibration']['images']} training images",
        ]
        if values["test_accuracy_lost"] > LARGE_LOSS:
            found.append(
                f"    WARNING: 8 bits cost {100 * values['test_accuracy_lost']:.1f} points of test "
                "accuracy"
            )
    return found


def export_trial(
    history: History,
    trial: Trial,
    space: SearchSpace,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("source",),
    int8: Int8 | None = None,
) -> dict[str, Any]:
    """Writes a measured trial's network with the weights of the search; the rest is ``deliver``'s.

    Raises:
        ExportError: the trial was not measured, or its evaluator kept no weights.
    """
    from safetensors.torch import load

    if not isinstance(trial.outcome, Measured):
        raise ExportError(f"trial {trial.number} was not measured, so there is nothing to export")
    content = history.artifact(trial, WEIGHTS)
    if content is None:
        raise ExportError(
            f"trial {trial.number} kept no weights; train it with 'nas retrain', which exports too"
        )
    facts = {"trial": trial.number, "values": dict(trial.values)}
    preprocessing = trial.outcome.notes.get("preprocessing")
    return deliver(
        space,
        trial.arch,
        folder,
        load(content),
        formats=formats,
        int8=int8,
        facts=facts,
        preprocessing=preprocessing,
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
    formats: Sequence[str] = ("source",),
    int8: Int8 | None = None,
    recipe: Recipe | None = None,
    teacher: str | Path | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Trains an architecture on all training data, tests it, and writes it as ``deliver`` does.

    Args:
        recipe: how it is trained; ``nas.training.DEFAULT_RECIPE`` if none is given.
        teacher: a folder that this wrote, whose network's soft targets are learnt from as well.

    Returns:
        The folder, and what is known of the network: its costs, its test accuracy and, under
        ``files``, what ``deploy.json`` says if it is written.
    """
    from nas.cost import architecture_cost
    from nas.training import DEFAULT_RECIPE, initialised, load_teacher, retrain

    check_formats(space, formats, int8)
    taught_by = None if teacher is None else load_teacher(teacher, data.input, data.classes)
    if set(formats) - {"source"}:
        from nas.export.graph import trace

        # What is no graph is refused before it is trained.
        trace(initialised(space, arch, seed).eval(), space.input)
    trained = retrain(
        space,
        arch,
        data,
        epochs=epochs,
        recipe=recipe or DEFAULT_RECIPE,
        seed=seed,
        on_epoch=on_epoch,
        teacher=taught_by,
    )
    found = architecture_cost(space, arch)
    facts = {
        "test_accuracy": trained.test_accuracy,
        "parameters": found.parameters,
        "macs": found.macs,
        "peak_memory_bytes": found.peak_memory_bytes,
        "weight_bytes": found.weight_bytes,
        "epochs": epochs,
        "seed": seed,
        "data": data.name,
    }
    document = deliver(
        space,
        arch,
        folder,
        trained.weights,
        formats=formats,
        int8=int8,
        facts=facts,
        preprocessing=data.preprocessing,
    )
    return Path(folder), facts | ({"files": document} if document else {})

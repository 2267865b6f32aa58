"""Networks as one file for other runtimes: ONNX, and the ``.pt2`` of torch.export.

Both are written from one trace, with the number of examples left open, and both are read back and
run beside the network before anything is written.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nas.architecture import Architecture
from nas.components import describe
from nas.errors import ExportError, nearest
from nas.export.merge import check_merged, merge
from nas.export.shared import as_json, check_target, with_weights, write
from nas.space import SearchSpace, format_architecture, network, validate

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

GRAPHS = ("onnx", "pt2")
"""The formats, each the suffix of its file."""

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
"""What a format needs beside torch: the extra ``deploy``."""

OPSET = 18
"""ONNX's version: the one torch's operators are written in, read by onnxruntime 1.14 and later."""

BATCHES = (1, 2, 5)
"""So many examples at once are compared; the trace was made with two."""

TOLERANCE = 1e-4
"""The largest difference of an output, as a share of the largest output of its batch."""

METADATA = "metadata.json"
"""The file inside a ``.pt2`` that says what the network is."""

Run = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """A file's content, and how far its outputs are from the network's (see ``TOLERANCE``)."""

    content: bytes
    difference: float


def export_graph(
    space: SearchSpace,
    arch: Architecture,
    file: str | Path,
    weights: Mapping[str, torch.Tensor],
    *,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> float:
    """Writes an architecture's network as one file, whose suffix is the format.

    ``.onnx`` has an input ``input`` and an output ``logits``; ``.pt2`` is for ``torch.export.load``
    and ahead-of-time compilers. In both the number of examples is open and the metadata say what
    the network is (``describe_network``). The file is replaced at once or not touched.

    Args:
        weights: the ``state_dict`` of ``nas.space.network(space, arch)``.
        facts: what is known of the network, as JSON.
        preprocessing: how inputs are normalised, as JSON.

    Returns:
        The largest relative difference between the file's outputs and the network's.

    Raises:
        InvalidArchitecture: the architecture is not one of the space.
        ExportError: the suffix is no format, the extra ``deploy`` is missing, the weights do not
            fit, the network is no graph, the file computes something else, or it cannot be
            written. Nothing is written then.
    """
    file = Path(file)
    format = file.suffix.removeprefix(".")
    check_graphs([format])
    check_target(file.parent, [file.name])
    graphs = graph_files(space, arch, weights, [format], facts=facts, preprocessing=preprocessing)
    write(file.parent, {file.name: graphs[format].content})
    return graphs[format].difference


def check_graphs(formats: Sequence[str]) -> None:
    """Raises ``ExportError`` for what is no format, or needs packages that are not installed."""
    for format in formats:
        if format not in GRAPHS:
            raise ExportError(f"there is no format {format!r}: {nearest(format, GRAPHS)}")
        missing = [name for name in PACKAGES[format] if importlib.util.find_spec(name) is None]
        if missing:
            raise ExportError(
                f"format {format!r} needs {', '.join(missing)}: pip install nasforge[deploy]"
            )


def graph_files(
    space: SearchSpace,
    arch: Architecture,
    weights: Mapping[str, torch.Tensor],
    formats: Sequence[str],
    *,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> dict[str, Graph]:
    """The verified content of each format; arguments and errors are ``export_graph``'s."""
    validate(space, arch)
    metadata = describe_network(space, arch, facts, preprocessing)
    as_json(metadata)  # refused before any work
    # What the constructors draw must not show in the caller's random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        trained = with_weights(network(space, arch), weights)
        model = merge(trained)
        check_merged(trained, model, torch.randn(2, *space.input))
        return graphs_of(model, space.input, formats, metadata)


def describe_network(
    space: SearchSpace,
    arch: Architecture,
    facts: Mapping[str, Any] | None = None,
    preprocessing: Any = None,
) -> dict[str, Any]:
    """What a file's metadata say: the space, the architecture, its input, classes and facts."""
    return {
        "space": space.name,
        "search_space": describe(space),
        "architecture": format_architecture(space, arch),
        "digest": arch.digest(),
        "input": list(space.input),
        "classes": space.classes,
        "preprocessing": dict(preprocessing)
        if isinstance(preprocessing, Mapping)
        else preprocessing,
        "facts": None if facts is None else dict(facts),
    }


def graphs_of(
    model: nn.Module,
    input: tuple[int, ...],
    formats: Sequence[str],
    metadata: Mapping[str, Any],
) -> dict[str, Graph]:
    """The verified content of each format, for any network in eval mode with one input.

    Args:
        input: the shape of one example.
        metadata: what the files say of the network, as JSON.

    Raises:
        ExportError: the network is no graph, or a file computes something else.
    """
    program = trace(model, input)
    found = {}
    for format in formats:
        with quiet():
            content = _WRITE[format](program, metadata)
            run = _READ[format](content)
            found[format] = Graph(content, _difference(model, run, input, format))
    return found


def trace(model: nn.Module, input: tuple[int, ...]) -> ExportedProgram:
    """The network's operations with the number of examples open; ``ExportError`` if it has none."""
    # A batch of two: torch takes sizes 0 and 1 for constants.
    x = torch.zeros(2, *input)
    said = io.StringIO()
    with quiet():
        try:
            with contextlib.redirect_stderr(said):
                program = torch.export.export(
                    model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
                )
        except Exception as error:
            # Without what torch printed: the graph as far as it came. The error says the rest.
            raise ExportError(
                "the network cannot be written as a graph, which has no control flow that depends "
                f"on values and takes any number of examples: {_reason(error)}"
            ) from error
    sys.stderr.write(said.getvalue())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # this machine's paths
    return program


# ------------------------------------------------------------------- writing, and reading back


def _write_onnx(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    try:
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
        assert written is not None
        model = written.model_proto
    except Exception as error:
        raise ExportError(f"the network cannot be written as ONNX: {_reason(error)}") from error
    del model.metadata_props[:]
    _strip(model.graph)
    say_in_onnx(model, metadata)
    return bytes(model.SerializeToString(deterministic=True))


def say_in_onnx(model: onnx.ModelProto, metadata: Mapping[str, Any]) -> None:
    """Adds metadata to an ONNX model: text as it is, anything else as JSON."""
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=key, value=text)


def _strip(graph: onnx.GraphProto) -> None:
    """Takes out how torch came to the graph: half of a small file, with this machine's paths."""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            inside = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for inner in inside:
                _strip(inner)


def _read_onnx(content: bytes) -> Run:
    session = onnx_session(content)

    def run(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0])

    return run


def onnx_session(content: bytes) -> Any:
    """An onnxruntime session on the CPU, with one thread; ``ExportError`` if it reads it not."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"onnxruntime does not read the file: {_reason(error)}") from error


def _write_pt2(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    try:
        torch.export.save(program, file, extra_files={METADATA: as_json(metadata).decode()})
    except Exception as error:
        raise ExportError(f"the network cannot be written as pt2: {_reason(error)}") from error
    return file.getvalue()


def _read_pt2(content: bytes) -> Run:
    try:
        loaded: Run = torch.export.load(io.BytesIO(content)).module()
    except Exception as error:
        raise ExportError(f"torch.export does not read the file: {_reason(error)}") from error
    return loaded


_WRITE: dict[str, Callable[[ExportedProgram, Mapping[str, Any]], bytes]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
}
_READ: dict[str, Callable[[bytes], Run]] = {"onnx": _read_onnx, "pt2": _read_pt2}


def _difference(model: nn.Module, run: Run, input: tuple[int, ...], format: str) -> float:
    """The largest, over all batches, of max|network - file| / max|network|."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for size in BATCHES:
        x = torch.randn(size, *input, generator=generator)
        expected = model(x)
        if not isinstance(expected, torch.Tensor) or not bool(torch.isfinite(expected).all()):
            raise ExportError(
                "the network must give one tensor of finite numbers to be exported; it gives "
                + ("others" if isinstance(expected, torch.Tensor) else f"a {type(expected)}")
            )
        try:
            output = run(x)
        except Exception as error:
            raise ExportError(
                f"the {format} file does not take {size} examples: {_reason(error)}"
            ) from error
        if output.shape != expected.shape:
            raise ExportError(
                f"the {format} file gives {tuple(output.shape)} for {size} examples, the network "
                f"{tuple(expected.shape)}"
            )
        relative = relative_difference(expected, output)
        if not relative <= TOLERANCE:  # NaN is refused too
            raise ExportError(
                f"the {format} file's outputs for {size} examples differ from the network's by "
                f"{relative:.2g} of its largest, allowed are {TOLERANCE:g}"
            )
        largest = max(largest, relative)
    return largest


def relative_difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """max|expected - found| / max|expected|; NaN where a value is, infinite over zeros."""
    difference, scale = (tensor.abs().max().item() for tensor in (expected - found, expected))
    return difference / scale if scale else math.inf if difference else 0.0


# ------------------------------------------------------------------------------ torch's talk


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of itself on every export; all other warnings pass."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    for logger in loggers:
        logger.addFilter(_is_no_chatter)
    try:
        with warnings.catch_warnings():
            # torch.export's own copying of its own trees.
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_no_chatter)


_CHATTER = {
    # Operators that no network here has.
    "torch.onnx._internal.exporter._registration": "torchvision is not installed",
    # Said before the error that names the reason.
    "torch.fx.experimental.symbolic_shapes": "Unable to find user code",
}


def _is_no_chatter(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_CHATTER[record.name])


def _reason(error: Exception) -> str:
    """The first lines of what torch says, which can go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"[:600]

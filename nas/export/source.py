"""The text of an exported ``model.py``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.errors import ExportError, nearest
from nas.export import runner
from nas.export.definitions import Definitions
from nas.export.expression import LINE, Code, spell


@dataclass(frozen=True)
class Description:
    """What the head of the file says of the network."""

    space: str
    text: str
    input: tuple[int, ...]
    parameters: int
    macs: int
    preprocessing: Any


def model_source(
    network: nn.Module, dtypes: Collection[torch.dtype], description: Description
) -> str:
    """The whole file: docstring, imports, classes, ``build``, ``load`` and ``main``.

    Args:
        network: what is written; its classes are copied.
        dtypes: of the tensors that the file will read.

    Raises:
        ExportError: something of the network cannot be written as source.
    """
    table = f"{runner.__name__}.DTYPES"
    definitions = Definitions(replaced={table: _dtypes(dtypes)})
    definitions.reserve("build")
    expression = spell(network, definitions)
    definitions.need_import("torch", "nn")
    classes = definitions.parts()
    definitions.need(runner.load)
    definitions.need(runner.main)
    running = definitions.parts()[len(classes) :]
    build = "\n".join(
        [
            "def build() -> nn.Module:",
            '    """The network, with freshly initialised weights."""',
            *expression.prefixed("return ").lines(4),
        ]
    )
    start = 'if __name__ == "__main__":\n    main(build())'
    body = _join([*classes, (build, True), *running, (start, False)])
    gap = "\n\n" if classes and not classes[0][1] else "\n\n\n"
    return _docstring(description) + "\n\n" + definitions.imports() + gap + body + "\n"


def _dtypes(dtypes: Collection[torch.dtype]) -> str:
    """The table of those types alone that the file has to read."""
    for dtype in dtypes:
        if dtype not in runner.DTYPES.values():
            raise ExportError(
                f"a tensor of type {dtype} cannot be exported: "
                f"{nearest(dtype, runner.DTYPES.values())}"
            )
    entries = [f'"{name}": {dtype}' for name, dtype in runner.DTYPES.items() if dtype in dtypes]
    table = Code("DTYPES = ", tuple(map(Code, entries)), "{}")
    return "\n".join(table.lines(0))


def _join(parts: Sequence[tuple[str, bool]]) -> str:
    """Two empty lines around classes and functions, none between constants."""
    text, before = parts[0]
    for part, definition in parts[1:]:
        text += ("\n\n\n" if definition or before else "\n") + part
        before = definition
    return text


def _docstring(description: Description) -> str:
    shape = ", ".join(["N", *map(str, description.input)])
    lines = [
        f"A network of the search space {description.space}, as plain PyTorch.",
        "",
        "Architecture:",
        *_wrapped(description.text, "    "),
        "",
        f"Input: ({shape}), float32.",
        *_preprocessing(description.preprocessing),
        f"Parameters: {description.parameters:,}. MACs, for one example: {description.macs:,}.",
        "",
        "Run this file to check the network against the stored input and output beside it, or",
        "",
        "    from model import build, load",
        "",
        "    model = build()",
        '    model.load_state_dict(load("model.safetensors"))',
        "    model.eval()",
    ]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{text}\n"""'


def _preprocessing(preprocessing: Any) -> list[str]:
    if not preprocessing:
        return []
    if not isinstance(preprocessing, Mapping):
        return _wrapped(f"Preprocessing: {json.dumps(preprocessing, ensure_ascii=False)}", "")
    lines = ["Preprocessing:"]
    for key, value in preprocessing.items():
        lines += _wrapped(f"{key}: {json.dumps(value, ensure_ascii=False)}", "    ")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=LINE,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

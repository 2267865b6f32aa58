"""Writes the examples of exported networks that the docs show: the files as they come out.

    python experiments/exported_examples.py [FOLDER]

The weights are those of seed 0, untrained; only the source is kept.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from nas.export import export
from nas.points import published
from nas.space import network

EXAMPLES = {
    "darts_v2.py": ("darts:DARTS_V2", {"channels": 16, "cells": 8}),
    "mobilenet_v3_small.py": ("mbconv:mobilenet_v3_small", {}),
}


def source(reference: str, settings: dict[str, int]) -> str:
    """The exported source of a published network."""
    space, arch = published(reference, settings)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        export(space, arch, folder, network(space, arch).state_dict())
        return (Path(folder) / "model.py").read_text()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/exported")
    folder.mkdir(parents=True, exist_ok=True)
    for name, (reference, settings) in EXAMPLES.items():
        (folder / name).write_text(source(reference, settings))
        print(folder / name)


if __name__ == "__main__":
    main()

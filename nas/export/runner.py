"""What an exported file does when it is run. Copied word for word, so: torch and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

# By the names that safetensors gives them; an exported file holds only those it reads.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file: the header's length in 8 bytes, the header in JSON, the data."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    data = torch.frombuffer(content, dtype=torch.uint8)[start:]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def main(model: nn.Module) -> None:
    """Loads the weights beside this file, checks the model, prints its size."""
    folder = Path(__file__).parent
    try:
        model.load_state_dict(load(folder / "model.safetensors"))
        check = load(folder / "check.safetensors")
        x, expected = check["input"], check["output"]
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        sys.exit(f"FAILED: model.safetensors or check.safetensors is missing or damaged: {error}")
    model.eval()
    # In this form the counter sees the products of attention too.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(x)
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters()):,}")
    print(f"MACs: {counter.get_total_flops() // 2 // len(x):,}")
    difference = (output - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(f"largest difference from the stored output: {difference:.3g} (of {largest:.3g})")
    if not difference <= 1e-4 * largest:  # not >, which would let NaN pass
        sys.exit("FAILED: the output is not the stored one; are the weights damaged?")

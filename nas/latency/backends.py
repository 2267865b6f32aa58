"""What runs a network when its latency is measured.

``torch`` is PyTorch as it is; ``torch_compile`` its compiler; ``onnxruntime`` an ONNX file on the
CPU, ``onnxruntime_int8`` the same in 8 bits; ``cuda`` PyTorch on the first NVIDIA GPU, waiting for
each result. Blocks with branches for training are merged before they are exported.

In 8 bits, an operation of several inputs (a sum) is measured in floats: ranges are found for one.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import torch
from torch import nn

from nas.errors import ConfigError, ExportError, UnsupportedRequest, nearest
from nas.latency.measure import Protocol
from nas.machine import processor

Run = Callable[[], Any]
Inputs = tuple[torch.Tensor, ...]

CALIBRATION = 16
"""Random inputs that 8-bit ranges are taken from; latency does not depend on what they hold."""


def runner(backend: str, module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    """What runs a module once on these inputs.

    Raises:
        ConfigError: there is no such backend, or what it needs is not installed.
        UnsupportedRequest: the machine has not what it needs.
        ExportError: the module cannot be brought to the backend.
    """
    check(backend, protocol)
    return _RUNNERS[backend](module.eval(), inputs, protocol)


def check(backend: str, protocol: Protocol) -> None:
    """Refuses a backend that is not there; errors as ``runner``'s."""
    if backend not in BACKENDS:
        raise ConfigError(f"there is no backend {backend!r}: {nearest(backend, BACKENDS)}")
    if backend.startswith("onnx"):
        needed = ("onnx", "onnxscript", "onnxruntime")
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"backend {backend!r} needs {', '.join(missing)}: pip install nasforge[deploy]"
            )
    if backend == "cuda":
        if not torch.cuda.is_available():
            raise UnsupportedRequest("backend 'cuda': torch finds no CUDA device here")
        if protocol.clock != "wall":
            raise ConfigError(
                f"backend 'cuda' is measured by the clock 'wall', got {protocol.clock!r}: the "
                "CPU waits for the device"
            )


def nothing(backend: str) -> tuple[nn.Module, Inputs]:
    """What the backend is given to do next to nothing: the cost of a call itself.

    Eager PyTorch has no other cost than its operations'; elsewhere there must be one, on a number.
    """
    return (nn.Identity() if backend == "torch" else nn.ReLU()), (torch.zeros(1, 1),)


def machine(backend: str) -> dict[str, Any]:
    """The machine and the runtime, as JSON."""
    packages = {"torch": "torch", "onnxruntime": "onnxruntime"}
    versions = {"python": platform.python_version()}
    for title, package in packages.items():
        if title == "torch" or backend.startswith("onnx"):
            versions[title] = metadata.version(package)
    found: dict[str, Any] = {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": versions,
    }
    if backend == "cuda":
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def onnx_bytes(module: nn.Module, inputs: Inputs) -> bytes:
    """A module as ONNX with inputs of these very shapes, named ``input``, ``input1``, ….

    Raises:
        ExportError: it cannot be written as ONNX.
    """
    return _exported(module, inputs, None)


def _exported(module: nn.Module, inputs: Inputs, shapes: Any) -> bytes:
    from nas.export.graph import OPSET, quiet
    from nas.export.merge import merge

    names = ["input", *(f"input{number}" for number in range(1, len(inputs)))]
    try:
        with torch.no_grad(), quiet():
            written = torch.onnx.export(
                merge(module).eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                dynamic_shapes=shapes,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__} cannot be written as ONNX: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error
    assert written is not None
    return bytes(written.model_proto.SerializeToString())


# ------------------------------------------------------------------------------------ runners


def _torch(module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    def run() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return run


def _torch_compile(module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    compiled = torch.compile(module)

    def run() -> Any:
        with torch.inference_mode():
            return compiled(*inputs)

    try:
        run()
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__} cannot be compiled: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error
    return run


def _cuda(module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    device = torch.device("cuda")
    there, given = module.to(device), tuple(tensor.to(device) for tensor in inputs)

    def run() -> Any:
        with torch.inference_mode():
            result = there(*given)
        torch.cuda.synchronize()
        return result

    return run


def _onnxruntime(module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    return _session(onnx_bytes(module, inputs), inputs, protocol)


def _onnxruntime_int8(module: nn.Module, inputs: Inputs, protocol: Protocol) -> Run:
    if len(inputs) > 1 or not inputs[0].is_floating_point():
        return _onnxruntime(module, inputs, protocol)
    from nas.export.quantize import quantize

    # The number of examples is open, so that ranges are taken from many at once; torch takes
    # sizes 0 and 1 for constants.
    (given,) = inputs
    content = _exported(module, (torch.cat([given, given]),), ({0: "batch"},))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(CALIBRATION, *given.shape[1:], generator=generator)
    return _session(quantize(content, images.numpy()), inputs, protocol)


def _session(content: bytes, inputs: Inputs, protocol: Protocol) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.threads
    options.inter_op_num_threads = 1
    # Nothing may spin beside what is measured.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"onnxruntime does not read the file: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    named = {
        place.name: tensor.numpy()
        for place, tensor in zip(session.get_inputs(), inputs, strict=True)
    }
    outputs = [place.name for place in session.get_outputs()]
    return lambda: session.run(outputs, named)


_RUNNERS: Mapping[str, Callable[[nn.Module, Inputs, Protocol], Run]] = {
    "torch": _torch,
    "torch_compile": _torch_compile,
    "onnxruntime": _onnxruntime,
    "onnxruntime_int8": _onnxruntime_int8,
    "cuda": _cuda,
}
BACKENDS = tuple(_RUNNERS)

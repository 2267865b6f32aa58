"""Eight-bit integers instead of floats: post-training static quantisation by onnxruntime.

Weights have a scale for each output channel, activations one for each tensor, from the smallest
and largest value that training images give it (onnxruntime's QDQ format, signed on both sides: its
own recommendation). Batch norms that follow a convolution are folded into it; others stay floats,
for which onnxruntime has no integer kernel. What the change costs is measured on the test set.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from nas.data import Data, check_fits
from nas.errors import ConfigError, DataError, ExportError
from nas.export.graph import check_graphs, onnx_session, say_in_onnx
from nas.space import SearchSpace
from nas.training import fetch, reproducible

BATCH = 32
RUNS = 200

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Int8:
    """That a network is wanted in 8 bits too, and what with.

    Args:
        data: whose training images the ranges are taken from, and whose test set the loss of
            accuracy is measured on.
        images: so many training images; all where there are fewer.
    """

    data: Data
    images: int = 256

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError(f"int8: images must be at least 1, got {self.images}")
        if self.data.test is None:
            raise DataError(
                f"data set {self.data.name!r} has no test set, so what int8 loses cannot be told"
            )


def check_int8(wanted: Int8, space: SearchSpace) -> None:
    """Raises before any work where a network of the space cannot be quantised with these data."""
    check_graphs(["onnx"])
    check_fits(wanted.data, space)


def quantized(model: bytes, wanted: Int8) -> tuple[bytes, dict[str, Any]]:
    """An ONNX file as ``export_graph`` writes it, in 8 bits, and what that costs and gains.

    Returns:
        The new file; and a report, as JSON: the calibration, the bytes, the test accuracy and the
        median latency of one example on this CPU with one thread, each before and after.

    Raises:
        ExportError: onnxruntime cannot quantise it.
    """
    assert wanted.data.test is not None
    images = _images(wanted.data.train, wanted.images)
    content = quantize(model, images)
    files = {"float32": model, "int8": content}
    accuracy = {kind: _accuracy(file, wanted.data.test) for kind, file in files.items()}
    latency = _latency_ms(files, images[:1])
    return content, {
        "calibration": {"data": wanted.data.name, "part": "train", "images": len(images)},
        "bytes": {kind: len(file) for kind, file in files.items()},
        "test_images": _length(wanted.data.test),
        "test_accuracy": accuracy,
        "test_accuracy_lost": accuracy["float32"] - accuracy["int8"],
        "latency_ms_on_this_cpu_1_thread": latency,
        "speed_up_on_this_cpu": latency["float32"] / latency["int8"],
    }


def quantize(model: bytes, images: Floats) -> bytes:
    """The 8-bit form of an ONNX file, with ranges from these images (N, …); metadata are kept."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, written = (Path(folder, f"{name}.onnx") for name in ("a", "b", "c"))
        given.write_bytes(model)
        try:
            try:
                quant_pre_process(given, prepared)
            except TypeError:  # its symbolic shapes do not know every operator (ReduceMax)
                quant_pre_process(given, prepared, skip_symbolic_shape=True)
            nodes = onnx.load(prepared, load_external_data=False).graph.node
            quantize_static(
                prepared,
                written,
                _Calibration(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[n.name for n in nodes if n.op_type == "BatchNormalization"],
            )
        except Exception as error:
            raise ExportError(
                f"onnxruntime cannot quantise the network: {type(error).__name__}: {error}"
            ) from error
        result = onnx.load(written)
    del result.metadata_props[:]
    kept = {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
    say_in_onnx(result, {**kept, "quantization": _how(len(images))})
    return bytes(result.SerializeToString(deterministic=True))


def _how(images: int) -> Mapping[str, Any]:
    return {
        "bits": 8,
        "format": "QDQ",
        "weights": "signed, per output channel",
        "activations": "signed, per tensor, smallest to largest",
        "calibration_images": images,
    }


class _Calibration:
    """The images in batches, as onnxruntime asks for them: one by one, then ``None``."""

    def __init__(self, images: Floats) -> None:
        self.batches = iter([images[i : i + BATCH] for i in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch}


def _images(dataset: Dataset[Any], wanted: int) -> Floats:
    """So many of the images, drawn without repeats, always the same."""
    length = _length(dataset)
    chosen = np.random.default_rng(0).permutation(length)[:wanted]
    with reproducible(0, torch.get_num_threads()):
        return fetch(dataset, torch.from_numpy(chosen))[0].numpy()


def _accuracy(model: bytes, dataset: Dataset[Any]) -> float:
    session = onnx_session(model)
    correct = 0
    for images, labels in _batches(dataset):
        logits = session.run(["logits"], {"input": images})[0]
        correct += int((logits.argmax(axis=1) == labels).sum())
    return correct / _length(dataset)


def _batches(dataset: Dataset[Any]) -> Iterator[tuple[Floats, np.ndarray[Any, Any]]]:
    length = _length(dataset)
    with reproducible(0, torch.get_num_threads()):
        for start in range(0, length, 256):
            images, labels = fetch(dataset, torch.arange(start, min(start + 256, length)))
            yield images.numpy(), labels.numpy()


def _latency_ms(files: Mapping[str, bytes], image: Floats) -> dict[str, float]:
    """Median of interleaved runs, so that what else the machine does falls on both alike."""
    sessions = {kind: onnx_session(file) for kind, file in files.items()}
    times: dict[str, list[float]] = {kind: [] for kind in files}
    for _ in range(RUNS):
        for kind, session in sessions.items():
            start = time.perf_counter()
            session.run(["logits"], {"input": image})
            times[kind].append(1000 * (time.perf_counter() - start))
    return {kind: statistics.median(found) for kind, found in times.items()}


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ to the subclass

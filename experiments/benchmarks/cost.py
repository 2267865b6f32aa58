"""Architectures a second: analytic costs against building and counting, fvcore and torch.

    OMP_NUM_THREADS=1 python experiments/benchmarks/cost.py [SPACE …] [--rounds 5] [--json FILE]

Every way is timed once a round on the same new architectures, one after the other, and each is
given as the median over rounds, of its speed and of its ratio to fvcore in the same round. The
space is NAS-Bench-201 with its defaults unless others are named. ``thop`` is not among them; the
hook-based counter below works as it does (a hook a layer type, a forward pass on zeros).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas import encoding
from nas.architecture import Architecture
from nas.components import create
from nas.cost import batch_costs, count, parameters_and_macs, slot_table
from nas.cost.reading import forget, read
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace, network, sample

NO_MACS = ("batch_norm", "adaptive_avg_pool2d", "avg_pool2d", "mean", "add", "mul", "layer_norm")


def on_meta(space: SearchSpace, arch: Architecture) -> nn.Module:
    with torch.device("meta"):
        return network(space, arch)


def build_and_count(space: SearchSpace, arch: Architecture) -> int:
    return count(on_meta(space, arch), space.input).macs


def cold_reading(space: SearchSpace, arch: Architecture) -> int:
    forget()
    return read(space, arch)[1]


def with_fvcore(net: nn.Module, image: torch.Tensor) -> int:
    analysis = FlopCountAnalysis(net, image)
    for name in NO_MACS:
        analysis.set_op_handle(f"aten::{name}", None)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(analysis.total())


def with_torch(net: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(image)
    return int(counter.get_total_flops()) // 2


def with_hooks(net: nn.Module, image: torch.Tensor) -> int:
    total = 0

    def add(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * weight[0].numel()

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return total


def seconds(run: Callable[[Any], int], items: Sequence[Any]) -> tuple[float, list[int]]:
    """An item's mean time, and the multiply-accumulates found."""
    start = time.perf_counter()
    found = [run(item) for item in items]
    return (time.perf_counter() - start) / len(items), found


def measure(space: SearchSpace, rounds: int, each: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    image = torch.zeros(1, *space.input)
    try:
        slot_table(space)
        has_table = True
    except UnsupportedRequest:
        has_table = False
    for _ in range(200):  # a process that has been reading for a while
        read(space, sample(space, rng))
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        archs = [sample(space, rng) for _ in range(each)]
        new = [sample(space, rng) for _ in range(20 * each)]
        nets = [network(space, arch).eval() for arch in archs]
        meta = [on_meta(space, arch).eval() for arch in archs]
        ways: list[tuple[str, Callable[[Any], int], Sequence[Any]]] = [
            ("fvcore on the built network", lambda net: with_fvcore(net, image), nets),
            ("FlopCounterMode on meta", lambda net: with_torch(net, image.to("meta")), meta),
            ("hook-based counter (as thop's)", lambda net: with_hooks(net, image), nets),
            ("building alone", lambda arch: int(bool(network(space, arch))), archs),
            ("building on meta and count", lambda arch: build_and_count(space, arch), archs),
        ]
        if has_table:
            table = ("parameters and MACs, slot table", lambda a: parameters_and_macs(space, a)[1])
            ways.append((*table, new))
        ways += [
            ("all four, reading, new architectures", lambda arch: read(space, arch)[1], new),
            ("all four, reading, met before", lambda arch: read(space, arch)[1], new),
            ("all four, reading, nothing in memory", lambda arch: cold_reading(space, arch), archs),
        ]
        macs: dict[str, list[int]] = {}
        for name, run, items in ways:
            took, macs[name] = seconds(run, items)
            times.setdefault(name, []).append(took)
        assert macs["building on meta and count"] == macs["all four, reading, nothing in memory"]
        for arch in archs:  # what the cold reading forgot
            read(space, arch)
        if has_table and space.name.startswith("nasbench201/"):
            options = [range(len(choice.options)) for choice in space.choices]
            rows = np.array(np.meshgrid(*options, indexing="ij")).reshape(len(options), -1).T
            batch_costs(space, rows[:1])
            start = time.perf_counter()
            found = batch_costs(space, rows)
            took = (time.perf_counter() - start) / len(rows)
            times.setdefault(f"batch of {len(rows):,}, slot table", []).append(took)
            row = encoding.ordinal(space, archs[0])
            position = int(np.flatnonzero((rows == row).all(axis=1))[0])
            assert found.macs[position] == macs["building on meta and count"][0]
    reference = times["fvcore on the built network"]
    return {
        name: {
            "microseconds": statistics.median(took) * 1e6,
            "per_second": 1 / statistics.median(took),
            "times_fvcore": statistics.median(
                slow / fast for slow, fast in zip(reference, took, strict=True)
            ),
            "times_hooks": statistics.median(
                slow / fast
                for slow, fast in zip(times["hook-based counter (as thop's)"], took, strict=True)
            ),
        }
        for name, took in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("spaces", nargs="*", default=["nasbench201"], metavar="SPACE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=5, help="architectures a round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # fvcore still traces with torch.jit
    torch.set_num_threads(1)
    results = {}
    for name in arguments.spaces:
        space: SearchSpace = create("spaces", {"name": name}, name)
        results[name] = measure(space, arguments.rounds, arguments.each)
        print(f"{name}\n{'':40}{'µs each':>12}{'a second':>14}{'× fvcore':>14}{'× hooks':>12}")
        for way, row in results[name].items():
            print(
                f"{way:40}{row['microseconds']:12,.2f}{row['per_second']:14,.0f}"
                f"{row['times_fvcore']:14,.1f}{row['times_hooks']:12,.1f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Measures the ONNX files of a pack here: ``python run.py [--threads N] [--out FILE]``.

It needs Python 3.8 or later, numpy and onnxruntime, and nothing else. Bring back results.json.
Started again it goes on where it was; --again forgets what was measured.
"""

# This file goes to the device as it is, so it imports nothing of the project. The protocol is that
# of nas.latency.measure, written out: rounds over a group of files, untimed calls before each
# sample, outliers rejected, until the interval of every median is tight or time is up.

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

FORMAT, VERSION = "nasforge latency results", 1
MANIFEST = "manifest.json"
GROUP = 32
KINDS = ("operations", "networks")
BESIDE = ("nothing", "reference")
FAR, LEAST, SIGMA, LEAST_SAMPLES = 5.0, 0.01, 1.4826, 9
CLOCKS = {"wall": time.perf_counter, "cpu": getattr(time, "thread_time", time.process_time)}


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
        manifest = json.load(file)
    if options.clock == "cpu" and options.threads > 1:
        sys.exit("the clock 'cpu' counts one thread's time: use --clock wall with --threads")
    # Before numpy and onnxruntime are imported: their threads are settled then.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    settings = {
        "clock": options.clock,
        "threads": options.threads,
        "batch": manifest["batch"],
        "warmup": options.warmup,
        "sample_ms": options.sample_ms,
        "half_width": options.half_width,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    results = {
        "format": FORMAT,
        "version": VERSION,
        "pack": manifest["id"],
        "settings": settings,
        "machine": machine(options.device),
        "groups": [],
    }
    if os.path.exists(options.out) and not options.again:
        results = earlier(options.out, results)
    measured = {(kind, key) for group in results["groups"] for kind in KINDS for key in group[kind]}
    work = [
        (kind, entry["key"], entry["file"])
        for kind in KINDS
        for entry in manifest[kind]
        if (kind, entry["key"]) not in measured
    ]
    total = len(measured) + len(work)
    began = time.monotonic()
    for start in range(0, len(work), GROUP):
        group = work[start : start + GROUP]
        # Beside every group: what a call costs by itself, and a network that tells how fast the
        # device is just then.
        named = [("beside", name, manifest[name]) for name in BESIDE] + group
        calls = {
            (kind, key): call(os.path.join(folder, file), options.threads)
            for kind, key, file in named
        }
        timings = measure(calls, options)
        found: dict[str, dict[str, Any]] = {kind: {} for kind in ("beside", *KINDS)}
        for (kind, key), timing in timings.items():
            found[kind][key] = timing
        results["groups"].append(found)
        write(options.out, results)
        done = total - len(work) + start + len(group)
        left = (time.monotonic() - began) / (start + len(group)) * (len(work) - start - len(group))
        loose = sum(not timing["tight"] for timing in timings.values())
        note = f", {loose} not tight" if loose else ""
        print(f"{done} of {total} measured{note}, {left:.0f} s left", flush=True)
    print(f"written: {options.out}")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="results.json")
    parser.add_argument("--device", default="", help="its name, for people")
    parser.add_argument("--threads", type=positive(int), default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--warmup", type=positive(int), default=2, help="untimed calls a sample")
    parser.add_argument("--sample-ms", type=positive(float), default=0.5, help="a sample's least")
    parser.add_argument("--half-width", type=positive(float), default=0.01, help="that is tight")
    parser.add_argument("--rounds", type=positive(int), default=20, help="samples at least")
    parser.add_argument("--seconds", type=positive(float), default=2.0, help="at most, each")
    parser.add_argument("--again", action="store_true", help="forget what was measured")
    return parser.parse_args(arguments)


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not (math.isfinite(value) and value > 0):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return read


def earlier(path: str, results: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, if it was the same pack in the same way on the same machine."""
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
        same = all(
            found[key] == results[key]
            for key in ("format", "version", "pack", "settings", "machine")
        )
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is damaged ({error!r}): remove it, or use --again")
    if not same:
        sys.exit(
            f"{path} is of another pack, machine or of other settings: use another --out, "
            "or --again"
        )
    return found


def machine(device: str) -> dict[str, Any]:
    import numpy
    import onnxruntime

    found = {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    if device:
        found["device"] = device
    return found


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.lower().startswith(("model name", "hardware")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def call(path: str, threads: int) -> Callable[[], Any]:
    """What runs a file once on random inputs."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = numpy.random.default_rng(0)
    given = {}
    for place in session.get_inputs():
        if "float" in place.type:
            given[place.name] = rng.standard_normal(place.shape).astype(numpy.float32)
        else:
            given[place.name] = numpy.zeros(place.shape, numpy.int64)
    outputs = [place.name for place in session.get_outputs()]
    return lambda: session.run(outputs, given)


def measure(calls: dict[Any, Callable[[], Any]], options: argparse.Namespace) -> dict[Any, Any]:
    tick = CLOCKS[options.clock]
    samples: dict[Any, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, run in calls.items():
        for _ in range(max(3, options.warmup)):
            run()
        start = tick()
        run()
        once = 1000 * (tick() - start)
        repeats[name] = 1000
        if once > 0:
            repeats[name] = max(1, min(1000, math.ceil(options.sample_ms / once)))
    waiting = dict(calls)
    until = time.monotonic() + options.seconds * len(calls)
    while waiting:
        for name, run in waiting.items():
            for _ in range(options.warmup):
                run()
            start = tick()
            for _ in range(repeats[name]):
                run()
            samples[name].append(1000 * (tick() - start) / repeats[name])
        for name in list(waiting):
            many = len(samples[name])
            due = many >= options.rounds and many % 5 == 0
            if due and summary(samples[name], options.half_width)["tight"]:
                del waiting[name]
        if time.monotonic() >= until:
            break
    return {name: summary(found, options.half_width) for name, found in samples.items()}


def summary(samples: list[float], half_width: float) -> dict[str, Any]:
    """Median, percentiles and whether the median is tight, without outliers; milliseconds."""
    middle = statistics.median(samples)
    deviation = SIGMA * statistics.median([abs(value - middle) for value in samples])
    reach = FAR * max(deviation, LEAST * middle)
    kept = sorted(value for value in samples if abs(value - middle) <= reach)
    median = statistics.median(kept)
    share = 1.0
    if len(kept) >= LEAST_SAMPLES and median > 0:
        half = 0.98 * math.sqrt(len(kept))
        low = max(0, math.floor(len(kept) / 2 - half) - 1)
        high = min(len(kept) - 1, math.ceil(len(kept) / 2 + half))
        share = (kept[high] - kept[low]) / 2 / median
    return {
        "ms": median,
        "p10": percentile(kept, 0.1),
        "p90": percentile(kept, 0.9),
        "samples": len(kept),
        "rejected": len(samples) - len(kept),
        "half_width": share,
        "tight": share <= half_width,
    }


def percentile(ordered: list[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def write(path: str, results: dict[str, Any]) -> None:
    """Whole or not at all: a run that is killed loses the group it was at."""
    part = path + ".part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(results, file)
    os.replace(part, path)


if __name__ == "__main__":
    main()

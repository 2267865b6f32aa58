"""FBNet and ProxylessNAS with a latency limit and with half of it, on a small MBConv space.

Measures what each option of each slot takes on this machine, searches with that table for both
limits, retrains what is found shortly from new weights, and measures its latency.

    python experiments/latency_targets.py
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Subset

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.data import Data, fashion_mnist
from nas.objective import maximize, minimize
from nas.space import SearchSpace, network
from nas.supernet import Supernet
from nas.training import reproducible, retrain
from search_spaces.mbconv import MBConv, Stage
from strategies import fbnet, proxyless
from strategies.resource import ResourceTable, resource_table

OPERATIONS = (*(f"ir_k{kernel}_e{e}" for e in (3, 6) for kernel in (3, 5, 7)), "skip")

MICROSECOND = 1e-3
"""In milliseconds: what FBNet's logarithm counts in. In ms, networks as small as these would be
under a pressure that leaves nothing but skips."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1500, help="to train on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="of FBNet (%(default)s)")
    parser.add_argument("--path-epochs", type=int, default=9, help="of ProxylessNAS (%(default)s)")
    parser.add_argument("--retrain", type=int, default=6, help="epochs (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images timed (%(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="of measurements (%(default)s)")
    parser.add_argument("--limit", type=float, help="in ms; that of equal weights if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder")
    parser.add_argument("--out", type=Path, default=Path("runs/latency_targets"))
    parser.add_argument("--table", type=Path, default=Path("docs/results/latency_targets.md"))
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    torch.set_num_threads(1)

    data = first(fashion_mnist(options.data), options.images)
    space = mobile(data)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "latency_ms.json"
    path.write_text(json.dumps(measured(space, options.batch, options.rounds), indent=1))
    slots = Supernet(space).slots
    table = resource_table(space, str(path), slots)
    even = table.base + sum(statistics.mean(costs.values()) for costs in table.slots.values())
    limit = even if options.limit is None else options.limit
    print(f"table: {table.least():.2f} ms to {greatest(table):.2f} ms; limit {limit:.2f} ms")

    found: dict[tuple[str, float], Architecture] = {}
    for name in ("FBNet", "ProxylessNAS"):
        for bound in (limit, limit / 2):
            start = time.perf_counter()
            found[name, bound] = searched(name, space, data, str(path), bound, options)
            seconds = time.perf_counter() - start
            print(f"{name} ≤ {bound:.2f} ms, {seconds:.0f} s: {found[name, bound]}", flush=True)
    networks = {key: network(space, arch).eval() for key, arch in found.items()}
    latency = timed(
        {key: running(built, (options.batch, *space.input)) for key, built in networks.items()},
        options.rounds,
    )
    rows = []
    for (name, bound), arch in found.items():
        trained = retrain(space, arch, data, epochs=options.retrain, seed=options.seed)
        assert trained.test_accuracy is not None
        runs = sorted(latency[name, bound])
        rows.append(
            [
                name,
                f"{bound:.2f}",
                f"{table.total(space.slots(arch)):.2f}",
                f"{statistics.median(runs):.2f} ({runs[len(runs) // 4]:.2f} to "
                f"{runs[3 * len(runs) // 4]:.2f})",
                f"{architecture_cost(space, arch).macs:,}",
                f"{100 * trained.test_accuracy:.1f}",
                " ".join(option.removeprefix("ir_") for option in space.slots(arch).values()),
            ]
        )
        print(rows[-1], flush=True)
    command = shlex.join(["python", "experiments/latency_targets.py", *sys.argv[1:]])
    text = report(rows, options, table, command, time.perf_counter() - began)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(text)
    print(text)


def first(data: Data, images: int) -> Data:
    """The same data with so many images to train on."""
    return replace(data, train=Subset(data.train, torch.arange(images)), source=None)  # type: ignore[arg-type]  # a tensor indexes at once


def mobile(data: Data) -> SearchSpace:
    """ProxylessNAS's operations in nine blocks, six of which may be skipped."""
    layout = (
        Stage(OPERATIONS, (8,), (1,), 2),
        Stage(OPERATIONS, (16,), (5,), 1),
        Stage(OPERATIONS, (32,), (3,), 2),
    )
    return MBConv(
        layout,
        stem=4,
        head=64,
        widths=(100,),
        dropout=0.0,
        classes=data.classes,
        input=data.input,
    )


# ------------------------------------------------------------------------------ latencies


def timed(calls: Mapping[object, Callable[[], object]], rounds: int) -> dict[object, list[float]]:
    """Milliseconds of each call, in rounds over all of them, so that load hits all alike.

    Of the one thread that computes, as the processor counts them: waiting while other processes
    have the core is none of a network's time.
    """
    runs: dict[object, list[float]] = {key: [] for key in calls}
    with torch.inference_mode():
        for number in range(rounds + 3):
            for key, call in calls.items():
                start = time.thread_time()
                call()
                if number >= 3:
                    runs[key].append(1000 * (time.thread_time() - start))
    return runs


def running(module: nn.Module, shape: tuple[int, ...]) -> Callable[[], object]:
    x = torch.randn(shape)
    return lambda: module(x)


def measured(space: SearchSpace, batch: int, rounds: int) -> dict[str, object]:
    """The table of a space, by what one other option adds to the network of skips.

    Options are timed where they are used rather than alone: alone, their data are in the cache.
    """
    with reproducible(0, 1):
        supernet = Supernet(space).eval()
        cheapest = {
            label: "skip" if "skip" in options else options[0]
            for label, options in supernet.slots.items()
        }
        calls: dict[object, Callable[[], object]] = {}
        for label, options in supernet.slots.items():
            for option in options:
                held = {**cheapest, label: option}
                arch = Architecture(
                    space.name,
                    tuple((choice.label, held[choice.label]) for choice in space.choices),
                )
                built = supernet.network(arch)
                calls[label, option] = running(built, (batch, *space.input))
        runs = {key: statistics.median(times) for key, times in timed(calls, rounds).items()}
    base = statistics.median(runs[label, option] for label, option in cheapest.items())
    table: dict[str, object] = {
        label: {option: max(runs[label, option] - base, 0.0) for option in options}
        for label, options in supernet.slots.items()
    }
    return {"base": base, **table}


def greatest(table: ResourceTable) -> float:
    return table.base + sum(max(costs.values()) for costs in table.slots.values())


# ------------------------------------------------------------------------------- searches


def searched(
    name: str,
    space: SearchSpace,
    data: Data,
    path: str,
    limit: float,
    options: argparse.Namespace,
) -> Architecture:
    """What a strategy proposes at its end, under a limit in milliseconds."""
    objectives = (maximize("accuracy"), minimize("latency_ms", limit=limit))
    strategy: fbnet.Fbnet | proxyless.Proxyless
    if name == "FBNet":
        settings = replace(
            fbnet.SETTINGS, epochs=options.epochs, warmup_epochs=1, batch_size=32, arch_lr=0.05
        )
        strategy = fbnet.Fbnet(
            space, objectives, data, options.seed, settings, resource=path, unit=MICROSECOND
        )
    else:
        settings = replace(
            proxyless.SETTINGS,
            epochs=options.path_epochs,
            warmup_epochs=options.path_epochs // 4,
            batch_size=32,
            arch_lr=0.02,
        )
        strategy = proxyless.Proxyless(
            space,
            objectives,
            data,
            options.seed,
            settings,
            resource=path,
            target=limit,
            form="add",
            share=0.8,
        )
    arch: Architecture | None = None
    while proposals := strategy.ask(1):
        arch = proposals[0].arch
    assert arch is not None
    return arch


# --------------------------------------------------------------------------------- report


def report(
    rows: list[list[str]],
    options: argparse.Namespace,
    table: ResourceTable,
    command: str,
    seconds: float,
) -> str:
    """The table with how it was made, as Markdown."""
    head = [
        "strategy",
        "limit, ms",
        "by the table, ms",
        "measured, ms (quartiles)",
        "MACs",
        "test accuracy, %",
        "blocks",
    ]
    lines = [head, ["---"] * len(head), *rows]
    return f"""# A latency limit, and half of it

FBNet and ProxylessNAS search a small MBConv space on Fashion-MNIST with a table of latencies
measured on the machine they run on.

{chr(10).join("| " + " | ".join(line) + " |" for line in lines)}

- Space: nine blocks of kernel 3, 5, 7 and expansion 3, 6, of which six may be skipped;
  {table.least():.2f} ms to {greatest(table):.2f} ms by the table.
- Latency: {options.batch} images in eager PyTorch {torch.__version__} on one CPU thread, whose own
  time is counted (other work ran on the machine at the same time); medians of {options.rounds}
  rounds, in each of which everything is run once.
- The table: what a network of skips (and the first operation where a block has none) takes, and
  what each other option in the place of one block adds to it.
- The larger limit is the expected latency of equal weights. It is kept by the table's sums; a
  measurement may differ from it.
- Search: {options.images:,} training images, FBNet {options.epochs} epochs (θ's learning rate
  0.05, latency in µs), ProxylessNAS {options.path_epochs} epochs (α's 0.02, the additive loss with
  the limit as its target), batch 32, otherwise the papers' settings; a single seed.
- Accuracy: after {options.retrain} epochs from new weights on the same images. It tells that the
  networks learn, not what they reach.
- {seconds:.0f} s in all, Python {platform.python_version()}.

```
{command}
```

The limit acts where an architecture is proposed: options lose in proportion to their latency
until the sum keeps it. FBNet's loss has no target of its own, so its two searches are the same
until then; ProxylessNAS's additive loss pushes harder for the smaller target as well.
"""


if __name__ == "__main__":
    main()

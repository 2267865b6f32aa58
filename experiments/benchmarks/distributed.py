"""What a search costs on Ray: overhead, busy workers, 100,000 trials, a machine that dies.

    OMP_NUM_THREADS=1 python experiments/benchmarks/distributed.py --out FILE.json
        [--part overhead|throughput|long|nodes …] [--quick] [--again] [--page PAGE.md]

- ``overhead``: milliseconds a no-op trial, with retries and the journal on: in one process, on
  Ray, and under Ray Tune with ``reuse_actors=True`` on the same Ray, rounds in turn; and which
  functions the driver spends its time in.
- ``throughput``: 1, 2, 4 and 8 workers whose trials sleep 0.1 to 1 s: how much of the time they
  are at work.
- ``long``: 100,000 trials in one search: time and memory by tenths, the size of its files, and
  how long resuming takes.
- ``nodes``: three machines (raylets on 127.0.0.x), one of them killed after a third of the trials.

A part that is in FILE.json already is not measured again without ``--again``. All of it takes
about ten minutes on two cores; ``--quick`` takes a minute and shows that it works, no more.
``--page`` writes the page and its pictures from FILE.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed_long
import distributed_nodes
import distributed_overhead
import distributed_page
from distributed_work import leave_the_scripts_folder
from rich.console import Console

from nas.errors import DataError
from nas.history import write_file
from nas.machine import machine

FORMAT = 1


def main() -> None:
    leave_the_scripts_folder()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--part", nargs="*", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work?")
    parser.add_argument("--again", action="store_true", help="also parts that are there already")
    parser.add_argument("--page", type=Path, metavar="PAGE.md")
    parser.add_argument("--table", default="digits", help="that evolution looks cells up in")
    parser.add_argument("--dataset", help="of the table, where it has several")
    options = parser.parse_args()
    console = Console()
    document = _read(options.out, options.quick)
    for part in options.part:
        if part in document["parts"] and not options.again:
            console.print(f"{part}: in {options.out} already")
            continue
        start = time.perf_counter()
        print(f"{part}: …", file=sys.stderr, flush=True)
        found = PARTS[part](options)
        document["parts"][part] = {
            **found,
            "machine": machine(),
            "taken": time.strftime("%Y-%m-%d"),
            "took_s": time.perf_counter() - start,
        }
        write_file(options.out, (json.dumps(document, indent=1) + "\n").encode())
    for table in distributed_page.tables(document["parts"]):
        console.print(table)
    if options.page is not None:
        distributed_page.write(options.page, document["parts"])
        console.print(f"page: {options.page}")


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "overhead": lambda options: distributed_overhead.measure_overhead(options.quick),
    "throughput": lambda options: distributed_overhead.measure_throughput(options.quick),
    "long": lambda options: distributed_long.measure(options.quick, options.table, options.dataset),
    "nodes": lambda options: distributed_nodes.measure(options.quick),
}


def _read(path: Path, quick: bool) -> dict[str, Any]:
    if not path.exists():
        return {"format": FORMAT, "quick": quick, "parts": {}}
    try:
        document = json.loads(path.read_text())
        known = document["format"] == FORMAT and isinstance(document["parts"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not what this benchmark writes: {error!r}") from error
    if not known or document.get("quick") != quick:
        raise DataError(
            f"{path} is of format {document['format']}, quick: {document.get('quick')}; expected "
            f"{FORMAT} and {quick}. Write to another file"
        )
    return dict(document)


if __name__ == "__main__":
    main()

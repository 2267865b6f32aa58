"""Tables and pictures of what ``distributed.py`` measured; the page is written from its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.history import write_file

Parts = Mapping[str, Any]
Rows = list[Sequence[str]]
MB = 1e6


def overhead(part: Mapping[str, Any]) -> tuple[Rows, Rows]:
    """The rows of times, and those of where the driver's time goes."""
    driver = part["driver_milliseconds"]
    names = {
        "serial": "in one process",
        "ray": f"on Ray, {part['workers']} workers",
        "alone": f"tasks of Ray alone, {part['workers']} workers",
        "tune": f"Ray Tune, {part['workers']} workers, `reuse_actors=True`",
    }
    rows: Rows = [("ms a no-op trial", "median", "rounds", "trials a round")]
    for name, title in names.items():
        times = part["milliseconds"][name]
        each = ", ".join(f"{value:.2f}" for value in times)
        rows.append((title, f"{part['median'][name]:.2f}", each, f"{part['trials'][name]:,}"))
    each = ", ".join(f"{value:.2f}" for value in driver)
    processor = (f"{part['driver_median']:.2f}", each, f"{part['trials']['ray']:,}")
    rows.insert(3, ("of it the driver's processor time", *processor))
    spent: Rows = [("function", "ms a trial", "calls a trial")]
    for row in part["profile"]:
        spent.append((f"`{row['where']}`", f"{row['ms']:.3f}", f"{row['calls']:.1f}"))
    return rows, spent


def throughput(part: Mapping[str, Any]) -> Rows:
    rows: Rows = [("workers", "busy", "lowest of rounds", "trials a second")]
    for count, busy in part["busy"].items():
        lowest = min(row["busy"] for row in part["rounds"] if str(row["workers"]) == count)
        rate = part["trials_a_second"][count]
        rows.append((count, f"{busy:.1%}", f"{lowest:.1%}", f"{rate:.2f}"))
    return rows


def long(part: Mapping[str, Any]) -> tuple[Rows, Rows, Rows]:
    """Milliseconds by tenths, memory by tenths, and files and resuming."""
    titles = [row["title"] for row in part["rows"]]
    times: Rows = [("tenth of the trials", *titles)]
    memory: Rows = [("bytes a trial after", *titles)]
    steps = [_tenths(row["points"]) for row in part["rows"]]
    for tenth in range(len(steps[0])):
        times.append((str(tenth + 1), *(f"{s[tenth][0]:.3f} ({s[tenth][1]:.3f})" for s in steps)))
        points = [row["points"][tenth] for row in part["rows"]]
        memory.append((f"{tenth + 1}/10", *(f"{p['bytes'] / p['trials']:,.0f}" for p in points)))
    files: Rows = [
        (
            "search",
            "trials",
            "journal, bytes a trial",
            "snapshot, MB",
            "opened in s",
            "first new trial after s",
            "the same without a snapshot",
            "held, MB",
        )
    ]
    for row in part["rows"]:
        cells = [f"{row['trials']:,}", f"{row['journal_bytes_a_trial']:,.0f}"]
        cells.append(f"{row['snapshot_bytes'] / MB:.2f}")
        if "resumed" in row:
            again = row["resumed"]
            cells += [f"{again['open_s']:.1f}", f"{again['first_trial_s']:.2f}"]
            cells += [f"{row['replayed']['first_trial_s']:.1f}", f"{again['bytes'] / MB:.0f}"]
        files.append((row["title"], *cells, *["–"] * (7 - len(cells))))
    return times, memory, files


def _tenths(points: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    """Milliseconds a trial of the clock and of the processor, from each point to the next."""
    found, before = [], {"trials": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    for point in points:
        count = point["trials"] - before["trials"]
        found.append(
            (
                1000 * (point["seconds"] - before["seconds"]) / count,
                1000 * (point["cpu_seconds"] - before["cpu_seconds"]) / count,
            )
        )
        before = dict(point)
    return found


def nodes(part: Mapping[str, Any]) -> Rows:
    calm, killed = part["undisturbed"], part["killed"]
    rows: Rows = [("three machines", "undisturbed", f"one killed after {killed['killed_after']}")]
    for title, key in (("trials measured", "measured"), ("lost", "lost"), ("twice", "twice")):
        rows.append((title, str(calm[key]), str(killed[key])))
    rows.append(("seconds", f"{calm['seconds']:.1f}", f"{killed['seconds']:.1f}"))
    rows.append(
        (
            "longest time without a trial, s",
            f"{calm['longest_gap_s']:.2f}",
            f"{killed['longest_gap_s']:.2f}",
        )
    )
    rates = f"{killed['rate_before']:.2f} before, {killed['rate_after']:.2f} after"
    rows.append(("trials a second", f"{part['trials'] / calm['seconds']:.2f}", rates))
    return rows


def on_paper(parts: Parts) -> Rows:
    """What one search would ask of its driver on large clusters, by the figures of the parts."""
    driver_ms = parts["overhead"]["driver_median"]
    row = next(r for r in parts["long"]["rows"] if "resumed" in r and "random" in r["title"])
    held = row["points"][-1]["bytes"] / row["points"][-1]["trials"]
    opened = row["resumed"]["open_s"] / row["trials"]
    rows: Rows = [
        (
            "GPUs, a trial each",
            "trial",
            "trials a second",
            "driver busy",
            "journal a day, MB",
            "memory a day, MB",
            "opening a day's run, s",
        )
    ]
    lengths = ((10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"))
    for workers in (64, 1000):
        for seconds, text in lengths:
            rate = workers / seconds
            day = 86_400 * rate
            rows.append(
                (
                    f"{workers:,}",
                    text,
                    f"{rate:,.2f}",
                    f"{rate * driver_ms / 1000:.1%}",
                    f"{day * row['journal_bytes_a_trial'] / MB:,.0f}",
                    f"{day * held / MB:,.0f}",
                    f"{day * opened:,.0f}",
                )
            )
    return rows


def tables(parts: Parts) -> list[Table]:
    """All tables of the parts that are there, for the terminal."""
    found = []
    if "overhead" in parts:
        found += [_table(rows) for rows in overhead(parts["overhead"])]
    if "throughput" in parts:
        found.append(_table(throughput(parts["throughput"])))
    if "long" in parts:
        found += [_table(rows) for rows in long(parts["long"])]
    if "nodes" in parts:
        found.append(_table(nodes(parts["nodes"])))
    return found


def _table(rows: Rows) -> Table:
    table = Table()
    for place, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if place else "left")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _markdown(rows: Rows) -> str:
    lines = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -------------------------------------------------------------------------------- the page

PAGE = """\
# What a search costs on Ray

Written by the benchmark from what it measured; what follows from it for large clusters is in
[scaling.md](../scaling.md).

## A trial that does nothing

{overhead}

Milliseconds of the clock, with retries and the journal on, no other work in the trial; {workers}
trials at a time, after the first tenth of them. Tune ran on the same Ray, rounds in turn; a trial
of its takes {ratio:.0f} times as long (median of the rounds' ratios).

Where the driver's own process spends it, on Ray (cProfile, which adds to it; `wait` is for the
workers):

{profile}

## Workers that are busy

Trials sleep {least:g} to {most:g} s. Busy is the share of their time that workers work, from when
all have begun to the last that begins; median of {rounds} rounds.

{throughput}

## {trials:,} trials in one search

Milliseconds a trial, of the clock and (in brackets) of the processor, by tenths of the search.
Evolution looks cells up in the table `{table}` with two objectives; random search draws DARTS cells
and a score is made up. The Ray column has {fewer:,} trials.

![time and memory by tenths]({picture})

{times}

What the process holds more than after its first trials:

{memory}

The files, and resuming:

{files}

## A machine that dies

{nodes_count} raylets on one machine, {cpus} CPUs each, {node_trials} trials of {node_least:g} to
{node_most:g} s. The raylet is killed with SIGKILL; nothing tells the cluster but its silence.

{nodes}

The search took {slowdown:.2f} times as long. From then on two thirds of the machines are left.

## On paper: one search on large clusters

Every figure follows from those above: the driver's processor time a trial on Ray, and the journal,
the memory and the opening of the run of random search.

{paper}

{machine}

```
OMP_NUM_THREADS=1 python experiments/benchmarks/distributed.py --out FILE.json --page PAGE.md
```
"""


def write(page: Path, parts: Parts) -> None:
    """The page and its picture beside it; every part has to be there."""
    missing = {"overhead", "throughput", "long", "nodes"} - set(parts)
    if missing:
        raise SystemExit(f"no page yet: {', '.join(sorted(missing))} not measured")
    picture = page.with_name(f"{page.stem}_long.png")
    write_file(picture, long_png(parts["long"]))
    write_file(page, page_text(parts, picture.name).encode())


def page_text(parts: Parts, picture: str) -> str:
    rows, profile = overhead(parts["overhead"])
    times, memory, files = long(parts["long"])
    trials = [row["trials"] for row in parts["long"]["rows"]]
    part = parts["nodes"]
    busy = parts["throughput"]
    return PAGE.format(
        overhead=_markdown(rows),
        workers=parts["overhead"]["workers"],
        ratio=parts["overhead"]["ratio"],
        profile=_markdown(profile),
        least=busy["least_s"],
        most=busy["most_s"],
        rounds=len(busy["rounds"]) // len(busy["busy"]),
        throughput=_markdown(throughput(busy)),
        trials=max(trials),
        fewer=min(trials),
        table=parts["long"]["table"],
        picture=picture,
        times=_markdown(times),
        memory=_markdown(memory),
        files=_markdown(files),
        nodes_count="Three" if part["nodes"] == 3 else part["nodes"],
        cpus=part["cpus_a_node"],
        node_trials=part["trials"],
        node_least=part["least_s"],
        node_most=part["most_s"],
        nodes=_markdown(nodes(part)),
        slowdown=part["slowdown"],
        paper=_markdown(on_paper(parts)),
        machine=_machine(parts),
    )


def _machine(parts: Parts) -> str:
    found = parts["overhead"]["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    dates = sorted({part["taken"] for part in parts.values()})
    return (
        f"Measured on {found['cpu']}, {found['cores']} cores, "
        f"{found['memory_bytes'] / 2**30:.0f} GiB; {versions}; {' and '.join(dates)}. Other work "
        "ran on the machine at the same time wherever clock and processor differ."
    )


def long_png(part: Mapping[str, Any]) -> bytes:
    """Milliseconds a trial and memory over the trials of each search."""
    import io

    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for row, colour in zip(part["rows"], ("#30638e", "#d1495b", "#66a182"), strict=True):
        trials = [point["trials"] for point in row["points"]]
        steps = _tenths(row["points"])
        left.plot(trials, [cpu for _, cpu in steps], "o-", color=colour, label=row["title"])
        left.plot(trials, [clock for clock, _ in steps], ":", color=colour)
        held = [point["bytes"] for point in row["points"]]
        right.plot(trials, held, "o-", color=colour)
    left.set(xlabel="trials", ylabel="ms a trial", ylim=(0, None), title="processor, clock dotted")
    right.set(xlabel="trials", ylabel="memory", ylim=(0, None), title="held by the driver")
    right.yaxis.set_major_formatter(EngFormatter("B"))
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

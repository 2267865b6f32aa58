"""The command line. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nas.errors import ConfigError, NasError

if TYPE_CHECKING:
    from nas.config import Run
    from nas.history import History
    from nas.objective import Objective
    from nas.space import SearchSpace

app = typer.Typer(
    name="nas",
    help="Neural architecture search for networks that are small, fast and accurate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Into a file or a pipe, a table has the width it needs rather than that of no terminal.
out_console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err_console = Console(stderr=True, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Best = Annotated[str | None, typer.Option(metavar="METRIC", help="The best trial in this metric.")]
Number = Annotated[int | None, typer.Option("--trial", help="The trial of this number instead.")]
OutFolder = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write.")]


@app.command()
def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    settings: Settings = None,
    out: OutFolder = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="serial or ray, over the configuration's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search as a configuration file says, into a run folder."""
    from nas import config as configuration
    from nas.history import History

    document = configuration.read(config)
    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    run = configuration.build(configuration.change(document, changes))
    folder = out or Path("runs") / config.stem
    history = History(folder)
    if history.header is not None:
        raise ConfigError(
            f"{folder} holds a run already: continue it with 'nas resume {folder}', or choose "
            "another folder with --out"
        )
    _search(run, history, as_json)


@app.command()
def resume(
    folder: RunFolder,
    settings: Settings = None,
    executor: Annotated[str | None, typer.Option(metavar="NAME", help="serial or ray.")] = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed (--set budget.… or executor.… may change)."""
    from nas import config as configuration

    history = _history(folder)
    header = history.header or {}
    open_keys = {key: header[key] for key in ("budget", "executor")}
    changes = list(settings or []) + ([f"executor={executor}"] if executor else [])
    for change in changes:
        if change.split("=")[0].split(".")[0] not in open_keys:
            raise ConfigError(
                f"--set {change}: a run is continued with the settings it was started with; only "
                "budget and executor may change"
            )
    changed = configuration.change(open_keys, changes)
    run = configuration.from_header(header, changed["executor"], changed["budget"])
    _search(run, history, as_json)


@app.command()
def show(folder: RunFolder, as_json: Json = False) -> None:
    """The Pareto front of a run, the best, and the failures with their causes."""
    from nas import report

    history = _history(folder)
    space, objectives = _known(history)
    if as_json:
        _print_json(report.run_document(history, space, objectives))
    else:
        report.print_run(out_console, history, space, objectives)


@app.command("list")
def list_components(
    kind: Annotated[str, typer.Argument(metavar="spaces|strategies|evaluators|…")],
    as_json: Json = False,
) -> None:
    """What is installed, with one line each."""
    from nas import registry
    from nas.errors import nearest

    if kind not in registry.KINDS:
        raise ConfigError(f"there is no kind {kind!r}: {nearest(kind, registry.KINDS)}")
    chosen = registry.KINDS[registry.KINDS.index(kind)]  # the same, as the type checker sees it
    lines: dict[str, str] = {}
    for name in registry.names(chosen):
        try:
            lines[name] = registry.summary(chosen, name)
        except ConfigError as error:  # one broken plug-in does not hide the others
            lines[name] = f"broken: {error}"
    if as_json:
        _print_json(lines)
        return
    for name, line in lines.items():
        out_console.print(f"{name:<24} {line}", markup=False)


@app.command()
def cost(
    space_name: Annotated[str, typer.Argument(metavar="SPACE")],
    arch: Annotated[
        str | None,
        typer.Option(metavar="STRING|FILE", help="An architecture, in text or in a JSON file."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Parameters, MACs and peak activation memory, of an architecture or of a random sample."""
    from nas import report
    from nas.components import create
    from nas.config import change
    from nas.cost import architecture_cost

    text, arguments = _read_architecture(arch) if arch is not None else ("", {})
    description = change({"name": space_name, **arguments}, settings or [])
    space: SearchSpace = create("spaces", description, "space")
    if arch is None:
        import numpy as np

        from nas.space import sample

        rng = np.random.default_rng(0)
        costs = [vars_of(architecture_cost(space, sample(space, rng))) for _ in range(100)]
        spread = {
            key: {
                "min": min(c[key] for c in costs),
                "median": int(np.median([c[key] for c in costs])),
                "max": max(c[key] for c in costs),
            }
            for key in costs[0]
        }
        if as_json:
            _print_json({"space": space.name, "architectures": len(costs), **spread})
            return
        out_console.print(f"{space.name}: {len(costs)} random architectures (seed 0)")
        for key, values in spread.items():
            low, middle, high = (report.number(values[k]) for k in ("min", "median", "max"))
            out_console.print(f"{key:<20} {low} … {high}, median {middle}")
        return
    from nas.space import parse

    found = vars_of(architecture_cost(space, parse(space, text)))
    if as_json:
        _print_json(found)
    else:
        report.print_values(out_console, found)


@app.command()
def export(
    folder: RunFolder,
    best: Best = None,
    trial: Number = None,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Write a trial's network as stand-alone PyTorch code with the weights it was trained to."""
    from nas import delivery, report

    history = _history(folder)
    space, objectives = _known(history)
    chosen = report.choose(history, objectives, best, trial)
    written = delivery.export_trial(history, chosen, space, out or folder / "export")
    _say_exported(written, {"trial": chosen.number, "values": dict(chosen.values)}, as_json)


@app.command()
def retrain(
    folder: RunFolder,
    best: Best = None,
    trial: Number = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="STRING|FILE", help="This architecture of the run's space instead."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: OutFolder = None,
    as_json: Json = False,
) -> None:
    """Train an architecture of a run fully, test it, and export it."""
    from nas import config as configuration
    from nas import delivery, report
    from nas.space import parse

    if arch is not None and (best is not None or trial is not None):
        raise ConfigError("give --arch, or --best, or --trial: they name different architectures")
    history = _history(folder)
    space, objectives = _known(history)
    if arch is not None:
        chosen = parse(space, _read_architecture(arch)[0])
    else:
        chosen = report.choose(history, objectives, best, trial).arch
    data = configuration.data_from_header(history.header or {})
    with err_console.status("training") as status:
        written, facts = delivery.retrain_and_export(
            space,
            chosen,
            data,
            out or folder / "retrained",
            epochs=epochs,
            seed=seed,
            on_epoch=lambda done, loss: status.update(
                f"training: epoch {done} of {epochs}, loss {loss:.4f}"
            ),
        )
    _say_exported(written, facts, as_json)


# ---------------------------------------------------------------------------------- helpers


def _search(run: Run, history: History, as_json: bool) -> None:
    from nas import report
    from nas.progress import watch

    objectives = run.strategy.objectives
    # A cluster ends a job with SIGTERM: treated as Ctrl-C, so that nothing is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watched = watch(run.strategy, run.evaluator, run.executor, run.budget, history, err_console)
    try:
        with contextlib.closing(watched) as trials:
            for _ in trials:
                pass
    except KeyboardInterrupt:
        err_console.print(
            f"interrupted; {len(history.trials)} trials are in {history.folder}. "
            f"Go on with: nas resume {history.folder}"
        )
        raise typer.Exit(130) from None
    folder = history.folder or Path()
    if as_json:
        _print_json(report.run_document(history, run.space, objectives))
        return
    report.print_run(out_console, history, run.space, objectives)
    first = objectives[0].metric
    out_console.print(f"picture: {folder / 'front.png'}")
    out_console.print(f"next:    nas retrain {folder} --best {first}")


def _history(folder: Path) -> History:
    from nas.history import JOURNAL, History

    if not (folder / JOURNAL).exists():
        raise ConfigError(f"{folder} is not a run folder: it has no {JOURNAL}")
    history = History(folder)
    if history.header is None:
        raise ConfigError(f"{folder}: the run was killed before it began; start it again")
    return history


def _known(history: History) -> tuple[SearchSpace, list[Objective]]:
    from nas.components import objective_from
    from nas.config import space_from_header

    header: dict[str, Any] = history.header or {}
    objectives = [
        objective_from(document, f"objectives[{index}]")
        for index, document in enumerate(header["strategy"]["objectives"])
    ]
    return space_from_header(header), objectives


def _read_architecture(text_or_file: str) -> tuple[str, dict[str, Any]]:
    """An architecture's text, and the arguments of its space if a file brings them."""
    path = Path(text_or_file)
    try:
        is_file = path.is_file()
    except OSError:  # too long for a file name: text
        is_file = False
    if not is_file:
        if text_or_file.endswith(".json"):
            raise ConfigError(f"{text_or_file}: there is no such file")
        return text_or_file, {}
    text = path.read_text(errors="replace")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    described = document.get("search_space") if isinstance(document, dict) else None
    if not isinstance(described, dict):
        return text, {}
    return text, {key: value for key, value in described.items() if key != "name"}


def vars_of(found: Any) -> dict[str, int]:
    """A network's costs as the keys ``--json`` prints."""
    return {key: getattr(found, key) for key in ("parameters", "macs", "peak_memory_bytes")}


def _say_exported(folder: Path, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json({"folder": str(folder), **facts})
        return
    for key, value in facts.items():
        out_console.print(f"{key}: {value}", markup=False)
    out_console.print(f"written: {folder}")
    out_console.print(f"run it:  python {folder / 'model.py'}")


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _show_warning(message: Warning | str, *_: Any) -> None:
    err_console.print(f"warning: {message}", markup=False)


def main() -> None:
    """The entry point: a user's mistake is one message and exit code 2."""
    # Before torch is imported: idle threads must not spin, trials train on one each.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.path.insert(0, os.getcwd())  # so that a configuration can name a module beside it
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # its signature has defaults we ignore
    try:
        app()
    except NasError as error:
        err_console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

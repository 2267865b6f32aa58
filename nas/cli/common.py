"""What the commands share: the application, its options, reading a run, printing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nas.errors import ConfigError

if TYPE_CHECKING:
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
    typer.Option("--set", metavar="KEY=VALUE …", help="Change settings; may be repeated."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or URL.")]
OutFolder = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write.")]


def open_history(folder: Path) -> History:
    """The run in a folder, or at a URL."""
    from nas.history import JOURNAL, History
    from nas.remote import url_of

    if url_of(folder) is None and not (folder / JOURNAL).exists():
        raise ConfigError(f"{folder} is not a run folder: it has no {JOURNAL}")
    history = History(folder)
    if history.header is None and not ((history.folder or folder) / JOURNAL).exists():
        raise ConfigError(f"{history.place} is not a run folder: it has no journal")
    if history.header is None:
        raise ConfigError(f"{folder}: the run was killed before it began; start it again")
    return history


def here(folder: Path) -> Path:
    """A run's folder on this machine: of one at a URL the working copy, brought up to date."""
    from nas.remote import url_of

    return folder if url_of(folder) is None else (open_history(folder).folder or folder)


def beside(folder: Path, name: str) -> Path:
    """Where a command writes what it was not told where: into the run's folder.

    Raises:
        ConfigError: the run is at a URL.
    """
    from nas.remote import url_of

    if (url := url_of(folder)) is not None:
        raise ConfigError(f"{url} is no folder of this machine: say with --out where to write")
    return folder / name


def known(history: History) -> tuple[SearchSpace, list[Objective]]:
    from nas.components import objective_from
    from nas.config import space_from_header
    from nas.history import objectives_of

    header: dict[str, Any] = history.header or {}
    objectives = [
        objective_from(document, f"objectives[{index}]")
        for index, document in enumerate(objectives_of(header))
    ]
    return space_from_header(header), objectives


def read_architecture(text_or_file: str) -> tuple[str, dict[str, Any]]:
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


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))

"""What to type next: resume, export and retrain, as far as a run can be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.components import OPAQUE

EPOCHS = 40
"""Those that ``nas retrain`` trains by default."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What can be done with a run from the command line.

    Attributes:
        built: its space can be made from the journal.
        trains: it has data to train on.
        resumes: all of its parts can be made from the journal.
    """

    built: bool
    trains: bool
    resumes: bool

    def of_trial(self, folder: str, number: int, weights: bool) -> list[tuple[str, str]]:
        """Commands about a trial, each with what it does.

        Args:
            weights: those it was trained to are kept.
        """
        run = shlex.quote(folder)
        found = []
        if self.built and weights:
            found.append(
                (f"nas export {run} --trial {number}", "Export it with the weights of the search")
            )
        if self.built and self.trains:
            found.append(
                (
                    f"nas retrain {run} --trial {number} --epochs {EPOCHS}",
                    "Train it fully, export it",
                )
            )
        return found

    def of_run(self, folder: str, header: Mapping[str, Any], first: str) -> list[tuple[str, str]]:
        """Commands about the run, each with what it does.

        Args:
            first: the metric whose best network is trained.
        """
        run = shlex.quote(folder)
        found = []
        if self.resumes:
            budget = header.get("budget") or {}
            name = next((key for key, value in budget.items() if value), "trials")
            more = f"{2 * float(budget.get(name) or 100):g}"
            found.append((f"nas resume {run}", "Go on, if it was stopped"))
            found.append(
                (f"nas resume {run} --set budget.{name}={more}", "Go on with twice the budget")
            )
        if self.built and self.trains and first:
            found.append(
                (f"nas retrain {run} --best {first} --epochs {EPOCHS}", "Train the best, export it")
            )
        found.append((f"nas show {run}", "The front on the terminal"))
        found.append((f"nas report {run}", "Write this page anew"))
        return found


def of_sweep(folder: str, name: str, search: str) -> list[tuple[str, str]]:
    """Commands about a sweep, each with what it does.

    Args:
        name: of the sweep, which is that of its file.
        search: the run folder of one of its searches.
    """
    sweep, run = shlex.quote(folder), shlex.quote(search)
    return [
        (f"nas sweep {shlex.quote(name)}.yaml --out {sweep}", "Go on, if it was stopped"),
        (f"nas report {sweep} --searches", "Write this page anew, and one of each search"),
        (f"nas retrain {run} --epochs {EPOCHS}", "Train the best network of a search, export it"),
    ]


def opaque(node: Any) -> bool:
    """Whether a description holds something that lives in a script only."""
    if isinstance(node, Mapping):
        return OPAQUE in node or any(opaque(child) for child in node.values())
    return isinstance(node, list) and any(opaque(child) for child in node)

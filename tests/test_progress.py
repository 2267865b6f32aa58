"""What a search shows on a terminal, and the picture it leaves."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from evaluators.cost import CostEvaluator
from evaluators.one_shot import OneShot
from nas.budget import Budget
from nas.data import digits
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize, minimize
from nas.plot import front_png
from nas.progress import watch
from nas.supernet.training import PathSettings
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

SPACE = Chain(input=(1, 8, 8))


def run(folder: Path | None, console: Console, objectives: list, trials: int = 6) -> History:
    history = History(folder)
    strategy = RandomSearch(SPACE, objectives)
    for _ in watch(
        strategy, CostEvaluator(SPACE), Serial(), Budget(trials=trials), history, console
    ):
        pass
    return history


def test_a_terminal_shows_done_running_failed_best_front_and_time(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=150)
    history = run(tmp_path / "run", console, [minimize("macs"), minimize("parameters")])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    best = min(trial.values["macs"] for trial in history.trials)
    assert f"6 done · 0 failed · best macs {best:.4g}" in text
    for part in ("running", "front", "left"):
        assert part in text
    assert (tmp_path / "run" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_continued_run_starts_from_what_is_done(tmp_path: Path) -> None:
    objectives = [minimize("macs")]
    run(tmp_path / "run", Console(file=io.StringIO()), objectives, trials=4)
    shown = io.StringIO()
    run(tmp_path / "run", Console(file=shown), objectives, trials=4)
    assert shown.getvalue().startswith("4 done")


def test_a_picture_is_drawn_of_any_number_of_objectives_and_of_none_measured() -> None:
    quiet = Console(file=io.StringIO())
    for objectives in (
        [minimize("macs")],
        [minimize("macs", limit=1e9), minimize("parameters")],
        [minimize("macs"), minimize("parameters"), minimize("peak_memory_bytes")],
    ):
        assert front_png(run(None, quiet, objectives), objectives).startswith(b"\x89PNG")
        assert front_png(History(), objectives).startswith(b"\x89PNG")


def test_preparing_an_evaluator_is_shown_epoch_by_epoch(tmp_path: Path) -> None:
    data = digits()
    space = NasBench201(channels=2, cells=1, input=data.input)
    evaluator = OneShot(space, data, settings=PathSettings(epochs=2, batch_size=256))
    shown = io.StringIO()
    history = History(tmp_path / "run")
    strategy = RandomSearch(space, [maximize("accuracy")])
    console = Console(file=shown, width=150)
    for _ in watch(strategy, evaluator, Serial(), Budget(trials=1), history, console):
        pass
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("preparing the evaluator: epoch 1, loss ")
    assert lines[1].startswith("preparing the evaluator: epoch 2, loss ")
    assert history.trials[0].cost.epochs > 1

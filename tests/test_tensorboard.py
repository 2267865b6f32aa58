"""What a search writes for TensorBoard, read back from the event files."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread
from tensorboardX.proto.event_pb2 import Event
from typer.testing import CliRunner

from nas.budget import Budget
from nas.cli import app
from nas.errors import ConfigError, DataError
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize, minimize
from nas.pareto import costs, hypervolume
from nas.search import search
from nas.tensorboard import TensorBoard, last_step, read_events
from nas.testing.toys import FlatSpace, ToyEvaluator
from nas.trial import Failed, Infeasible, Measured
from strategies.random_search import RandomSearch

SPACE = FlatSpace()
OBJECTIVES = (maximize("score"), minimize("cost", limit=8.0))


class Mixed(ToyEvaluator):
    """Fails in trial 2, finds trial 5 infeasible."""

    def evaluate(self, proposal):
        if proposal.number == 2:
            raise LookupError("the cable is loose")
        if proposal.number == 5:
            return Infeasible("too large")
        return super().evaluate(proposal)


def run(folder, trials, board=True, objectives=OBJECTIVES):
    history = History(folder)
    strategy = RandomSearch(SPACE, objectives)
    found = search(strategy, Mixed(SPACE), Serial(), Budget(trials=trials), history)
    if not board:
        list(found)
        return history
    with TensorBoard(history, objectives) as written:
        for trial in found:
            written.add(trial)
    return history


def events(folder):
    """Every point: (tag, step) to its values, by the format's own description."""
    points = {}
    for path in sorted(Path(folder).glob("events*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                points.setdefault((value.tag, event.step), []).append(getattr(value, kind))
    return points


def scalars(folder):
    return {key: values for key, values in events(folder).items() if key[0] != "front"}


def test_every_trial_is_there_with_its_metrics_the_best_and_the_front(tmp_path):
    history = run(tmp_path / "run", 16)
    points = scalars(tmp_path / "run" / "tensorboard")
    assert set(Counter(len(values) for values in points.values())) == {1}
    best, rows, first = None, [], []
    for step, trial in enumerate(history.trials):
        for name in ("score", "cost"):
            expected = trial.values.get(name)
            found = points.get((f"metrics/{name}", step))
            assert (found is None) == (expected is None)
            assert found is None or found[0] == pytest.approx(expected, rel=1e-6)
        if isinstance(trial.outcome, Measured):
            row = costs(OBJECTIVES, trial.values)
            first = first if len(first) == 10 else [*first, row]
            if trial.values["cost"] <= 8.0:
                rows.append(row)
                best = max(trial.values["score"], best or 0.0)
        assert points.get(("best/score", step), [None])[0] == (
            None if best is None else pytest.approx(best, rel=1e-6)
        )
        volume = points.get(("front/hypervolume", step))
        assert (volume is None) == (len(first) < 10)
        if volume is not None:
            worst = [max(column) for column in zip(*first, strict=True)]
            assert volume[0] == pytest.approx(hypervolume(rows, worst), rel=1e-5)
    # An infeasible one is no trial of the budget: one more was evaluated.
    last = len(history.trials) - 1
    assert points["search/failed", last] == [1]
    assert points["search/infeasible", last] == [1]
    assert points["search/failed", 1] == [0]
    assert points["front/size", last] == [len(history.front(OBJECTIVES))]
    assert points["search/epochs", last] == [sum(t.cost.epochs for t in history.trials)]


def test_the_front_is_a_picture(tmp_path):
    history = run(tmp_path / "run", 12)
    points = events(tmp_path / "run" / "tensorboard")
    pictures = {step: values for (tag, step), values in points.items() if tag == "front"}
    assert len(history.trials) - 1 in pictures
    for values in pictures.values():
        (picture,) = values
        pixels = imread(io.BytesIO(picture.encoded_image_string), format="png")
        assert pixels.shape[:2] == (picture.height, picture.width) == (540, 840)
        assert pixels[..., :3].std() > 0.01  # something is drawn


def test_a_resumed_run_has_no_point_twice_and_none_missing(tmp_path):
    run(tmp_path / "whole", 16)
    run(tmp_path / "run", 5)
    run(tmp_path / "run", 5)  # resumed, and there is nothing left to do
    run(tmp_path / "run", 9, board=False)
    run(tmp_path / "run", 12)
    run(tmp_path / "run", 16)
    whole, found = (scalars(tmp_path / name / "tensorboard") for name in ("whole", "run"))
    assert {key: v for key, v in found.items() if key[0] != "search/seconds"} == {
        key: v for key, v in whole.items() if key[0] != "search/seconds"
    }
    assert {len(values) for values in events(tmp_path / "run" / "tensorboard").values()} == {1}


def test_events_cut_off_by_a_kill_are_written_again(tmp_path):
    run(tmp_path / "run", 8)
    folder = tmp_path / "run" / "tensorboard"
    (path,) = folder.glob("events*")
    whole = scalars(folder)
    content = path.read_bytes()
    starts = [0]
    while starts[-1] < len(content):
        starts.append(
            starts[-1] + 16 + int.from_bytes(content[starts[-1] : starts[-1] + 8], "little")
        )
    path.write_bytes(content[: starts[len(starts) // 2]])  # in the middle of a trial's points
    run(tmp_path / "run", 8)
    assert scalars(folder) == whole


def test_a_torn_record_is_passed_over(tmp_path):
    run(tmp_path / "run", 3)
    (path,) = (tmp_path / "run" / "tensorboard").glob("events*")
    read = list(read_events(path))
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_events(path)) == read[:-1]
    assert last_step(path.parent)[0] == 2
    assert last_step(tmp_path / "nowhere") is None
    length = (7).to_bytes(8, "little")
    path.write_bytes(length + b"0000" + b"\xff" * 7 + b"0000")
    with pytest.raises(DataError, match="is no event file"):
        list(read_events(path))


def test_one_objective_has_no_hypervolume(tmp_path):
    run(tmp_path / "run", 12, objectives=(minimize("cost"),))
    tags = {tag for tag, _ in events(tmp_path / "run" / "tensorboard")}
    assert tags == {
        "metrics/score", "metrics/cost", "best/cost", "front/size", "front",
        "search/failed", "search/infeasible", "search/seconds", "search/epochs",
    }  # fmt: skip


def test_a_history_in_memory_needs_a_folder_and_nothing_is_written_before_the_first_trial(tmp_path):
    with pytest.raises(ConfigError, match="give TensorBoard a folder"):
        TensorBoard(History(), OBJECTIVES)
    TensorBoard(History(), OBJECTIVES, tmp_path / "events").close()
    assert not (tmp_path / "events").exists()


CONFIG = {
    "space": {"name": "chain", "input": [1, 8, 8], "classes": 4},
    "strategy": "random",
    "evaluator": "cost",
    "objectives": ["minimize macs", "minimize parameters"],
    "budget": {"trials": 4},
}


def test_on_the_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    folder = tmp_path / "run"
    shown = CliRunner().invoke(
        app, ["search", str(tmp_path / "c.yaml"), "--out", str(folder), "--tensorboard"]
    )
    assert shown.exit_code == 0, shown.output
    assert f"tensorboard --logdir {folder}" in shown.output
    more = ["resume", str(folder), "--set", "budget.trials=7", "--tensorboard"]
    assert CliRunner().invoke(app, more).exit_code == 0
    points = scalars(folder / "tensorboard")
    assert [step for tag, step in sorted(points) if tag == "metrics/macs"] == list(range(7))
    assert {len(values) for values in points.values()} == {1}


def test_failures_are_those_of_the_history(tmp_path):
    history = run(tmp_path / "run", 6)
    assert [t.number for t in history.trials if isinstance(t.outcome, Failed)] == [2]

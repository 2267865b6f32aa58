"""The table and the curves of a sweep, against numbers found in other ways."""

from __future__ import annotations

import copy
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import document, sweep

from nas.history import History
from nas.objective import maximize, minimize
from nas.sweep.curves import panels
from nas.sweep.files import Sweep, SweepSearch, compared, read_sweep
from nas.sweep.results import Box, Corners, Found, box, objectives_of, results
from nas.sweep.table import page, spread, table_document

OBJECTIVES = [{"maximize": "accuracy"}, {"minimize": "macs"}]
LIMIT = 120_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished sweep's folder, and its table."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, sweep(folder)


def kept(run):
    """Accuracy and MACs of the trials of a run that keep the limit."""
    values = [trial.values for trial in History(run).trials]
    return [(one["accuracy"], one["macs"]) for one in values if one["macs"] <= LIMIT]


def area(points, reference, ideal):
    """The area that points dominate, on the grid of their coordinates, as a share of the box."""
    xs = sorted({a for a, _ in points} | {reference[0]})
    ys = sorted({m for _, m in points} | {reference[1]})
    total = 0.0
    for low, high in pairwise(xs):
        for near, far in pairwise(ys):
            if any(a >= high and m <= near for a, m in points):
                total += (high - low) * (far - near)
    return total / ((ideal[0] - reference[0]) * (reference[1] - ideal[1]))


def test_the_rows_say_what_the_journals_hold(finished):
    folder, table = finished
    (corners,) = table["boxes"]
    reference = (corners["reference"]["accuracy"], corners["reference"]["macs"])
    ideal = (corners["ideal"]["accuracy"], corners["ideal"]["macs"])
    assert table["reference"] is None
    everything = [point for run in folder.glob("runs/*/*") for point in kept(run)]
    assert ideal == (max(a for a, _ in everything), min(m for _, m in everything))
    assert min(a for a, _ in everything) <= reference[0] < ideal[0]
    assert max(m for _, m in everything) >= reference[1] > ideal[1]
    assert [row["labels"] for row in table["rows"]] == [
        {"strategy": "random"},
        {"strategy": "evolution"},
    ]
    for row, seconds in zip(table["rows"], table["seconds"], strict=True):
        runs = [folder / "runs" / row["labels"]["strategy"] / seed for seed in "01"]
        points = [kept(run) for run in runs]
        assert row["best"]["accuracy"]["values"] == [max(a for a, _ in p) for p in points]
        assert row["best"]["macs"]["values"] == [min(m for _, m in p) for p in points]
        inside = [[p for p in one if p[0] > reference[0] and p[1] < reference[1]] for one in points]
        expected = [area(one, reference, ideal) for one in inside]
        assert row["hypervolume"]["values"] == pytest.approx(expected, rel=1e-12)
        assert (row["trials"], row["failed"], row["searches"], row["ended"]) == (50, 0, 2, 2)
        spent = [History(run).spent.seconds for run in runs]
        assert seconds["values"] == pytest.approx(spent, rel=1e-12)
        assert seconds["labels"] == row["labels"]


@given(st.lists(st.floats(-1e6, 1e6), max_size=6))
def test_mean_and_deviation(values):
    found = spread(values)
    assert (found["n"], found["values"]) == (len(values), values)
    if not values:
        assert found["mean"] is None
    else:
        assert found["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    if len(values) < 2:
        assert found["std"] is None
    else:
        assert found["std"] == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)


def test_a_reference_point_may_be_given(finished, tmp_path):
    folder, table = finished
    given_one = {"accuracy": 0.5, "macs": 200_000.0}
    other = sweep(folder, reference=given_one)
    assert other["reference"] == other["boxes"][0]["reference"] == given_one
    for row, before in zip(other["rows"], table["rows"], strict=True):
        assert row["best"] == before["best"]
        assert row["hypervolume"]["mean"] > before["hypervolume"]["mean"]
    sweep(folder)


def test_the_page(finished):
    _, table = finished
    text = page(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0].startswith("| strategy | best accuracy | best macs | hypervolume | searches |")
    mean = table["rows"][1]["best"]["accuracy"]["mean"]
    assert lines[3].startswith(f"| evolution | {mean:.4g} ± ")
    assert "mean ± standard deviation over the seeds" in text
    assert "(reference point)" in text


# --------------------------------------------------------- made up, so that the answer is known


def made_up(axes, objectives=OBJECTIVES[:1]):
    searches = [
        SweepSearch(
            f"runs/{strategy}/{table}/{seed}", {"table": table, "strategy": strategy, "seed": seed}
        )
        for table in axes["table"]
        for strategy in axes["strategy"]
        for seed in axes["seed"]
    ]
    return Sweep("made up", axes, tuple(searches), tuple(objectives))


def found(search, levels, seconds):
    """A search of one objective that is at those levels after its trials."""
    steps = [(1, levels[0])] if levels[0] is not None else []
    for trial, (before, after) in enumerate(pairwise(levels), start=2):
        if after != before:
            steps.append((trial, after))
    steps = [(trial, np.array([[level]])) for trial, level in steps]
    return Found(search, len(levels), 0, np.array(seconds), tuple(steps))


AXES = {"table": ("t",), "strategy": ("a",), "seed": ("0", "1", "2")}


def test_curves_are_the_mean_with_its_interval():
    sweep = made_up(AXES)
    one = found(sweep.searches[0], [1.0, 1.0, 4.0, 4.0], [1, 2, 3, 4])
    two = found(sweep.searches[1], [None, 2.0, 2.0, 5.0], [2, 4, 6, 8])
    three = found(sweep.searches[2], [3.0, 3.0], [1, 2])  # ended early: keeps what it had
    (panel,) = panels(sweep, [one, two, three], None)
    assert panel.title == "t"
    (curve,) = panel.over_trials
    assert curve.label == "a"
    assert curve.x.tolist() == [2, 3, 4]
    assert curve.mean.tolist() == [2.0, 3.0, 4.0]
    # 95 % of Student's t with 2 degrees of freedom lie within 4.302653.
    assert curve.half == pytest.approx([4.302653 / 3**0.5 * s for s in (1, 1, 1)], rel=1e-6)
    (curve,) = panel.over_seconds
    assert curve.x.tolist() == [4, 8]
    assert curve.mean.tolist() == [3.0, 4.0]


def test_one_seed_has_no_band_and_no_line_is_drawn_before_every_seed_has_something():
    sweep = made_up({**AXES, "seed": ("0",)})
    (panel,) = panels(sweep, [found(sweep.searches[0], [1.0, 2.0], [1, 2])], None)
    assert np.isnan(panel.over_trials[0].half).all()
    sweep = made_up(AXES)
    half = [
        found(sweep.searches[0], [1.0, 2.0], [1, 2]),
        found(sweep.searches[1], [None, None], [1, 2]),
    ]
    (panel,) = panels(sweep, half, None)
    assert panel.over_trials == panel.over_seconds == ()


def test_long_searches_are_drawn_at_so_many_points():
    sweep = made_up({**AXES, "seed": ("0",)})
    levels = [float(level) for level in range(5000)]
    (panel,) = panels(sweep, [found(sweep.searches[0], levels, np.arange(5000.0))], None)
    curve = panel.over_trials[0]
    assert len(curve.x) == 400
    assert curve.mean.tolist() == np.floor(curve.x - 1).tolist()


def test_strategies_share_a_panel_and_tables_have_their_own():
    axes = {"table": ("t", "u"), "strategy": ("a", "b"), "seed": ("0",)}
    sweep = made_up(axes)
    ended = [found(one, [1.0, 2.0], [1, 2]) for one in sweep.searches]
    drawn = panels(sweep, ended, None)
    assert [panel.title for panel in drawn] == ["t", "u"]
    assert [[curve.label for curve in panel.over_trials] for panel in drawn] == [["a", "b"]] * 2


def test_what_is_compared():
    assert compared(("table", "strategy", "seed")) == "strategy"
    assert compared(("seed", "size", "table")) == "size"
    assert compared(("seed",)) is None
    search = SweepSearch("runs/x", {"seed": "0", "size": "s", "table": "t"})
    assert search.group == {"table": "t"}
    assert search.cell == ("s", "t")


def test_tables_have_a_box_each():
    axes = {"table": ("t", "u"), "strategy": ("a", "b"), "seed": ("0",)}
    sweep = made_up(axes, OBJECTIVES)
    fronts = [[[0.9, 50.0]], [[0.5, 20.0], [0.4, 10.0]], [[0.9, 5e6]], [[0.8, 4e6]]]
    ended = [
        Found(one, 1, 0, np.array([1.0]), ((1, np.array(front)),))
        for one, front in zip(sweep.searches, fronts, strict=True)
    ]
    common = box(objectives_of(sweep.objectives), ended)
    assert common.corners == (
        Corners({"table": "t"}, {"accuracy": 0.4, "macs": 50.0}, {"accuracy": 0.9, "macs": 10.0}),
        Corners({"table": "u"}, {"accuracy": 0.8, "macs": 5e6}, {"accuracy": 0.9, "macs": 4e6}),
    )
    assert common.share(sweep.searches[1], ended[1].steps[0][1]) == pytest.approx(0.15)
    text = page(table_document(sweep, ended, common, {}))
    assert "Hypervolume, t: the share of the box between accuracy 0.4, macs 50 (ref" in text
    assert "Hypervolume, u: the share of the box between accuracy 0.8, macs 5,000,000 (ref" in text


def test_curves_end_where_the_table_is(finished):
    folder, table = finished
    sweep = read_sweep(folder)
    ended = list(results(folder, sweep))
    common = box(objectives_of(sweep.objectives), ended)
    (panel,) = panels(sweep, ended, common)
    for curve, row in zip(panel.over_trials, table["rows"], strict=True):
        assert curve.mean[-1] == pytest.approx(row["hypervolume"]["mean"], rel=1e-12)
        assert curve.x[-1] == 25
        assert (np.diff(curve.mean) >= 0).all()


def test_what_never_met_the_limits_counts_as_nothing():
    sweep = made_up(AXES, OBJECTIVES)
    objectives = objectives_of(sweep.objectives)
    good = Found(sweep.searches[0], 2, 1, np.array([1.0, 2.0]), ((2, np.array([[0.9, 50.0]])),))
    bad = Found(sweep.searches[1], 2, 0, np.array([1.0, 2.0]), ())
    common = box(objectives, [good, bad], {"accuracy": 0.5, "macs": 100.0})
    assert common.share(good.search, good.steps[0][1]) == 1.0
    document = table_document(sweep, [good, bad], common, {"runs/a/t/2": "lost"})
    (row,) = document["rows"]
    assert row["best"]["accuracy"] == {"mean": 0.9, "std": None, "n": 1, "values": [0.9]}
    assert row["hypervolume"]["values"] == [1.0, 0.0]
    assert (row["searches"], row["ended"], row["failed"]) == (3, 2, 1)
    assert "| 0.9 (1) | 50 (1) | 0.5 ± 0.71 | 2 of 3 | 4 | 1 |" in page(document)
    assert box(objectives, [bad]) is None
    document = table_document(sweep, [bad], None, {})
    assert "hypervolume" not in document["rows"][0]
    assert "| – | – | 1 of 3 | 2 | 0 | 2 |" in page(document)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_front_is_worth_a_share_of_the_box_and_more_is_never_worth_less(points, another):
    objectives = (maximize("a"), minimize("m"))
    search = SweepSearch("runs/x", {"strategy": "x"})
    common = Box(objectives, (Corners({}, {"a": 0.0, "m": 1.0}, {"a": 1.0, "m": 0.0}),))
    share = common.share(search, np.array(points))
    assert -1e-12 <= share <= 1 + 1e-12
    assert common.share(search, np.array([*points, another])) >= share - 1e-12
    assert share == pytest.approx(area(points, (0.0, 1.0), (1.0, 0.0)), abs=1e-9)


def test_the_description_is_left_as_it_was(tmp_path):
    text = document()
    before = copy.deepcopy(text)
    sweep(tmp_path, **text)
    assert text == before

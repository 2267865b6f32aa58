"""A sweep's description: which searches it means, and what is refused before anything runs."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeping import TABULAR, document

from nas.errors import ConfigError, DataError, JournalError, ResumeError
from nas.sweep.files import held, is_sweep, read_sweep, write_sweep
from nas.sweep.grid import label_of, laid_over, planned
from nas.sweep.place import Place
from nas.sweep.resuming import begin

# --------------------------------------------------------------------------- the grid


def test_a_grid_is_every_combination_in_order():
    sweep = planned(document(), "small").sweep
    assert sweep.name == "small"
    assert sweep.axes == {"strategy": ("random", "evolution"), "seed": ("0", "1")}
    assert [one.folder for one in sweep.searches] == [
        "runs/random/0",
        "runs/random/1",
        "runs/evolution/0",
        "runs/evolution/1",
    ]
    assert [one.config["seed"] for one in sweep.searches] == [0, 1, 0, 1]
    assert sweep.searches[0].config["strategy"] == "random"
    assert sweep.searches[2].config["strategy"]["population_size"] == 8
    assert sweep.searches[2].config["evaluator"] == TABULAR
    assert sweep.objectives == ({"maximize": "accuracy"}, {"minimize": "macs", "limit": 120_000})
    assert list(sweep.cells()) == [("random",), ("evolution",)]


def test_a_list_sets_the_key_that_the_axis_names():
    text = document(
        axes={"evaluator.runs": ["mean", "seed"], "strategy": ["random", "local_search"]}
    )
    sweep = planned(text, "small").sweep
    assert sweep.axes == {
        "evaluator.runs": ("mean", "seed"),
        "strategy": ("random", "local_search"),
    }
    assert [one.config["evaluator"]["runs"] for one in sweep.searches][1:3] == ["mean", "seed"]
    assert [one.folder for one in sweep.searches][:2] == [
        "runs/mean/random",
        "runs/mean/local_search",
    ]


def test_searches_stand_beside_the_grid_and_know_its_labels():
    own = {"strategy": "short", "seed": 7, "set": {"strategy": "random", "budget": {"trials": 3}}}
    more = [{"strategy": "evolution", "seed": 2}, own]
    sweep = planned(document(searches=more), "small").sweep
    assert sweep.axes == {
        "strategy": ("random", "evolution", "short"),
        "seed": ("0", "1", "2", "7"),
    }
    known, new = sweep.searches[-2:]
    assert (known.config["strategy"]["population_size"], known.config["seed"]) == (8, 2)
    assert known.config["budget"] == {"trials": 25}
    assert (new.config["strategy"], new.config["seed"]) == ("random", 7)
    assert new.config["budget"] == {"trials": 3}


def test_searches_alone():
    single = [
        {"what": "a", "set": {"strategy": "random"}},
        {"what": "b", "set": {"strategy": "nsga2"}},
    ]
    text = document(searches=single)
    del text["axes"]
    sweep = planned(text, "small").sweep
    assert sweep.axes == {"what": ("a", "b")}
    assert [one.folder for one in sweep.searches] == ["runs/a", "runs/b"]


def test_limits_may_differ_and_are_left_out_then():
    limits = {
        "small": {"objectives": [{"maximize": "accuracy"}, {"minimize": "macs", "limit": 50_000}]},
        "large": {},
    }
    sweep = planned(document(axes={"size": limits, "strategy": ["random"]}), "small").sweep
    assert sweep.objectives == ({"maximize": "accuracy"}, {"minimize": "macs"})


@pytest.mark.parametrize(
    ("base", "part", "expected"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": {"name": "n", "x": 1}}, {"a": {"x": 2}}, {"a": {"name": "n", "x": 2}}),
        ({"a": {"name": "n", "x": 1}}, {"a": {"name": "m"}}, {"a": {"name": "m"}}),
        ({"a": "n"}, {"a": {"x": 2}}, {"a": {"name": "n", "x": 2}}),
        ({"a": {"x": 1}}, {"a": "m"}, {"a": "m"}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"b": {"c": 2}}, {"a": 1, "b": {"c": 2}}),
        ({"a": 1}, {"a": None}, {"a": None}),
    ],
)
def test_how_configurations_are_laid_over_each_other(base, part, expected):
    before = copy.deepcopy(base)
    assert laid_over(base, part) == expected
    assert base == before


_configs = st.recursive(
    st.none() | st.integers() | st.text("abc", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("pqrs"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(_configs, _configs)
def test_laying_over_twice_is_laying_over_once(base, part):
    once = laid_over(base, part)
    assert laid_over(once, part) == once
    assert laid_over(base, {}) == base
    assert set(once) == set(base) | set(part)


@settings(deadline=None, max_examples=20)
@given(st.integers(1) | st.floats(0, exclude_min=True, allow_infinity=False))
def test_values_of_lists_are_set_as_they_are(value):
    text = document(axes={"budget.seconds": [value, None], "strategy": ["random"]})
    searches = planned(text, "small").sweep.searches
    assert [one.config["budget"]["seconds"] for one in searches] == [value, None]


def test_labels():
    values = ["text", 3, 0.5, True, None, {"name": "nsga2", "population_size": 4}, {"a": [1, 2]}]
    expected = ["text", "3", "0.5", "true", "null", "nsga2", "{a: [1, 2]}"]
    assert [label_of(value) for value in values] == expected


# ------------------------------------------------------------------------ what is refused

TWICE = {"strategy": [{"name": "nsga2", "population_size": 4}, {"name": "nsga2"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "unknown key 'axis': did you mean 'axes'?"),
        ({"axes": {}}, "a sweep needs axes, or searches"),
        ({"axes": {"seed": []}}, "axes.seed is empty"),
        ({"axes": {"seed": 3}}, "axes.seed must be a list of values, or a mapping"),
        ({"axes": {"strategy": {"a": 3}}}, "axes.strategy.a must be a part of a configuration"),
        ({"axes": {"set": [1]}}, "an axis cannot be named 'set'"),
        ({"axes": TWICE}, "axes.strategy: 'nsga2' is there twice"),
        ({"axes": {"seed": [0], "strategy": ["rndom"]}}, "search 0/rndom: .*'rndom'"),
        (
            {"axes": {"strategy": ["random"], "o": {"a b": {}, "a_b": {}}}},
            "would write to runs/random/a_b",
        ),
        ({"axes": {"seed": [0]}}, "search 0: 'strategy' is missing"),
        ({"axes": {"strateg": ["random"]}}, "search random: unknown key 'strateg'"),
        ({"axes": {"seed.x": [0]}, "search": {"seed": 3}}, "axes.seed.x: .*'seed' is 3"),
        ({"searches": [{"strategy": "random"}]}, r"searches\[0\] needs a label for 'seed'"),
        ({"searches": [{"sed": 0}]}, r"searches\[0\]: there is no axis 'sed': did you mean 'seed'"),
        ({"searches": [{"strategy": "a", "seed": 0, "set": 3}]}, r"searches\[0\].set must be"),
        ({"searches": [{"strategy": "random", "seed": 0}]}, "would write to runs/random/0"),
        ({"parallel": 0}, "parallel"),
        ({"executor": "rai"}, "executor: .*'rai': did you mean 'ray'"),
        ({"executor": {"name": "serial", "address": "a:1"}}, "address a:1 is of a Ray cluster"),
        ({"executor": {"cpu": 1}}, "executor: unknown key 'cpu': did you mean 'cpus'"),
        ({"executor": {"cpus": -1}}, "executor: cpus must be zero or more, got -1"),
        ({"executor": {"cpus": 0}}, "a search needs cpus or gpus above zero"),
        ({"executor": {"retries": 0.5}}, "retries must be a whole number"),
        ({"executor": {"cpus": "many"}}, "cpus must be a number, got 'many'"),
        ({"executor": {"code": "all"}}, "code: valid: auto, none; got 'all'"),
        ({"reference": {"macs": 1}}, "reference has no value for 'accuracy'"),
        ({"reference": {"mac": 1}}, "reference: no objective 'mac': did you mean 'macs'"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        planned(document(**changes), "small")


def test_searches_of_other_objectives_are_refused():
    others = {"a": {}, "b": {"objectives": ["maximize accuracy"]}}
    with pytest.raises(ConfigError, match="search b/random is for maximize accuracy and a/random"):
        planned(document(axes={"o": others, "strategy": ["random"]}), "small")


def test_the_place_may_be_said_in_full():
    text = document(executor={"address": "auto", "cpus": 0.5, "gpus": 0.25, "retries": 1})
    assert planned(text, "small").place == Place("ray", "auto", 0.5, 0.25, 1)


# ------------------------------------------------------------------------- in its folder


def test_a_sweep_is_read_as_it_was_written(tmp_path):
    sweep = planned(document(), "small").sweep
    assert not is_sweep(tmp_path)
    write_sweep(tmp_path, sweep)
    assert is_sweep(tmp_path)
    assert read_sweep(tmp_path) == sweep


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a sweep's folder"),
        ("{", "cannot be read"),
        ("[]", "must hold a mapping, got a list"),
        ('{"format": 2}', "expected format 1, got 2"),
        ('{"format": 1, "name": "a"}', "does not describe a sweep: KeyError"),
        (
            '{"format": 1, "name": "a", "axes": {}, "searches": [3], "objectives": []}',
            "does not describe a sweep: TypeError",
        ),
    ],
)
def test_what_is_no_sweep_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_sweep(tmp_path)


def _changed(path, value):
    text = document()
    node = text
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("axes", "seed"), [0], "axes.seed has no '1' any more"),
        (("axes", "strategy", "random"), {"strategy": "nsga2"}, "random/0, strategy was 'random'"),
        (("axes", "size"), {"s": {}}, "the axis 'size' is new"),
        (("search", "budget"), {"trials": 24}, "random/0, budget.trials was 25 and is 24"),
        (("search", "budget"), {"trials": 25, "epochs": 9}, "budget.epochs was open and is 9"),
        (("search", "evaluator", "epochs"), 16, "random/0, evaluator.epochs is new"),
        (("search", "space", "operations"), ["none", "skip_connect"], "space.operations was"),
        (
            ("search", "objectives"),
            [{"maximize": "accuracy"}, {"minimize": "macs"}],
            r"objectives\[1\].limit was 120000 and is gone",
        ),
    ],
)
def test_another_sweep_is_refused_and_the_difference_named(tmp_path, path, value, message):
    begin(tmp_path, planned(document(), "small").sweep)
    before = (tmp_path / "sweep.json").read_bytes()
    changed = json.loads(json.dumps(_changed(path, value)))
    with pytest.raises(ResumeError, match=message):
        begin(tmp_path, planned(changed, "small").sweep)
    assert (tmp_path / "sweep.json").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("axes", "seed"), [2, 0, 1]),
        (("search", "budget"), {"trials": 26}),
        (("search", "executor"), "ray"),
        (("executor",), "ray"),
        (("parallel",), 3),
    ],
)
def test_what_may_change(tmp_path, path, value):
    begin(tmp_path, planned(document(), "small").sweep)
    sweep = planned(_changed(path, value), "small").sweep
    begin(tmp_path, sweep)
    assert read_sweep(tmp_path) == sweep


def test_a_runs_folder_and_one_in_use_are_refused(tmp_path):
    run, file = tmp_path / "run", tmp_path / "file"
    run.mkdir()
    (run / "journal.jsonl").touch()
    with pytest.raises(ConfigError, match="holds a run, not a sweep"), held(run):
        pass
    file.touch()
    with pytest.raises(JournalError, match="cannot be made: Not a directory"), held(file / "x"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "journal.jsonl", "run"]
    taken = pytest.raises(ResumeError, match="another process is running this sweep")
    with held(tmp_path), taken, held(tmp_path):
        pass
    with held(tmp_path):
        pass

"""Components become plain descriptions and descriptions components, or say what is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas import registry
from nas.components import OPAQUE, create, describe, objective_from
from nas.data import Data, digits
from nas.errors import ConfigError, DataError, InvalidArchitecture, NasError
from nas.execution.serial import Serial
from nas.objective import Objective, maximize, minimize
from nas.testing.toys import FlatSpace, ToyEvaluator, Uniform
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201
from strategies.regularized_evolution import RegularizedEvolution

OBJECTIVES = (maximize("accuracy"), minimize("macs", limit=5e6, weight=0.2))
SPACE = NasBench201(channels=4, cells=1, input=(1, 8, 8))

COMPONENTS = {
    "spaces": [SPACE, Chain(kernels=(3, 7), input=(1, 28, 28)), FlatSpace(classes=9)],
    "strategies": [
        RegularizedEvolution(SPACE, OBJECTIVES, 3, population_size=9, sample_size=4),
        Uniform(FlatSpace(), OBJECTIVES[:1], 1),
    ],
    "evaluators": [
        CostEvaluator(SPACE),
        ToyEvaluator(FlatSpace()),
        TrainingEvaluator(SPACE, digits(), epochs=2, resolution=6),
        Staged((CostEvaluator(SPACE), TrainingEvaluator(SPACE, digits(), epochs=1)), OBJECTIVES),
    ],
    "executors": [Serial(time_limit_s=2.5), Serial()],
    "datasets": [digits()],
}


@pytest.mark.parametrize(
    ("kind", "component"),
    [(kind, one) for kind, several in COMPONENTS.items() for one in several],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_description_is_json_and_makes_the_same_component(kind, component):
    description = describe(component)
    written = json.loads(json.dumps(description, allow_nan=False))
    assert written == description
    again = create(kind, written, kind)
    assert type(again) is type(component)
    assert describe(again) == description


def test_built_ins_are_described_by_their_registered_names():
    assert describe(NasBench201()) == {
        "name": "nasbench201",
        "channels": 16,
        "cells": 5,
        "classes": 10,
        "input": [3, 32, 32],
        "operations": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"],
    }
    assert describe(FlatSpace())["name"] == "nas.testing.toys:FlatSpace"
    assert describe(digits()) == {"name": "digits"}
    strategy = describe(COMPONENTS["strategies"][0])
    assert strategy["name"] == "regularized_evolution"
    assert strategy["space"]["channels"] == 4
    assert strategy["objectives"] == [
        {"maximize": "accuracy"},
        {"minimize": "macs", "limit": 5e6, "weight": 0.2},
    ]


def test_every_registered_name_has_a_summary_and_can_be_loaded():
    for kind in registry.KINDS:
        assert registry.names(kind)
        for name in registry.names(kind):
            factory = registry.load(kind, name)
            assert registry.name_of(factory) == name
            summary = registry.summary(kind, name)
            assert summary
            assert "\n" not in summary


def test_equal_objects_make_equal_components():
    made = create(
        "spaces", {"name": "nasbench201", "channels": 4, "cells": 1, "input": "1x8x8"}, ""
    )
    assert made == SPACE
    assert create("spaces", "chain", "space") == Chain()
    made = create("spaces", {"name": "search_spaces.chain:Chain", "depths": [1, 2]}, "space")
    assert made == Chain(depths=(1, 2))


def test_what_the_run_knows_is_given_to_parts_of_parts():
    data = digits()
    known = {"space": SPACE, "objectives": OBJECTIVES, "seed": 4, "data": data}
    description = {
        "name": "staged",
        "stages": ["cost", {"name": "training", "epochs": 2}],
    }
    staged = create("evaluators", description, "evaluator", known)
    assert [type(stage) for stage in staged.stages] == [CostEvaluator, TrainingEvaluator]
    assert staged.objectives == OBJECTIVES
    assert staged.stages[1].data is data
    assert staged.stages[1].space is SPACE
    strategy = create("strategies", "random", "strategy", known)
    assert (strategy.seed, strategy.space) == (4, SPACE)
    strategy = create("strategies", {"name": "random", "seed": 8}, "strategy", known)
    assert strategy.seed == 8


# --------------------------------------------------------------------------------- errors

TOY = {"name": "nas.testing.toys:ToyEvaluator", "space": "chain"}


@pytest.mark.parametrize(
    ("kind", "description", "error", "says"),
    [
        ("spaces", "nasbench21", ConfigError, "here: .*'nasbench21': did you mean 'nasbench201'"),
        (
            "strategies",
            {"name": "randon"},
            ConfigError,
            "no strategy 'randon': did you mean 'random'",
        ),
        ("spaces", {"channels": 3}, ConfigError, "here has no name: valid: autoformer, chain"),
        ("spaces", 3, ConfigError, "here must be a name, or a mapping with a name; got 3"),
        ("spaces", {"name": "chain", "widht": 3}, ConfigError, "no argument 'widht'"),
        ("spaces", {"name": "nasbench201", "chanels": 3}, ConfigError, "did you mean 'channels'"),
        (
            "spaces",
            {"name": "nasbench201", "channels": "many"},
            ConfigError,
            r"here\.channels: .*'many'",
        ),
        (
            "spaces",
            {"name": "nasbench201", "channels": 2.5},
            ConfigError,
            r"here\.channels: .*2\.5",
        ),
        (
            "spaces",
            {"name": "nasbench201", "channels": 0},
            ConfigError,
            "here: .*at least 1, got 0",
        ),
        (
            "spaces",
            {"name": "nasbench201", "input": [3, -1, 2]},
            InvalidArchitecture,
            "here: .*positive",
        ),
        ("spaces", {"name": "chain", "kernels": 3}, ConfigError, r"here\.kernels"),
        (
            "strategies",
            {"name": "random", "objectives": ["maximize a"]},
            ConfigError,
            "needs 'space'",
        ),
        (
            "strategies",
            {"name": "random", "space": "chian", "objectives": ["maximize a"]},
            ConfigError,
            r"here\.space: .*did you mean 'chain'",
        ),
        (
            "strategies",
            {"name": "random", "space": "chain", "objectives": []},
            ConfigError,
            "no objectives",
        ),
        (
            "strategies",
            {"name": "random", "space": "chain", "objectives": ["minimise a"]},
            ConfigError,
            r"here\.objectives\[0\]: .*'minimise': did you mean 'minimize'",
        ),
        (
            "evaluators",
            {"name": "staged", "objectives": ["maximize a"], "stages": [TOY, "cots"]},
            ConfigError,
            r"here\.stages\[1\]: .*'cost'",
        ),
        ("evaluators", {OPAQUE: "my.Set"}, ConfigError, "my.Set that lives in a Python script"),
        ("spaces", "no.such.module:Space", ConfigError, "cannot be imported"),
        ("spaces", "search_spaces.chain:Chian", ConfigError, "cannot be imported"),
        ("spaces", "search_spaces.nasbench201:NODES", ConfigError, "is a int, not a class"),
        (
            "evaluators",
            {"name": "training", "space": "nasbench201", "data": "digits"},
            DataError,
            "here",
        ),
        ("datasets", "nas.testing.toys:FlatSpace", ConfigError, "expected a nas.data.Data"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(kind, description, error, says):
    with pytest.raises(error, match=says):
        create(kind, description, "here")


@dataclass(frozen=True)
class Needs:
    """A component with arguments of several types."""

    size: int
    share: float = 0.5
    kind: str = "a"
    flag: bool = False
    place: Path | None = None
    sizes: tuple[int, ...] = (1,)
    named: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("arguments", "attribute", "expected"),
    [
        ({"size": 3}, "size", 3),
        ({"size": 3, "share": 1}, "share", 1.0),
        ({"size": 3, "sizes": [2, 3]}, "sizes", (2, 3)),
        ({"size": 3, "sizes": "2x3"}, "sizes", (2, 3)),
        ({"size": 3, "place": "a/b"}, "place", Path("a/b")),
        ({"size": 3, "named": {"x": 1}}, "named", {"x": 1}),
        ({"size": 3, "flag": True}, "flag", True),
    ],
)
def test_arguments_have_the_type_of_the_annotation(arguments, attribute, expected):
    made = create("spaces", {"name": f"{__name__}:Needs", **arguments}, "space")
    value = getattr(made, attribute)
    assert value == expected
    assert type(value) is type(expected)
    assert create("spaces", json.loads(json.dumps(describe(made))), "space") == made


def test_what_a_file_cannot_hold_is_opaque():
    class Hidden:
        def __init__(self, size):
            self._size = size

    class Variadic:
        def __init__(self, *sizes):
            self.sizes = sizes

    for value in (Hidden(3), Variadic(3), lambda: 3, int, object):
        document = describe(value)
        assert list(document) == [OPAQUE]
        with pytest.raises(ConfigError, match="lives in a Python script"):
            create("spaces", document, "space")
    data = digits()
    own = Data("mine", data.train, None, data.input, data.classes)
    evaluator = describe(TrainingEvaluator(SPACE, own))
    assert evaluator["data"] == {OPAQUE: "nas.data.Data"}
    with pytest.raises(ConfigError, match=r"evaluator\.data is a nas\.data\.Data that lives"):
        create("evaluators", evaluator, "evaluator")


def test_plain_values_describe_themselves():
    for value in (None, True, 3, 0.5, "text"):
        assert describe(value) is value
    assert describe((1, [2, "a"], {"k": (3,)})) == [1, [2, "a"], {"k": [3]}]
    assert describe(Path("a/b")) == "a/b"


# ----------------------------------------------------------------------------- objectives


@given(
    st.text(min_size=1, max_size=8),
    st.sampled_from(["maximize", "minimize"]),
    st.none() | st.floats(-1e9, 1e9),
    st.none() | st.floats(0, 10),
)
def test_objectives_are_described_and_read_back(metric, direction, limit, weight):
    objective = Objective(metric, direction, limit, weight)
    assert objective_from(json.loads(json.dumps(describe(objective))), "here") == objective


def test_objectives_in_words():
    assert objective_from("maximize accuracy", "here") == maximize("accuracy")
    assert objective_from({"minimize": "macs", "limit": "5e6"}, "") == minimize("macs", limit=5e6)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("accuracy", "'accuracy' is not an objective: expected"),
        ("maximize the accuracy", "is not an objective"),
        ("maximise accuracy", "'maximise': did you mean 'maximize'"),
        (3, "3 is not an objective"),
        ({"limit": 3}, "is not an objective"),
        ({"maximize": "a", "minimize": "b"}, "is not an objective"),
        ({"maximize": "a", "limt": 3}, "'limt': did you mean 'limit'"),
        ({"maximize": "a", "limit": "low"}, r"here\.limit must be a number, got 'low'"),
        ({"maximize": "a", "weight": -1}, "weight must be zero or more"),
        ({"maximize": "a", "limit": float("nan")}, "limit must be finite"),
    ],
)
def test_what_is_no_objective_is_refused(document, says):
    with pytest.raises(NasError, match=says):
        objective_from(document, "here")

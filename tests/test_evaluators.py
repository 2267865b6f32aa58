"""What the built-in evaluators do beyond their contract: fidelities, limits, descriptions."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load
from torch.utils.data import TensorDataset

from evaluators.cost import CostEvaluator
from evaluators.staged import Staged
from evaluators.training import TrainingEvaluator
from nas.budget import Cost
from nas.components import OPAQUE, create, describe
from nas.cost import architecture_cost
from nas.data import digits, from_datasets, split
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.execution.guard import run_trial
from nas.objective import Metric, maximize, minimize
from nas.space import network, parse
from nas.training import Recipe, evaluate, initialised, retrain
from nas.trial import Failed, Fidelity, Infeasible, Measured, Proposal
from search_spaces.chain import Chain

SPACE = Chain(input=(1, 8, 8))
ARCH = parse(
    SPACE,
    "depth=2 conv0/kernel=3 conv0/width=16 conv0/stride=1 "
    "conv1/kernel=3 conv1/width=16 conv1/stride=2 pool=none dense=0",
)
PROPOSAL = Proposal(0, ARCH, seed=4)


@pytest.fixture(scope="module")
def data():
    return digits()


# ---------------------------------------------------------------------------- costs


def test_costs_are_those_of_the_network():
    evaluator = CostEvaluator(SPACE)
    outcome = evaluator.evaluate(PROPOSAL)
    assert outcome.values == dataclasses.asdict(architecture_cost(SPACE, ARCH))
    assert outcome.values["parameters"] == sum(p.numel() for p in network(SPACE, ARCH).parameters())
    assert outcome.cost == Cost()
    assert evaluator.planned_epochs(Fidelity(epochs=9)) == 0


# ------------------------------------------------------------------------- training


def test_training_is_validated_on_what_it_was_not_trained_on(data):
    evaluator = TrainingEvaluator(SPACE, data, epochs=2)
    outcome = evaluator.evaluate(PROPOSAL)
    net = network(SPACE, ARCH)
    net.load_state_dict(load(outcome.artifacts["model.safetensors"]))
    _, held_out = split(data, 0.2)
    assert (outcome.values["accuracy"], outcome.values["loss"]) == evaluate(net, held_out)
    assert outcome.values["accuracy"] > 0.3
    assert outcome.cost == Cost(epochs=2)
    assert len(outcome.notes["curve"]) == 2
    assert outcome.notes["preprocessing"] == data.preprocessing


def test_a_proposal_overrides_the_fidelity(data):
    evaluator = TrainingEvaluator(SPACE, data, epochs=3, data_fraction=0.5)
    asked = dataclasses.replace(PROPOSAL, fidelity=Fidelity(1, 0.25, 6))
    outcome = evaluator.evaluate(asked)
    assert outcome.cost.epochs == evaluator.planned_epochs(asked.fidelity) == 0.25
    assert evaluator.planned_epochs(Fidelity()) == 1.5
    assert evaluator.planned_epochs(Fidelity(epochs=4)) == 2.0
    same = TrainingEvaluator(SPACE, data, epochs=1, data_fraction=0.25, resolution=6)
    assert same.evaluate(PROPOSAL) == outcome
    assert same.evaluate(PROPOSAL).values != evaluator.evaluate(PROPOSAL).values
    for other in (Fidelity(2, 0.25, 6), Fidelity(1, 0.5, 6), Fidelity(1, 0.25, 7)):
        again = evaluator.evaluate(dataclasses.replace(PROPOSAL, fidelity=other))
        assert again.values["loss"] != outcome.values["loss"]


def test_a_data_fraction_trains_on_the_beginning_of_the_fixed_order(data):
    part, _ = split(data, 0.2)
    count = round(0.1 * len(part))
    images, labels = data.train.batch(part.indices[:count])
    assert len(set(labels.tolist())) == 10
    small = from_datasets(TensorDataset(images, labels), crop_padding=1, classes=10)
    curve = retrain(SPACE, ARCH, small, epochs=1, seed=4).curve
    outcome = TrainingEvaluator(SPACE, data, epochs=1, data_fraction=0.1).evaluate(PROPOSAL)
    assert outcome.notes["curve"] == curve


def test_the_seed_of_the_proposal_is_used(data):
    evaluator = TrainingEvaluator(SPACE, data, epochs=1, data_fraction=0.1)
    other = evaluator.evaluate(dataclasses.replace(PROPOSAL, seed=5))
    assert other.values["loss"] != evaluator.evaluate(PROPOSAL).values["loss"]


def test_weights_are_kept_only_when_wanted(data):
    evaluator = TrainingEvaluator(SPACE, data, epochs=1, data_fraction=0.1, keep_weights=False)
    assert evaluator.evaluate(PROPOSAL).artifacts == {}


def test_a_diverged_training_is_a_failed_trial(data):
    recipe = Recipe(learning_rate=1e30, gradient_clip=None, warmup=0.0)
    trial = run_trial(TrainingEvaluator(SPACE, data, epochs=2, recipe=recipe), PROPOSAL)
    assert isinstance(trial.outcome, Failed)
    assert trial.outcome.cause == "not finite"
    assert "in epoch" in trial.outcome.message


def test_an_item_that_cannot_be_loaded_is_a_failed_trial():
    class Fails(torch.utils.data.Dataset):
        broken = False

        def __len__(self):
            return 40

        def __getitem__(self, index):
            if self.broken:
                raise OSError("the disk is gone")
            return torch.zeros(1, 8, 8), index % 10

    dataset = Fails()
    evaluator = TrainingEvaluator(SPACE, from_datasets(dataset), epochs=1)
    dataset.broken = True
    trial = run_trial(evaluator, PROPOSAL)
    assert isinstance(trial.outcome, Failed)
    assert "OSError: the disk is gone" in trial.outcome.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"data_fraction": 1.5}, "data_fraction must be above 0"),
        ({"resolution": 0}, "resolution must be at least 1"),
        ({"validation_fraction": 1.0}, "validation share"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"device": "tpu"}, "no device 'tpu'"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(data, arguments, message):
    with pytest.raises(ConfigError, match=message):
        TrainingEvaluator(SPACE, data, **arguments)


def test_data_that_do_not_fit_are_refused_at_once(data):
    with pytest.raises(DataError, match=r"\(1, 8, 8\).*\(3, 32, 32\).*input to 1x8x8"):
        TrainingEvaluator(Chain(), data)
    with pytest.raises(DataError, match=r"10 classes.*7 apart.*classes to 10"):
        TrainingEvaluator(Chain(input=(1, 8, 8), classes=7), data)


def test_a_resolution_is_for_images():
    vectors = from_datasets(TensorDataset(torch.zeros(20, 5), torch.arange(20) % 10))

    class Vectors:
        name, choices, input, classes = "vectors/v1", (), (5,), 10

    with pytest.raises(ConfigError, match="a resolution is for images"):
        TrainingEvaluator(Vectors(), vectors, resolution=8)
    evaluator = TrainingEvaluator(Vectors(), vectors)
    with pytest.raises(ConfigError, match="a resolution is for images"):
        evaluator.evaluate(Proposal(0, ARCH, fidelity=Fidelity(resolution=8)))


def test_evaluators_are_little_more_than_their_data_to_pickle(data):
    evaluator = TrainingEvaluator(SPACE, data)
    evaluator.evaluate(dataclasses.replace(PROPOSAL, fidelity=Fidelity(1, 0.1)))
    assert len(pickle.dumps(evaluator)) < len(pickle.dumps(data)) + 4000


# --------------------------------------------------------------------- descriptions


def test_a_description_in_full_makes_the_same_evaluator(data):
    recipe = Recipe(learning_rate=0.02, batch_size=16, gradient_clip=None, augment=False)
    training = TrainingEvaluator(SPACE, data, 2, 0.5, 6, 0.3, recipe, "cpu", 2, False)
    staged = Staged([CostEvaluator(SPACE), training], [maximize("accuracy"), minimize("macs")])
    description = json.loads(json.dumps(describe(staged)))
    again = create("evaluators", description, "evaluator")
    assert describe(again) == description
    assert again.stages[1].recipe == recipe
    assert again.stages[1].device == "cpu"
    assert again.stages[1].keep_weights is False
    assert again.stages[1].space == SPACE


def _created(data, **arguments):
    given = {"space": SPACE, "data": data}
    return create("evaluators", {"name": "training", **arguments}, "evaluator", given)


def test_a_recipe_is_a_mapping_in_a_configuration(data):
    # As YAML reads it: 1e-3 without a point is a string to it.
    made = _created(data, recipe={"learning_rate": "1e-3", "batch_size": 8}, epochs=5)
    assert made.recipe == Recipe(learning_rate=1e-3, batch_size=8)
    assert made.epochs == 5


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"learning_rte": 0.1}, r"evaluator.recipe has no 'learning_rte': .*'learning_rate'"),
        ({"batch_size": "many"}, r"evaluator.recipe.batch_size: .*integer.*'many'"),
        ({"momentum": 3.0}, r"evaluator.recipe: recipe: momentum must be"),
        ("fast", r"evaluator.recipe: there is no recipe 'fast': .*nasbench201"),
        (3, r"evaluator.recipe must be a mapping"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_place(data, recipe, message):
    with pytest.raises(ConfigError, match=message):
        _created(data, recipe=recipe)


def test_a_bad_device_is_refused_with_its_place(data):
    with pytest.raises(ConfigError, match=r"evaluator.device: .*'auto'"):
        _created(data, device="tpu")


def test_data_of_a_script_make_an_opaque_description():
    own = from_datasets(TensorDataset(torch.zeros(40, 1, 8, 8), torch.arange(40) % 10))
    assert describe(TrainingEvaluator(SPACE, own))["data"] == {OPAQUE: "nas.data.Data"}


# --------------------------------------------------------------------------- staged


class Stage:
    """Gives what it is told to, and remembers that it was asked."""

    def __init__(self, metric, outcome, epochs=1.0):
        self.metrics = (Metric(metric, "1", "minimize"),)
        self.outcome = outcome
        self.epochs = epochs
        self.asked = 0

    def evaluate(self, proposal):
        self.asked += 1
        return self.outcome

    def planned_epochs(self, fidelity):
        return self.epochs


def _measured(metric, value, **more):
    return Measured({metric: value}, **more)


def test_stages_measure_together():
    first = Stage("a", _measured("a", 1, cost=Cost(0, 2.0, 1.0), notes={"x": 1}), 1.0)
    second = Stage(
        "b", _measured("b", 2, cost=Cost(0, 3.0, 0.5), notes={"y": 2}, artifacts={"f": b"1"}), 0.5
    )
    staged = Staged([first, second], [minimize("a")])
    rows = [
        {"evaluator": "Stage", "values": {"a": 1}, "seconds": 2.0, "epochs": 1.0},
        {"evaluator": "Stage", "values": {"b": 2}, "seconds": 3.0, "epochs": 0.5},
    ]
    assert staged.evaluate(PROPOSAL) == Measured(
        {"a": 1, "b": 2}, Cost(0, 5.0, 1.5), {"x": 1, "y": 2, "stages": rows}, {"f": b"1"}
    )
    assert [metric.name for metric in staged.metrics] == ["a", "b"]
    assert staged.planned_epochs(Fidelity()) == 1.5
    assert staged.preview(ARCH) == {}


def test_a_stage_without_an_account_of_its_time_is_timed():
    outcome = Staged([Stage("a", _measured("a", 1))], [minimize("a")]).evaluate(PROPOSAL)
    assert outcome.cost.seconds > 0


def test_a_broken_limit_ends_it_before_the_next_stage():
    first = Stage("a", _measured("a", 9, cost=Cost(0, 2.0, 1.0)))
    second = Stage("b", _measured("b", 1))
    staged = Staged([first, second], [minimize("a", limit=5)])
    rows = [{"evaluator": "Stage", "values": {"a": 9}, "seconds": 2.0, "epochs": 1.0}]
    assert staged.evaluate(PROPOSAL) == Infeasible(
        "a is 9, must be at most 5", {"a": 9}, Cost(0, 2.0, 1.0), {"stages": rows}
    )
    assert (first.asked, second.asked) == (1, 0)
    assert isinstance(Staged([first], [minimize("a", limit=9)]).evaluate(PROPOSAL), Measured)


def test_an_infeasible_stage_ends_it_with_all_that_is_known():
    first = Stage("a", _measured("a", 1, cost=Cost(0, 1.0, 1.0)))
    second = Stage("b", Infeasible("too slow", {"b": 3}, Cost(0, 1.0, 0.0), {"y": 1}))
    third = Stage("c", _measured("c", 1))
    outcome = Staged([first, second, third], [minimize("a")]).evaluate(PROPOSAL)
    rows = [
        {"evaluator": "Stage", "values": {"a": 1}, "seconds": 1.0, "epochs": 1.0},
        {"evaluator": "Stage", "values": {"b": 3}, "seconds": 1.0, "epochs": 0.0},
    ]
    notes = {"y": 1, "stages": rows}
    assert outcome == Infeasible("too slow", {"a": 1, "b": 3}, Cost(0, 2.0, 1.0), notes)
    assert third.asked == 0


def test_limits_on_costs_are_decided_before_training(data):
    training = TrainingEvaluator(SPACE, data, epochs=1, data_fraction=0.1)
    costs = CostEvaluator(SPACE)
    macs = costs.evaluate(PROPOSAL).values["macs"]
    for limit, kind, epochs in ((macs, Measured, 0.1), (macs - 1, Infeasible, 0.0)):
        staged = Staged([costs, training], [maximize("accuracy"), minimize("macs", limit=limit)])
        outcome = staged.evaluate(PROPOSAL)
        assert type(outcome) is kind
        assert outcome.cost.epochs == pytest.approx(epochs)
        assert staged.preview(ARCH) == costs.preview(ARCH)


def test_stages_that_overlap_are_refused():
    costs = CostEvaluator(SPACE)
    with pytest.raises(ConfigError, match=r"stages 0 and 1 both measure 'parameters'"):
        Staged([costs, costs], [minimize("macs")])
    with pytest.raises(ConfigError, match="one stage at least"):
        Staged([], [minimize("macs")])
    for name in ("notes", "artifacts"):
        stages = [Stage(metric, _measured(metric, 1, **{name: {"x": b""}})) for metric in "ab"]
        with pytest.raises(UnsupportedRequest, match="'x', as a stage before it does"):
            Staged(stages, [minimize("a")]).evaluate(PROPOSAL)


def test_initial_weights_are_the_seed_alone():
    torch.manual_seed(1)
    one = initialised(SPACE, ARCH, 3).state_dict()
    torch.manual_seed(2)
    other = initialised(SPACE, ARCH, 3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)

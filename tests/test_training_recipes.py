"""The parts of a recipe: each does what its paper says, and nothing where it is not asked for."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Subset

from evaluators.training import TrainingEvaluator
from nas.components import create, describe
from nas.config import build
from nas.cost import count
from nas.data import digits
from nas.errors import ConfigError, UnsupportedRequest
from nas.layers import GlobalAveragePool
from nas.layers.cells import DropPath
from nas.layers.mobile import Residual
from nas.space import parse
from nas.training import PUBLISHED, Recipe, cutout, initialised, mixup, train, train_until
from nas.training import loop as training_loop
from nas.training.averaging import Average
from nas.training.drop_path import branches, dropping
from nas.training.precision import Gradients, is_mixed
from nas.training_state import TrainingState
from nas.trial import NotFinite
from search_spaces.nasbench201 import NasBench201

SPACE = NasBench201(channels=4, cells=1, input=(1, 8, 8))
ARCH = parse(
    SPACE,
    "0->1=nor_conv_3x3 0->2=skip_connect 1->2=nor_conv_1x1 "
    "0->3=skip_connect 1->3=avg_pool_3x3 2->3=none",
)
EVERYTHING = Recipe(
    cutout=3, mixup=0.4, drop_path=0.3, average=0.9, channels_last=True, decay_norms=False,
    nesterov=False, label_smoothing=0.1, mixed_precision=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def part():
    return Subset(digits().train, torch.arange(96))


def trained(part, recipe, epochs=1, **others):
    net = initialised(SPACE, ARCH, 1)
    return net, train_until(net, part, recipe, epochs, 1, **others)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# ------------------------------------------------------------------------------- augmentation


@settings(max_examples=25, deadline=None)
@given(side=st.integers(1, 12), height=st.integers(2, 9), width=st.integers(2, 9))
def test_cutout_blanks_one_rectangle_no_larger_than_its_side(side, height, width):
    images = torch.ones(20, 2, height, width)
    blanked = cutout(images, side) == 0
    assert torch.equal(blanked[:, 0], blanked[:, 1])
    for image in blanked[:, 0]:
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        assert len(rows) in range(1, min(side, height) + 1)
        assert len(columns) in range(1, min(side, width) + 1)
        assert image.sum() == len(rows) * len(columns)
        assert len(rows) == rows.max() - rows.min() + 1
    assert torch.equal(images, torch.ones_like(images))  # the caller's


def test_cutout_is_centred_anywhere_alike():
    torch.manual_seed(0)
    blanked = (cutout(torch.ones(20_000, 1, 5, 5), 1) == 0).double().mean(0)[0]
    torch.testing.assert_close(blanked, torch.full((5, 5), 0.04).double(), atol=0.006, rtol=0)
    assert cutout(torch.ones(3, 4), 2) is not None
    assert torch.equal(cutout(torch.ones(3, 4), 2), torch.ones(3, 4))


def test_mixup_mixes_pairs_by_one_share():
    torch.manual_seed(3)
    images = torch.randn(6, 1, 2, 2)
    mixed, order, share = mixup(images, 1.0)
    assert sorted(order.tolist()) == list(range(6))
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images[order])
    shares = torch.tensor([mixup(images, 0.2)[2] for _ in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * 1.4), abs=0.02)  # of Beta(0.2, 0.2)


def test_the_loss_of_a_mixed_batch_is_that_of_mixed_targets():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.randn(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    recipe = Recipe(mixup=0.5, label_smoothing=0.1)
    torch.manual_seed(9)
    loss = training_loop.batch_loss(net, images, labels, recipe)
    torch.manual_seed(9)
    mixed, order, share = mixup(images, 0.5)
    hot = nn.functional.one_hot(labels, 3).float()
    target = share * hot + (1 - share) * hot[order]
    expected = nn.functional.cross_entropy(net(mixed), target, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)


# ---------------------------------------------------------------------------------- drop path


def test_drop_path_stands_behind_edges_and_is_gone_afterwards():
    net = initialised(SPACE, ARCH, 0)
    before, names = count(net, SPACE.input), [name for name, _ in net.named_modules()]
    found = branches(net)
    assert len(found) == 3 * 3  # three stages, skips and missing edges excepted
    x = torch.randn(4, 1, 8, 8)
    plain = net.train()(x)
    with dropping(net, 0.5) as schedule:
        schedule(0.0)
        assert torch.equal(net(x), plain)
        schedule(1.0)
        torch.manual_seed(0)
        assert not torch.equal(net(x), plain)
        assert torch.equal(net.eval()(x), net(x))
        net.train()
    assert torch.equal(net(x), plain)
    assert [name for name, _ in net.named_modules()] == names
    assert count(net, SPACE.input) == before


def test_drop_path_sets_the_layers_that_are_there_and_sets_them_back():
    net = nn.Sequential(DropPath(probability=0.1), nn.Flatten(), nn.Linear(4, 2))
    with dropping(net, 0.4) as schedule:
        assert net[0].probability == 0.1
        schedule(0.5)
        assert net[0].probability == pytest.approx(0.2)
    assert net[0].probability == 0.1
    residual = Residual(nn.Conv2d(1, 1, 1))
    assert branches(nn.Sequential(residual, GlobalAveragePool())) == [residual.body]


def test_drop_path_is_refused_where_nothing_can_be_left_out(part):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UnsupportedRequest, match=r"drop_path is 0.2, but Sequential has no edges"):
        train(net, part, Recipe(drop_path=0.2), 1, 0)


# -------------------------------------------------------------------------------- the average


def test_the_average_is_that_of_arithmetic():
    net = nn.BatchNorm1d(2)
    average, expected = Average(net, 0.5), dict(net.state_dict())
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    for step in range(4):
        with torch.no_grad():
            net.weight += step + 1.0
            net.running_mean -= 1.0
            net.num_batches_tracked += 1
        average.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name in ("weight", "running_mean"):
            expected[name] = decay * expected[name] + (1 - decay) * net.state_dict()[name]
    torch.testing.assert_close(average.state["weight"], expected["weight"])
    torch.testing.assert_close(average.state["running_mean"], expected["running_mean"])
    assert int(average.state["num_batches_tracked"]) == 4
    last = net.weight.clone()
    with average.applied(net):
        assert torch.equal(net.weight, average.state["weight"])
    assert torch.equal(net.weight, last)


def test_a_training_with_an_average_ends_with_it_and_steps_as_without(part):
    plain, state = trained(part, Recipe(), 2)
    averaged, with_average = trained(part, Recipe(average=0.9), 2)
    assert same(state.weights, with_average.weights)  # what the steps are taken on
    assert same(dict(averaged.state_dict()), with_average.average)
    assert not same(dict(averaged.state_dict()), dict(plain.state_dict()))
    assert state.average == {}


def test_callbacks_see_the_average(part):
    net, seen = initialised(SPACE, ARCH, 1), []

    def look(epoch, loss):
        seen.append({name: tensor.clone() for name, tensor in net.state_dict().items()})

    state = train_until(net, part, Recipe(average=0.9), 2, 1, on_epoch=look)
    assert same(seen[-1], state.average)
    begun = trained(part, Recipe(), 1, schedule_epochs=2)[1]
    with pytest.raises(ConfigError, match="average is set, but the training was begun without"):
        train_until(net, part, Recipe(average=0.9), 2, 1, start=begun)


# -------------------------------------------------------------------- exactness, with everything


def test_continued_equals_at_once_with_everything_on(part):
    once, whole = trained(part, EVERYTHING, 3)
    first = trained(part, EVERYTHING, 1, schedule_epochs=3)[1]
    stored = TrainingState.from_bytes(first.to_bytes())
    net = initialised(SPACE, ARCH, 7)
    continued = train_until(net, part, EVERYTHING, 3, 7, start=stored)
    assert continued.curve == whole.curve
    for name in ("weights", "momentum", "random", "average"):
        assert same(getattr(continued, name), getattr(whole, name))
    assert same(net.state_dict(), once.state_dict())
    assert all(tensor.is_contiguous() for tensor in net.state_dict().values())


def test_norms_are_not_decayed_where_the_recipe_says_so(part):
    net = initialised(SPACE, ARCH, 0)
    optimizer = training_loop.make_optimizer(net, Recipe(decay_norms=False, nesterov=False))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (5e-4, 0.0)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {id(p) for p in spared["params"]} == {id(p) for m in norms for p in m.parameters()}
    every = len(list(net.parameters()))
    assert len(decayed["params"]) + len(spared["params"]) == every
    assert not decayed["nesterov"]


# -------------------------------------------------------------------- gradients and precision


class Exploding(nn.Module):
    """Its loss is finite; from its third step on, one gradient is not."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Linear(64, 10)
        self.bad = nn.Parameter(torch.zeros(1))
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        zero = self.bad * 0
        zero = zero.sqrt() if self.steps > 2 else zero
        return self.fine(x.flatten(1)) + zero


@pytest.mark.parametrize("clip", [5.0, None])
def test_a_gradient_that_is_not_finite_is_named(part, clip):
    recipe = Recipe(batch_size=48, gradient_clip=clip)
    with pytest.raises(
        NotFinite, match=r"gradient of 'bad' is not finite in epoch 2, step 1, where the loss is"
    ):
        train(Exploding(), part, recipe, 3, 0)


def test_mixed_precision_plays_no_part_on_a_cpu(part):
    recipe = Recipe(mixed_precision=True)
    assert not is_mixed(recipe, torch.device("cpu"))
    assert is_mixed(recipe, torch.device("cuda"))
    assert same(trained(part, recipe)[1].weights, trained(part, Recipe())[1].weights)


def scaled(monkeypatch, network, **recipe):
    """Gradients with loss scaling on a CPU, which a GPU would have."""
    monkeypatch.setattr("nas.training.precision.is_mixed", lambda recipe, place: True)
    settings = Recipe(momentum=0.0, nesterov=False, weight_decay=0.0, **recipe)
    optimizer = training_loop.make_optimizer(network, settings)
    return Gradients(network, optimizer, settings, torch.device("cpu"))


def test_an_overflow_of_the_scaled_loss_is_a_step_left_out(monkeypatch):
    net = nn.Linear(1, 1, bias=False)
    before = net.weight.detach().clone()
    gradients = scaled(monkeypatch, net)
    scale = gradients.scaler.get_scale()
    huge = torch.tensor(3e38 / scale * 4)  # finite, until it is scaled
    gradients.step((net.weight * huge).sum(), "epoch 1, step 1")
    assert torch.equal(net.weight, before)
    assert gradients.scaler.get_scale() == scale / 2
    gradients.step(net.weight.sum(), "epoch 1, step 2")
    torch.testing.assert_close(net.weight, before - 0.1)
    state = gradients.state()
    again = scaled(monkeypatch, net)
    again.load(state)
    assert again.scaler.state_dict() == gradients.scaler.state_dict()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_mixed_precision_trains_on_a_gpu(part):
    net, state = trained(part, EVERYTHING, 3, device="cuda")
    assert state.curve[-1] < state.curve[0]
    assert set(state.scale) >= {"scale", "_growth_tracker"}
    assert all(tensor.dtype != torch.float16 for tensor in net.state_dict().values())


def test_an_overflow_that_no_scale_explains_is_refused(monkeypatch):
    net = nn.Linear(1, 1, bias=False)
    gradients = scaled(monkeypatch, net)
    while gradients.scaler.get_scale() > 1:
        gradients.step((net.weight * math.nan).sum(), "epoch 1, step 8")
    with pytest.raises(NotFinite, match=r"training loss is nan in epoch 1, step 9, and the gradi"):
        gradients.step((net.weight * math.nan).sum(), "epoch 1, step 9")


# ----------------------------------------------------------------------------------- the value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cutout", -1),
        ("mixup", -0.1),
        ("mixup", math.inf),
        ("drop_path", 1.0),
        ("average", 1.0),
        ("average", -0.1),
    ],
)
def test_parts_check_their_ranges(field, value):
    with pytest.raises(ConfigError, match=rf"recipe: {field} must be .*, got {value}"):
        Recipe(**{field: value})


def test_published_recipes_by_name():
    assert Recipe.named("darts") is PUBLISHED["darts"]
    assert PUBLISHED["nasbench201"].rate(0, 200) == 0.1  # no warm-up
    with pytest.raises(ConfigError, match=r"no recipe 'mobilnet': did you mean 'mobilenet'"):
        Recipe.named("mobilnet")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("darts", PUBLISHED["darts"]),
        ({"name": "darts", "batch_size": 32}, replace(PUBLISHED["darts"], batch_size=32)),
        ({"cutout": 4}, Recipe(cutout=4)),
    ],
)
def test_recipes_in_a_configuration(written, expected):
    given_ = {"space": SPACE, "data": digits()}
    made = create("evaluators", {"name": "training", "recipe": written}, "evaluator", given_)
    assert isinstance(made, TrainingEvaluator)
    assert made.recipe == expected
    again = create("evaluators", describe(made), "evaluator")
    assert again.recipe == expected


def test_the_page_on_training_is_true():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    run = build(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[0]))
    assert run.evaluator.recipe == replace(PUBLISHED["nasbench201"], batch_size=64, cutout=2)
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(PUBLISHED) | {field.name for field in fields(Recipe)} - {"batch_size"}

"""The loop of the differentiable strategies: whose gradients are whose, and that they are right."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from gradient_workloads import Edges, patterns, quick
from torch.nn import functional as F

from nas.data import split
from nas.errors import ConfigError, DataError
from nas.supernet import Supernet
from nas.trial import NotFinite
from strategies import beta_darts, darts, drnas, gdas, pc_darts, snas
from strategies.gradient import (
    Batch,
    GradientSearch,
    GradientSettings,
    alternating,
    first_order,
    jointly,
)
from strategies.pc_darts import EdgeRelaxation
from strategies.relaxation import OptionRelaxation

STARTS = {
    "darts": lambda: OptionRelaxation(scale=0.5),
    "pc_darts": lambda: EdgeRelaxation(scale=0.5),
    "gdas": lambda: OptionRelaxation(gdas.HardGumbel(2.0, 1.0), scale=0.5),
    "snas": lambda: OptionRelaxation(
        lambda logits, progress: gdas.gumbel_softmax(logits, 0.7), scale=0.5
    ),
    "drnas": lambda: OptionRelaxation(drnas.draw, drnas.mean, scale=0.5),
    "beta_darts": lambda: OptionRelaxation(extra=beta_darts.BetaDecay(3.0), scale=0.5),
}


def made(relaxation=None, step=first_order, **kwargs):
    settings = kwargs.pop("settings", quick(GradientSettings()))
    relaxation = OptionRelaxation(scale=0.5) if relaxation is None else relaxation
    data = kwargs.pop("data", None) or patterns()
    return GradientSearch(Edges(), data, relaxation, step, settings, seed=3, **kwargs)


def exact(search):
    """The search in double precision, and a batch of each half."""
    search.supernet.double()
    for label, parameter in search.parameters.items():
        search.parameters[label] = torch.nn.Parameter(parameter.detach().double())
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(2):
        images = torch.randn(8, 2, 4, 4, generator=generator, dtype=torch.float64)
        batches.append(Batch(images, torch.arange(8) % 3))
    search._position = search.settings.epochs / 2
    return batches


def validation_loss(search, batch, seed=1):
    torch.manual_seed(seed)  # what samples draws the same again
    gates = search.relaxation.gates(search.parameters, search.progress)
    return search.architecture_loss(search.cross_entropy(batch, gates), gates)


# ----------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", [name for name in STARTS if name not in ("gdas", "drnas")])
def test_alpha_gradients_match_finite_differences(name):
    search = made(STARTS[name]())
    training, validation = exact(search)
    torch.manual_seed(1)
    first_order(search, training, validation)
    checked = 0
    for parameter in search.parameters.values():
        for index in range(len(parameter)):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[index] += sign * 1e-6
                    sides.append(float(validation_loss(search, validation)))
                    parameter[index] -= sign * 1e-6
            difference = (sides[0] - sides[1]) / 2e-6
            assert float(parameter.grad[index]) == pytest.approx(difference, rel=1e-5, abs=1e-8)
            checked += abs(difference) > 1e-6
    assert checked >= 12


# The published radius crosses kinks of the ReLUs; a smaller one hardly does.
@pytest.mark.parametrize(("radius", "tolerance"), [(0.01, 0.15), (1e-5, 1e-6)])
def test_second_order_matches_exact_differentiation_through_the_step(
    monkeypatch, radius, tolerance
):
    assert darts.RADIUS == 0.01
    monkeypatch.setattr(darts, "RADIUS", radius)
    search = made(step=darts.second_order)
    training, validation = exact(search)
    rate, settings = 0.05, search.settings
    for group in search.weight_optimiser.param_groups:
        group["lr"] = rate
    generator = torch.Generator().manual_seed(9)
    weights = dict(search.supernet.named_parameters())
    momenta = {
        name: 0.1 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in weights.items()
    }
    for name, weight in weights.items():
        search.weight_optimiser.state[weight]["momentum_buffer"] = momenta[name].clone()
    before = copy.deepcopy(search.supernet.state_dict())
    darts.second_order(search, training, validation)
    found = torch.cat([parameter.grad for parameter in search.parameters.values()])
    assert all(weight.grad is None for weight in weights.values())
    assert all(torch.equal(before[name], weight) for name, weight in weights.items())

    # Exactly: the inner step is differentiated through.
    def loss_at(values, batch, gates):
        logits = torch.func.functional_call(search.supernet, values, (batch.images, gates))
        return F.cross_entropy(logits, batch.labels)

    gates = search.relaxation.gates(search.parameters, 0.5)
    inner = loss_at(weights, training, gates)
    gradients = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    unrolled = {
        name: weight
        - rate * (g + settings.weight_decay * weight.detach() + settings.momentum * momenta[name])
        for (name, weight), g in zip(weights.items(), gradients, strict=True)
    }
    outer = loss_at(unrolled, validation, gates)
    exactly = torch.cat(torch.autograd.grad(outer, list(search.parameters.values())))
    gates = search.relaxation.gates(search.parameters, 0.5)
    first = torch.cat(
        torch.autograd.grad(
            loss_at({k: v.detach() for k, v in unrolled.items()}, validation, gates),
            list(search.parameters.values()),
        )
    )
    # The term of second order is there to be seen.
    term, expected = found - first, exactly - first
    assert float(expected.norm()) > 1e-3 * float(first.norm())
    assert float((term - expected).norm()) < tolerance * float(expected.norm())


@pytest.mark.parametrize("name", STARTS)
def test_each_step_moves_its_own_parameters_alone(name):
    search = made(STARTS[name](), device="cpu")
    batch = search.validation_batch()
    torch.manual_seed(0)
    first_order(search, batch, batch)
    assert all(weight.grad is None for weight in search.supernet.parameters())
    assert all(weight.requires_grad for weight in search.supernet.parameters())
    assert any(p.grad is not None and p.grad.any() for p in search.parameters.values())

    alphas = [parameter.detach().clone() for parameter in search.parameters.values()]
    gradients = [p.grad for p in search.parameters.values()]
    search.step = lambda *_: None  # an architecture step that does nothing
    search.settings = replace(search.settings, arch_weight_decay=0.0)
    for parameter in search.parameters.values():
        parameter.grad = None
    weights = [weight.detach().clone() for weight in search.supernet.parameters()]
    alternating(search, batch, batch)
    assert len(gradients) == len(alphas)
    assert all(parameter.grad is None for parameter in search.parameters.values())
    assert all(map(torch.equal, alphas, search.parameters.values()))
    assert not all(map(torch.equal, weights, search.supernet.parameters()))


def test_a_joint_step_has_the_gradients_of_one_pass():
    search = made(steps=jointly, share=1.0)
    batch, _ = exact(search)
    other = copy.deepcopy(search)
    search.arch_optimiser.step = search.weight_optimiser.step = lambda: None
    jointly(search, batch, batch)
    gates = other.relaxation.gates(other.parameters, other.progress)
    loss = F.cross_entropy(other.supernet(batch.images, gates), batch.labels)
    weights = list(other.supernet.parameters())
    expected = torch.autograd.grad(loss, [*weights, *other.parameters.values()], allow_unused=True)
    clipped = torch.stack([g.norm() for g in expected[: len(weights)] if g is not None]).norm()
    assert clipped < search.settings.gradient_clip
    found = [p.grad for p in (*search.supernet.parameters(), *search.parameters.values())]
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)


# ------------------------------------------------------------------------------ the epochs


class Counted(torch.utils.data.Dataset):
    def __init__(self, wrapped, seen):
        self.wrapped, self.seen = wrapped, seen

    def __len__(self):
        return len(self.wrapped)

    def __getitem__(self, index):
        self.seen.append(int(index))
        return self.wrapped[index]


def test_an_epoch_is_one_pass_over_each_half_and_never_the_test_set():
    data = patterns(examples=26)
    seen, tested = [], []
    data = replace(data, train=Counted(data.train, seen), test=Counted(data.train, tested))
    search = made(data=data)
    first, second = (set(part.indices.tolist()) for part in split(data, 0.5))
    assert not first & second
    assert len(first | second) == 26
    for epoch in range(2):
        seen.clear()
        search.advance()
        assert sorted(seen) == list(range(26))
        assert search.examples == 26 * (epoch + 1)
        assert search.examples / search.whole == epoch + 1
    assert not tested


def test_a_single_level_epoch_is_one_pass_over_all_of_it():
    search = made(steps=jointly, share=1.0)
    search.advance()
    assert search.examples == search.whole == 24


def test_architecture_parameters_rest_in_the_warm_up():
    search = made(settings=quick(GradientSettings(), warmup_epochs=2, epochs=4))
    start = {label: p.detach().clone() for label, p in search.parameters.items()}
    for _ in range(2):
        search.advance()
    assert all(torch.equal(start[label], p) for label, p in search.parameters.items())
    assert search.examples == 24
    search.advance()
    assert not any(torch.equal(start[label], p) for label, p in search.parameters.items())


def test_the_weights_learning_rate_falls_down_a_cosine():
    settings = GradientSettings(epochs=50)
    rates = [settings.rate(epoch) for epoch in range(51)]
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.025), 50, eta_min=0.001
    )
    assert rates[0] == 0.025
    assert rates[50] == pytest.approx(0.001)
    assert rates[:3] == pytest.approx([expected._get_closed_form_lr()[0], rates[1], rates[2]])
    assert rates[25] == pytest.approx(0.013)


@pytest.mark.parametrize("step", [first_order, darts.second_order])
def test_a_search_minimises_its_losses(step):
    search = made(step=step, settings=quick(GradientSettings(), epochs=12, weight_lr=0.05))
    for _ in range(12):
        search.advance()
    losses = [point["train_loss"] for point in search.curve]
    assert losses[-1] < 0.7 * losses[0]
    assert search.done


def test_the_same_seed_gives_the_same_bits_and_a_state_goes_on():
    whole, loaded = made(step=darts.second_order), made(step=darts.second_order)
    for _ in range(4):
        whole.advance()
    begun = made(step=darts.second_order)
    for _ in range(2):
        begun.advance()
    loaded.load_state_dict(begun.state_dict())
    torch.manual_seed(123)
    for _ in range(2):
        loaded.advance()
    assert loaded.curve == whole.curve
    mine, theirs = loaded.state_dict(), whole.state_dict()
    assert all(torch.equal(mine["supernet"][k], v) for k, v in theirs["supernet"].items())
    assert all(torch.equal(mine["parameters"][k], v) for k, v in theirs["parameters"].items())


def test_a_search_that_diverges_says_so():
    search = made(
        settings=quick(GradientSettings(), weight_lr=1e38, gradient_clip=1e30, batch_size=2)
    )
    with pytest.raises(NotFinite, match="in epoch 1"):
        search.advance()


# ------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"weight_lr": float("nan")}, "weight_lr must be finite"),
        ({"arch_lr": -1.0}, "arch_lr must be at least 0"),
        ({"epochs": 10, "warmup_epochs": 10}, r"warmup_epochs must be below epochs \(10\)"),
    ],
)
def test_settings_out_of_range_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        GradientSettings(**changes)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="shape"):
        made(data=patterns((2, 5, 5)))


def test_the_settings_are_those_of_the_papers():
    common = {"batch_size": 64, "weight_lr": 0.025, "weight_lr_min": 0.001, "arch_lr": 3e-4}
    for module, own in (
        (darts, {"epochs": 50, "weight_decay": 3e-4, "arch_weight_decay": 1e-3}),
        (gdas, {"epochs": 250, "weight_decay": 5e-4, "nesterov": True}),
        (snas, {"epochs": 150}),
        (drnas, {"epochs": 100, "arch_weight_decay": 1e-3}),
        (beta_darts, {"epochs": 100, "arch_weight_decay": 0.0}),
        (pc_darts, {"batch_size": 256, "weight_lr": 0.1, "weight_lr_min": 0.0, "arch_lr": 6e-4}),
    ):
        for name, value in {**common, **own}.items():
            assert getattr(module.SETTINGS, name) == value, (module.__name__, name)
        assert module.SETTINGS.momentum == 0.9
        assert module.SETTINGS.gradient_clip == 5.0
        assert (module.SETTINGS.arch_beta1, module.SETTINGS.arch_beta2) == (0.5, 0.999)
    assert pc_darts.SETTINGS.warmup_epochs == 15


def test_the_supernet_is_the_spaces_search_form():
    search = made()
    assert isinstance(search.supernet, Supernet)
    assert search.supernet.training

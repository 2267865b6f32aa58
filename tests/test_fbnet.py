"""FBNet: its gates, its loss, whose steps are when, and that latency counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges, GradientContract, described, quick
from mobile_workloads import mobile, small_digits
from small_spaces import SMALL
from test_resource import milliseconds

from nas.components import create
from nas.cost import architecture_cost, slot_table
from nas.errors import ConfigError
from nas.objective import maximize, minimize
from nas.supernet import Supernet
from strategies.fbnet import SETTINGS, Fbnet, LogLatency, SoftGumbel
from strategies.gdas import gumbel_softmax
from strategies.resource import ExpectedResource, resource_table

SCORE = (maximize("score"),)
SLOTS = dict.fromkeys(EDGES, OPTIONS)


class TestFbnet(GradientContract):
    kind = Fbnet

    def arguments(self):
        return {"every": 1}


def made(**kwargs):
    settings = quick(SETTINGS, **kwargs.pop("settings", {}))
    return Fbnet(Edges(), SCORE, described(), settings=settings, **{"every": 2, **kwargs})


def test_the_papers_settings():
    assert (SETTINGS.epochs, SETTINGS.warmup_epochs, SETTINGS.batch_size) == (90, 10, 192)
    weights = (SETTINGS.weight_lr, SETTINGS.weight_lr_min, SETTINGS.momentum, SETTINGS.weight_decay)
    assert weights == (0.1, 0.0, 0.9, 1e-4)
    arch = (SETTINGS.arch_lr, SETTINGS.arch_beta1, SETTINGS.arch_beta2, SETTINGS.arch_weight_decay)
    assert arch == (0.01, 0.9, 0.999, 5e-4)
    assert (Fbnet.alpha, Fbnet.beta, Fbnet.tau, Fbnet.anneal, Fbnet.share) == (
        *(0.2, 0.6, 5.0, 0.956),
        0.8,
    )


def test_the_temperature_falls_after_each_epoch():
    gate = SoftGumbel(5.0, 0.956, 90)
    for epoch in range(90):
        for within in (0.0, 0.5, 0.99):
            found = gate.temperature((epoch + within) / 90)
            assert found == pytest.approx(5 * 0.956**epoch)
    logits = torch.tensor([0.3, -0.1, 0.8])
    torch.manual_seed(0)
    sample = gate(logits, 3 / 90)
    torch.manual_seed(0)
    torch.testing.assert_close(sample, gumbel_softmax(logits, 5 * 0.956**3))
    for tau, anneal in ((0.0, 0.9), (math.inf, 0.9), (1.0, 0.0), (1.0, 1.1)):
        with pytest.raises(ConfigError, match=r"tau|anneal"):
            SoftGumbel(tau, anneal, 3)


def test_the_loss_is_the_papers_and_so_are_its_gradients():
    # L = CE(m) · α · log(LAT(m))^β with LAT(m) = base + Σ mᵢ cᵢ, so
    # dL/dm = α log^β · dCE/dm + CE · α β log^(β−1) · c / LAT.
    torch.manual_seed(0)
    table = resource_table(Edges(), milliseconds(SLOTS), SLOTS)
    term = LogLatency(ExpectedResource(table, SLOTS), alpha=0.2, beta=0.6, unit=0.5)
    gates = {label: torch.rand(len(OPTIONS)).double().requires_grad_() for label in EDGES}
    factors = {label: torch.rand(len(OPTIONS)).double() for label in EDGES}
    entropy = sum((gates[label] * factors[label]).sum() for label in EDGES)
    term(entropy, gates).backward()
    latency = table.base + sum(
        float(gates[label][i].detach()) * table.slots[label][option]
        for label in EDGES
        for i, option in enumerate(OPTIONS)
    )
    log = math.log(latency / 0.5)
    for label in EDGES:
        for i, option in enumerate(OPTIONS):
            by_hand = 0.2 * log**0.6 * float(factors[label][i])
            cost = table.slots[label][option]
            by_hand += float(entropy.detach()) * 0.2 * 0.6 * log ** (0.6 - 1) * cost / latency
            assert float(gates[label].grad[i]) == pytest.approx(by_hand)


def test_weights_and_theta_have_the_papers_shares_of_the_data():
    strategy = Fbnet(Edges(), SCORE, described(examples=60), settings=quick(SETTINGS, batch_size=4))
    search = strategy.search()
    calls = []
    update = search.steps.update
    search.steps.update = lambda *args: (calls.append(search.progress), update(*args))
    search.advance()
    # 48 examples in 12 steps of the weights, and 12 in 3 of θ: all of the training set once.
    assert len(calls) == 3
    assert search.examples == search.whole == 60
    assert strategy.ask(1)[0].spent.epochs == 1.0


def test_theta_rests_in_the_warm_up():
    search = made(settings={"warmup_epochs": 2}).search()
    start = {label: p.detach().clone() for label, p in search.parameters.items()}
    for epoch in range(3):
        search.advance()
        moved = [not torch.equal(start[label], p) for label, p in search.parameters.items()]
        assert moved == [epoch == 2] * len(EDGES)


def test_an_epoch_that_is_repeated_from_its_state_is_the_same():
    # 4 steps an epoch and θ's after the third: steps left over must not count in the next.
    search = made(every=3).search()
    search.advance()
    state = search.state_dict()
    search.advance()
    first = {label: p.detach().clone() for label, p in search.parameters.items()}
    search.load_state_dict(state)
    search.advance()
    assert all(torch.equal(first[label], p) for label, p in search.parameters.items())
    assert not any(torch.equal(first[k], v) for k, v in state["parameters"].items())


def test_a_step_of_theta_leaves_the_weights_alone():
    search = made(every=1).search()
    weights = {name: w.detach().clone() for name, w in search.supernet.named_parameters()}
    for weight in search.supernet.parameters():
        weight.grad = None
    search.steps.update(search, search.validation_batch())
    for name, weight in search.supernet.named_parameters():
        assert torch.equal(weights[name], weight)
        assert weight.grad is None
        assert weight.requires_grad
    assert all(parameter.grad.abs().sum() > 0 for parameter in search.parameters.values())


@pytest.mark.slow
def test_gates_that_cost_more_are_searched_less():
    """The same search with latency counting next to nothing and counting much: fewer MACs."""
    space, data = mobile(), small_digits()
    costs = []
    for unit in (1e-30, 0.95):
        settings = replace(
            SETTINGS, epochs=3, warmup_epochs=1, batch_size=64, arch_lr=0.1, augment=False
        )
        slots = Supernet(space).slots
        floor = resource_table(space, "macs", slots).least()
        strategy = Fbnet(space, (maximize("accuracy"),), data, settings=settings, unit=unit * floor)
        while proposals := strategy.ask(1):
            arch = proposals[0].arch
        costs.append(architecture_cost(space, arch).macs)
    assert costs[1] < 0.7 * costs[0], costs


def test_half_the_limit_is_at_most_half_the_macs():
    space, data = mobile(), small_digits()
    settings = replace(SETTINGS, epochs=1, warmup_epochs=0, batch_size=64, augment=False)
    table = slot_table(space)
    greatest = table.base.macs + sum(
        max(terms.macs for terms in options.values()) for options in table.slots.values()
    )
    for limit in (0.9 * greatest, 0.45 * greatest):
        objectives = (maximize("accuracy"), minimize("macs", limit=limit))
        strategy = Fbnet(space, objectives, data, settings=settings)
        while proposals := strategy.ask(1):
            assert architecture_cost(space, proposals[0].arch).macs <= limit


def test_the_papers_space_is_searched():
    space = SMALL["fbnet"]()
    data = described(shape=(3, 24, 24), examples=10, classes=10)
    strategy = Fbnet(space, SCORE, data, settings=quick(SETTINGS, epochs=1, batch_size=4), every=1)
    (proposal,) = strategy.ask(1)
    assert proposal.spent.epochs == pytest.approx(
        1.6
    )  # 10 examples: 8 for the weights in two steps of 4, as for θ
    assert proposal.arch.space == space.name


def test_arguments_are_refused_where_they_make_no_sense(tmp_path):
    for arguments, message in (
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"beta": math.nan}, "beta must be above 0, got nan"),
        ({"share": 1.0}, "share must be above 0 and below 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"every": 5}, "every is 5, but an epoch has 4 steps"),
        ({"unit": 1e9}, "cheapest network costs"),
        ({"resource": "energy"}, "neither one of"),
        ({"tau": -1.0}, "tau must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(**arguments)


def test_a_table_in_a_configuration(tmp_path):
    import json

    path = tmp_path / "phone.json"
    path.write_text(json.dumps(milliseconds(SLOTS)))
    description = {
        "name": "strategies.fbnet:Fbnet",
        "space": {"name": "gradient_workloads:Edges"},
        "objectives": [{"maximize": "score"}, {"minimize": "latency_ms", "limit": 3.0}],
        "data": {"name": "gradient_workloads:patterns"},
        "settings": {"epochs": 12, "batch_size": 4},
        "resource": str(path),
        "unit": 0.1,
    }
    strategy = create("strategies", description, "strategy")
    assert strategy.settings.weight_lr == 0.1
    table = resource_table(Edges(), str(path), SLOTS)
    for _ in range(2):
        (proposal,) = strategy.ask(1)
        assert table.total(Edges().slots(proposal.arch)) <= 3.0

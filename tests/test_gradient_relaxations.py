"""What each differentiable strategy does with its parameters, written out."""

from __future__ import annotations

import math

import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges, described, quick
from small_spaces import SMALL
from torch.distributions import Dirichlet

from nas.errors import ConfigError, UnsupportedRequest
from nas.objective import maximize
from nas.supernet import EdgeGate, HardSample, Supernet, discretize
from strategies import beta_darts, darts, drnas, gdas, pc_darts, snas
from strategies.pc_darts import EdgeRelaxation
from strategies.relaxation import OptionRelaxation

SCORE = (maximize("score"),)


def made(module, cls, **kwargs):
    settings = quick(module.SETTINGS, **kwargs.pop("settings", {}))
    return cls(Edges(), SCORE, described(), settings=settings, **kwargs)


# --------------------------------------------------------------------------------- DARTS


def test_darts_gates_are_a_softmax_of_small_random_parameters():
    torch.manual_seed(0)
    relaxation = OptionRelaxation()
    parameters = relaxation.parameters(Supernet(Edges()))
    assert list(parameters) == list(EDGES)
    values = torch.cat(list(parameters.values())).detach()
    assert 3e-4 < float(values.std()) < 3e-3
    gates = relaxation.gates(parameters, 0.3)
    for label, logits in parameters.items():
        torch.testing.assert_close(gates[label], logits.exp() / logits.exp().sum())
        assert relaxation.weights(parameters)[label] == gates[label].tolist()


def test_orders_other_than_one_and_two_are_refused():
    with pytest.raises(ConfigError, match="order must be 1 or 2, got 3"):
        made(darts, darts.Darts, order=3)


def test_depths_are_relaxed_too_and_numbers_are_refused_by_name():
    found = OptionRelaxation().parameters(Supernet(SMALL["fbnet"]()))
    assert found
    with pytest.raises(UnsupportedRequest, match="is a number"):
        OptionRelaxation().parameters(Supernet(SMALL["chain"]()))


# ------------------------------------------------------------------------------ PC-DARTS


def test_edge_weights_are_a_softmax_over_the_edges_into_a_node():
    torch.manual_seed(0)
    relaxation = EdgeRelaxation(scale=1.0)
    parameters = relaxation.parameters(Supernet(SMALL["darts"]()))
    gates = relaxation.gates(parameters, 0.0)
    assert len(gates) == 28
    assert all(isinstance(gate, EdgeGate) for gate in gates.values())
    for node, sources in (("normal/2", 2), ("normal/5", 5), ("reduce/3", 3)):
        cell, _, number = node.partition("/")
        labels = [f"{cell}/{source}->{number}" for source in range(sources)]
        raw = parameters[pc_darts.EDGES + node].exp()
        for label, value in zip(labels, raw / raw.sum(), strict=True):
            torch.testing.assert_close(gates[label].weight, value)
            torch.testing.assert_close(gates[label].gate, parameters[label].softmax(0))
            product = (gates[label].gate * gates[label].weight).tolist()
            product[0] = 0.0  # none
            assert relaxation.weights(parameters)[label] == pytest.approx(product)


def test_an_edges_weight_decides_which_edges_a_darts_node_keeps():
    # Operations are equally strong on all edges, so only β can tell the edges apart.
    space = SMALL["darts"]()
    relaxation = EdgeRelaxation()
    parameters = relaxation.parameters(Supernet(space))
    with torch.no_grad():
        for label, values in parameters.items():
            values.zero_()
            if label.startswith(pc_darts.EDGES):
                values[1:3] += 1.0
            else:
                values[4] += 1.0
    arch = space.discretize(relaxation.weights(parameters))
    for node in (3, 4, 5):
        assert arch[f"normal/{node}/inputs"] == "1+2"
        assert arch[f"normal/{node}/low"] == "sep_conv_3x3"


def test_pc_darts_takes_the_strongest_operation_that_connects():
    space = SMALL["nasbench201"]()
    relaxation = EdgeRelaxation()
    parameters = relaxation.parameters(Supernet(space))
    with torch.no_grad():
        for label, values in parameters.items():
            if not label.startswith(pc_darts.EDGES):
                values.copy_(torch.tensor([5.0, 0.0, 1.0, 0.0, 0.0]))
    arch = discretize(space, relaxation.weights(parameters))
    assert {option for _, option in arch.picks} == {"nor_conv_1x1"}


def test_pc_darts_needs_slots_that_are_edges():
    space = SMALL["proxylessnas"]()
    with pytest.raises(UnsupportedRequest, match=r"PC-DARTS.*is no edge into a node"):
        EdgeRelaxation().parameters(Supernet(space))


def test_pc_darts_trains_a_quarter_of_the_channels():
    strategy = made(pc_darts, pc_darts.PcDarts)
    widths = {
        tuple(module.weight.shape[:2])
        for name, module in strategy.search().supernet.named_modules()
        if "edges" in name and isinstance(module, torch.nn.Conv2d)
    }
    assert widths == {(1, 1)}
    with pytest.raises(UnsupportedRequest, match="no multiple of 3"):
        made(pc_darts, pc_darts.PcDarts, parts=3)


# ---------------------------------------------------------------------------- GDAS, SNAS


def test_a_hard_gumbel_sample_is_one_hot_with_the_soft_ones_gradients():
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    gate = gdas.HardGumbel(4.0, 2.0)
    for seed in range(20):
        torch.manual_seed(seed)
        hard = gate(logits, 0.5)
        torch.manual_seed(seed)
        soft = gdas.gumbel_softmax(logits, 3.0)
        assert isinstance(hard, HardSample)
        assert hard.sampled == int(soft.argmax())
        one_hot = torch.nn.functional.one_hot(torch.tensor(hard.sampled), 3).float()
        torch.testing.assert_close(hard.weights.detach(), one_hot, atol=1e-6, rtol=0)
        factors = torch.tensor([1.0, -2.0, 0.5])
        (mine,) = torch.autograd.grad((hard.weights * factors).sum(), logits)
        (theirs,) = torch.autograd.grad((soft * factors).sum(), logits)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_samples_come_as_often_as_the_softmax_says(tau):
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0])
    gate = gdas.HardGumbel(tau, tau)
    drawn = torch.tensor([gate(logits, 0.0).sampled for _ in range(4000)]).bincount(minlength=3)
    expected = 4000 * logits.softmax(0)
    # Chi-square with 2 degrees of freedom: above 18.4 with probability 1e-4.
    assert float(((drawn - expected) ** 2 / expected).sum()) < 18.4


def test_the_temperature_falls_along_a_line():
    temperature = gdas.Temperature(10.0, 0.1)
    assert [temperature(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([10.0, 5.05, 0.1])
    for tau_max, tau_min in ((1.0, 0.0), (1.0, 2.0), (math.inf, 1.0), (math.nan, 0.1)):
        with pytest.raises(ConfigError, match="temperatures must be above 0"):
            gdas.Temperature(tau_max, tau_min)
    assert (gdas.Gdas.tau_max, gdas.Gdas.tau_min) == (10.0, 0.1)
    assert (snas.Snas.tau_max, snas.Snas.tau_min) == (1.0, 0.03)


def test_gdas_computes_one_option_an_edge():
    search = made(gdas, gdas.Gdas).search()
    ran = []
    for label in EDGES:
        slot = search.supernet.largest[2].edges[label.replace("->", "_")]
        for option in OPTIONS[1:]:
            slot.option(option).register_forward_hook(lambda *_, label=label: ran.append(label))
    batch = search.validation_batch()
    search.cross_entropy(batch, dict.fromkeys(EDGES, "none"))  # finds the shape of zeros once
    torch.manual_seed(0)
    for _ in range(10):
        ran.clear()
        gates = search.relaxation.gates(search.parameters, 0.0)
        search.cross_entropy(batch, gates)
        sampled = [label for label, gate in gates.items() if OPTIONS[gate.sampled] != "none"]
        assert sorted(ran) == sorted(sampled)


def test_a_cold_concrete_sample_is_nearly_one_hot_and_a_hot_one_nearly_even():
    torch.manual_seed(0)
    logits = torch.zeros(4)
    cold = torch.stack([gdas.gumbel_softmax(logits, 0.03) for _ in range(200)])
    hot = torch.stack([gdas.gumbel_softmax(logits, 100.0) for _ in range(200)])
    assert float(cold.max(1).values.median()) > 0.999
    assert float((hot - 0.25).abs().max()) < 0.05


def test_snas_has_one_level():
    search = made(snas, snas.Snas).search()
    assert search.whole == 24
    start = {label: p.detach().clone() for label, p in search.parameters.items()}
    search.advance()
    assert search.examples == 24
    assert not any(torch.equal(start[label], p) for label, p in search.parameters.items())


# --------------------------------------------------------------------------------- DrNAS


def test_dirichlet_concentrations_start_at_one_and_stay_above_zero():
    beta = torch.tensor([-5.0, -1.0, 0.0, 2.0])
    expected = torch.tensor([math.exp(-5), math.exp(-1), 1.0, 3.0])
    torch.testing.assert_close(drnas.concentration(beta), expected)
    torch.testing.assert_close(drnas.mean(beta), expected / expected.sum())


def test_gradients_through_dirichlet_draws_are_those_of_the_expectation():
    # E[w · f] = mean(β) · f, so the average of the draws' gradients is its gradient.
    torch.manual_seed(0)
    beta = torch.tensor([0.4, -0.3, 1.0], requires_grad=True)
    factors = torch.tensor([1.0, -1.0, 2.0])
    (exact,) = torch.autograd.grad((drnas.mean(beta) * factors).sum(), beta)
    draws = [drnas.draw(beta, 0.0) for _ in range(4000)]
    gradients = torch.stack(
        [torch.autograd.grad((draw * factors).sum(), beta)[0] for draw in draws]
    )
    error = gradients.std(0) / math.sqrt(len(draws))
    assert ((gradients.mean(0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 8 * error).all()
    sums = torch.stack(draws).detach().sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_dirichlet_draws_spread_as_their_concentrations_say():
    torch.manual_seed(0)
    beta = torch.tensor([1.0, 4.0])
    draws = torch.stack([drnas.draw(beta, 0.0) for _ in range(3000)])
    expected = Dirichlet(drnas.concentration(beta)).variance
    torch.testing.assert_close(draws.var(0), expected, rtol=0.15, atol=0)


# ------------------------------------------------------------------------------- β-DARTS


def test_beta_decay_is_the_mean_logsumexp_on_a_rising_line():
    parameters = {"a": torch.tensor([0.0, 1.0, 2.0]), "b": torch.tensor([-1.0, 3.0])}
    by_hand = [math.log(sum(math.exp(v) for v in p.tolist())) for p in parameters.values()]
    term = beta_darts.BetaDecay(50.0)
    for progress in (0.0, 0.25, 1.0):
        expected = 50 * progress * sum(by_hand) / 2
        assert float(term(parameters, progress)) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="decay must be zero or more, got -1"):
        beta_darts.BetaDecay(-1.0)


def test_beta_decay_without_a_factor_is_darts_and_with_one_is_not():
    plain = made(darts, darts.Darts, settings={"arch_weight_decay": 0.0}).search()
    without = made(beta_darts, beta_darts.BetaDarts, decay=0.0).search()
    decayed = made(beta_darts, beta_darts.BetaDarts, decay=50.0).search()
    for search in (plain, without, decayed):
        for _ in range(6):
            search.advance()
    assert all(torch.equal(plain.parameters[k], v) for k, v in without.parameters.items())

    def spread(search):
        return sum(float(p.detach().std()) for p in search.parameters.values())

    assert spread(decayed) < spread(plain)

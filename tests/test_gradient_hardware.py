"""Costs in the loss, and limits on what is proposed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges, described, quick
from small_spaces import SMALL

from nas.architecture import Architecture
from nas.cost import parameters_and_macs, slot_table
from nas.errors import ConfigError, InfeasibleLimit, UnsupportedRequest
from nas.objective import maximize, minimize
from nas.space import sample, validate
from nas.supernet import EdgeGate, HardSample, Sparse, Supernet, discretize
from strategies import darts, gdas, pc_darts, snas
from strategies.guards import Guards, limit_skips
from strategies.hardware import ExpectedCost, Limits, Penalty

SCORE = maximize("score")
SLOTS = dict.fromkeys(EDGES, OPTIONS)


def one_hot(arch, slots, space):
    held = space.slots(arch)
    return {
        label: torch.tensor([float(option == held[label]) for option in options])
        for label, options in slots.items()
    }


# --------------------------------------------------------------------------- the penalty


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_the_expected_cost_of_one_path_is_its_cost(name):
    space = SMALL[name]()
    slots = Supernet(space).slots
    base = slot_table(space).base
    rng = np.random.default_rng(0)
    equal = {label: torch.full((len(os),), 1 / len(os)) for label, os in slots.items()}
    for metric, position in (("parameters", 0), ("macs", 1)):
        term = ExpectedCost(space, Penalty(**{metric: 2.0}), slots)
        assert float(term(equal)) == pytest.approx(2.0)
        archs = [sample(space, rng) for _ in range(5)]
        costs = [parameters_and_macs(space, arch)[position] - base[position] for arch in archs]
        terms = [float(term(one_hot(arch, slots, space))) for arch in archs]
        ratio = terms[0] / costs[0]
        assert terms == pytest.approx([ratio * cost for cost in costs], rel=1e-4)


def test_all_kinds_of_gates_have_an_expected_cost_with_gradients():
    term = ExpectedCost(Edges(), Penalty(macs=1.0, parameters=0.5), SLOTS)
    weights = torch.tensor([0.1, 0.2, 0.1, 0.2, 0.4], requires_grad=True)
    plain = float(term(dict.fromkeys(EDGES, weights)).detach())
    for gate in (Sparse(weights, (3, 4)), HardSample(weights, 4), EdgeGate(weights, weights[0])):
        found = term(dict.fromkeys(EDGES, gate))
        assert float(found.detach()) == pytest.approx(plain)
        (gradient,) = torch.autograd.grad(found, weights)
        assert (gradient[:3] == 0).all()
        assert 0 < float(gradient[3]) < float(gradient[4])
    with pytest.raises(UnsupportedRequest, match="a path has no expected cost"):
        term(dict.fromkeys(EDGES, "pool"))


@pytest.mark.parametrize(
    ("module", "cls", "arguments"),
    [
        (darts, darts.Darts, {}),
        (darts, darts.Darts, {"order": 2}),
        (pc_darts, pc_darts.PcDarts, {"parts": 2}),
        (gdas, gdas.Gdas, {}),
        (snas, snas.Snas, {}),
    ],
)
def test_a_penalty_leads_to_cheaper_architectures(module, cls, arguments):
    macs = []
    for factor in (0.0, 20.0):
        strategy = cls(
            Edges(),
            (SCORE,),
            described(),
            settings=quick(module.SETTINGS, epochs=10, arch_lr=0.1),
            penalty=Penalty(macs=factor),
            **arguments,
        )
        for _ in range(10):
            (proposal,) = strategy.ask(1)
        gates = strategy.search().relaxation.mean_gates(strategy._run.search.parameters)
        term = ExpectedCost(Edges(), Penalty(macs=1.0), SLOTS)
        macs.append((float(term(gates).detach()), parameters_and_macs(Edges(), proposal.arch)[1]))
    assert macs[1][0] < 0.6 * macs[0][0]
    assert macs[1][1] <= macs[0][1]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_penalties_out_of_range_are_refused(value):
    with pytest.raises(ConfigError, match="macs must be zero or more"):
        Penalty(macs=value)


# ---------------------------------------------------------------------------- the limits


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_whatever_the_weights_the_limits_are_kept(name):
    space = SMALL[name]()
    slots = Supernet(space).slots
    rng = np.random.default_rng(0)
    costs = np.array([parameters_and_macs(space, sample(space, rng)) for _ in range(200)])
    parameters, macs = np.quantile(costs, 0.2, axis=0)
    limits = Limits(
        space, (SCORE, minimize("macs", limit=macs), minimize("parameters", limit=parameters))
    )
    moved = 0
    for _ in range(30):
        weights = {k: rng.dirichlet(np.ones(len(os))).tolist() for k, os in slots.items()}
        free = discretize(space, weights)
        arch = limits.derive(lambda w: discretize(space, w), weights, slots)
        validate(space, arch)
        cost = parameters_and_macs(space, arch)
        assert cost[0] <= parameters
        assert cost[1] <= macs
        if limits.excess(free) is None:
            assert arch == free
        moved += arch != free
    assert moved > 10


def test_what_keeps_a_limit_is_the_best_of_its_cost():
    # Every architecture of the same cost or less has less weight in sum.
    rng = np.random.default_rng(1)
    costs = {
        options: parameters_and_macs(
            Edges(), Architecture("edges/v1", tuple(zip(EDGES, options, strict=True)))
        )[1]
        for options in itertools.product(OPTIONS, repeat=3)
    }
    near = []
    for _ in range(20):
        weights = {label: rng.dirichlet(np.ones(5)).tolist() for label in EDGES}
        for limit in (1200.0, 2000.0, 4000.0):
            limits = Limits(Edges(), (SCORE, minimize("macs", limit=limit)))
            arch = limits.derive(lambda w: discretize(Edges(), w), weights, SLOTS)

            def total(options, weights=weights):
                return sum(
                    weights[k][OPTIONS.index(o)] for k, o in zip(EDGES, options, strict=True)
                )

            mine = tuple(option for _, option in arch.picks)
            assert costs[mine] <= limit
            best = max(total(o) for o, cost in costs.items() if cost <= costs[mine])
            assert total(mine) == pytest.approx(best)
            allowed = max(total(o) for o, cost in costs.items() if cost <= limit)
            near.append(total(mine) / allowed)
    assert np.mean(near) > 0.97


def test_a_limit_no_architecture_keeps_is_refused_before_any_work():
    with pytest.raises(InfeasibleLimit, match="macs is 1164, must be at most 1000"):
        darts.Darts(Edges(), (SCORE, minimize("macs", limit=1000)), described())


def test_limits_and_guards_hold_together_and_what_they_change_is_noted():
    objectives = (SCORE, minimize("parameters", limit=150))
    strategy = darts.Darts(
        Edges(),
        objectives,
        described(),
        settings=quick(darts.SETTINGS),
        guards=Guards(max_skips=1),
    )
    with torch.no_grad():
        for label in EDGES:
            strategy._run.search.parameters[label][:] = torch.tensor([-9.0, 1.0, -9.0, -9.0, 2.0])
    (proposal,) = strategy.ask(1)
    options = list(proposal.arch.as_dict().values())
    assert options.count("skip_connect") <= 1
    assert parameters_and_macs(Edges(), proposal.arch)[0] <= 150
    assert "parameters is 551, must be at most 150" in proposal.notes["limit"]


def test_limits_on_what_is_no_sum_are_left_to_the_evaluator():
    objectives = (SCORE, minimize("latency_ms", limit=1.0), minimize("macs"))
    limits = Limits(Edges(), objectives)
    assert not limits.limits
    weights = {label: [0.1, 0.2, 0.3, 0.1, 0.3] for label in EDGES}
    derive = limits.derive(lambda w: limit_skips(Edges(), w, SLOTS, Guards()), weights, SLOTS)
    assert derive == discretize(Edges(), weights)


def test_a_space_whose_costs_are_no_sum_is_refused_by_name():
    space = SMALL["chain"]()
    with pytest.raises(UnsupportedRequest, match="has no table of costs"):
        Limits(space, (SCORE, minimize("macs", limit=1e6)))

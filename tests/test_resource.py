"""Expected costs of gates: exact where gates are one-hot, linear between, refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges
from mobile_workloads import mobile
from small_spaces import SMALL

from nas.cost import architecture_cost
from nas.errors import ConfigError, InfeasibleLimit, UnsupportedRequest
from nas.objective import maximize, minimize
from nas.space import sample
from nas.supernet import Sparse, Supernet, discretize
from nas.supernet.discretize import one_hot_weights
from strategies.hardware import Limits
from strategies.resource import (
    ExpectedResource,
    ResourceTable,
    check_logarithm,
    resource_table,
)

SLOTS = dict.fromkeys(EDGES, OPTIONS)


def milliseconds(slots, rng=None):
    """A table of latencies: other numbers for every slot and option."""
    rng = np.random.default_rng(3) if rng is None else rng
    table = {
        label: {option: float(rng.uniform(0.1, 2.0)) for option in options}
        for label, options in slots.items()
    }
    return {"base": 0.75, **table}


@pytest.mark.parametrize("metric", ["macs", "parameters"])
@pytest.mark.parametrize("name", ["fbnet", "proxylessnas", "darts", "nasbench201"])
def test_one_hot_gates_cost_what_their_architecture_costs(name, metric):
    space = SMALL[name]()
    slots = Supernet(space).slots
    expected = ExpectedResource(resource_table(space, metric, slots), slots)
    rng = np.random.default_rng(1)
    costs = set()
    for _ in range(8):
        arch = sample(space, rng)
        weights = one_hot_weights(space, arch, slots)
        found = expected({label: torch.tensor(weights[label]) for label in slots})
        assert int(found) == float(found) == getattr(architecture_cost(space, arch), metric)
        costs.add(int(found))
    assert len(costs) > 3


def test_one_hot_gates_cost_the_sum_of_measured_latencies():
    space = mobile()
    slots = Supernet(space).slots
    given = milliseconds(slots)
    table = resource_table(space, given, slots)
    assert table.metric == "latency_ms"
    arch = sample(space, np.random.default_rng(0))
    by_hand = 0.75 + sum(given[label][option] for label, option in space.slots(arch).items())
    weights = one_hot_weights(space, arch, slots)
    expected = ExpectedResource(table, slots)
    found = expected({label: torch.tensor(weights[label]) for label in slots})
    assert float(found) == pytest.approx(by_hand)
    assert table.total(space.slots(arch)) == pytest.approx(by_hand)
    least = 0.75 + sum(min(given[label].values()) for label in slots)
    assert table.least() == pytest.approx(least)


def test_a_count_beyond_single_precision_is_exact():
    table = ResourceTable("macs", 320_427_584, {"a": {"x": 1, "y": 3}})
    found = ExpectedResource(table, {"a": ("x", "y")})({"a": torch.tensor([0.0, 1.0])})
    assert int(found) == 320_427_587


def test_expected_cost_is_linear_and_its_gradients_are_the_costs():
    space = Edges()
    table = resource_table(space, "macs", SLOTS)
    expected = ExpectedResource(table, SLOTS)
    torch.manual_seed(0)
    gates = {label: torch.rand(len(OPTIONS), requires_grad=True) for label in EDGES}
    expected(gates).backward()
    for label, gate in gates.items():
        assert gate.grad.tolist() == [table.slots[label][option] for option in OPTIONS]
    even = {label: torch.full((len(OPTIONS),), 1 / len(OPTIONS)) for label in EDGES}
    assert expected.even() == pytest.approx(float(expected(even)), rel=1e-6)
    sparse = {label: Sparse(torch.tensor([0.0, 0.25, 0.0, 0.0, 0.75]), (1, 4)) for label in EDGES}
    by_hand = table.base + sum(
        0.25 * table.slots[label]["skip_connect"] + 0.75 * table.slots[label]["conv_3x3"]
        for label in EDGES
    )
    assert float(expected(sparse)) == pytest.approx(by_hand)
    with pytest.raises(UnsupportedRequest, match="no gate for '1->2'"):
        expected({label: even[label] for label in EDGES[:2]})
    with pytest.raises(UnsupportedRequest, match="a path has no expected cost"):
        expected({**even, "0->1": "pool"})


def test_a_table_may_be_a_file(tmp_path):
    path = tmp_path / "phone.json"
    given = milliseconds(SLOTS)
    path.write_text(json.dumps(given))
    assert resource_table(Edges(), str(path), SLOTS) == resource_table(Edges(), given, SLOTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0->1": None}, "slot '0->1' is missing"),
        ({"0->9": {"pool": 1.0}}, "no slot '0->9'.*did you mean"),
        ({"0->1": {"pool": 1.0}}, "slot '0->1' lacks the option 'none'"),
        ({"0->1": {"conv_9x9": 1.0}}, "no option 'conv_9x9': did you mean"),
        ({"0->2": dict.fromkeys(OPTIONS, -1.0)}, "0->2/none must be zero or more"),
        ({"0->2": dict.fromkeys(OPTIONS, "2 ms")}, "number of milliseconds, got '2 ms'"),
        ({"0->2": dict.fromkeys(OPTIONS, True)}, "number of milliseconds, got True"),
        ({"base": float("nan")}, "base must be zero or more milliseconds, got nan"),
    ],
)
def test_incomplete_tables_are_refused_by_name(change, message):
    given = {**milliseconds(SLOTS), **change}
    given = {label: entry for label, entry in given.items() if entry is not None}
    with pytest.raises(ConfigError, match=message):
        resource_table(Edges(), given, SLOTS)


def test_what_is_no_resource_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'macs'"):
        resource_table(Edges(), "mac", SLOTS)
    for text in ("{", "[1]"):
        path = tmp_path / "broken.json"
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"broken\.json"):
            resource_table(Edges(), str(path), SLOTS)
    with pytest.raises(UnsupportedRequest, match="no table of costs"):
        resource_table(SMALL["chain"](), "macs", {})


def test_a_logarithm_needs_a_unit_below_the_cheapest_network():
    table = ResourceTable("latency_ms", 0.5, {"a": {"x": 0.25, "y": 3.0}})
    check_logarithm(table, 0.7)
    for unit in (0.75, 1.0):
        with pytest.raises(ConfigError, match=r"cheapest network costs 0.75 latency_ms"):
            check_logarithm(table, unit)
    with pytest.raises(ConfigError, match="unit must be above 0, got 0"):
        check_logarithm(table, 0.0)


def test_limits_of_measured_and_counted_costs_are_kept_together():
    space = mobile()
    slots = Supernet(space).slots
    table = resource_table(space, milliseconds(slots), slots)
    rng = np.random.default_rng(2)
    weights = {label: rng.uniform(0, 1, len(options)).tolist() for label, options in slots.items()}

    def derive(moved):
        return discretize(space, moved)

    free = derive(weights)
    latency = table.total(space.slots(free))
    macs = architecture_cost(space, free).macs
    bound = (latency + table.least()) / 2
    objectives = (
        maximize("accuracy"),
        minimize("latency_ms", limit=bound),
        minimize("macs", limit=0.9 * macs),
    )
    found = Limits(space, objectives, {"latency_ms": table}).derive(derive, weights, slots)
    assert table.total(space.slots(found)) <= bound < latency
    assert architecture_cost(space, found).macs <= 0.9 * macs
    assert Limits(space, objectives[:2]).excess(free) is None  # nobody gave a table
    narrow = (minimize("latency_ms", limit=0.9 * table.least()),)
    with pytest.raises(InfeasibleLimit, match=r"latency_ms is .*, must be at most"):
        Limits(space, narrow, {"latency_ms": table}).derive(derive, weights, slots)

"""Analytic costs of every space: the same integers as counting the built network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_spaces import SMALL

from nas import encoding
from nas.cost import architecture_cost, batch_costs, count, parameters_and_macs, slot_table
from nas.cost.reading import read
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.space import enumerate_architectures, network, sample
from search_spaces.nasbench201 import NasBench201


def _counted(space, arch):
    with torch.device("meta"):
        built = network(space, arch)
    return count(built, space.input)


def _as_counted(name, n, seed):
    space, rng = SMALL[name](), np.random.default_rng(seed)
    summed = 0
    for _ in range(n):
        arch = sample(space, rng)
        counted = _counted(space, arch)
        # The fast reading itself: falling back on counting would hide what it cannot do.
        assert read(space, arch) == (
            counted.parameters,
            counted.macs,
            counted.peak_memory_bytes,
            counted.weight_bytes,
        ), arch
        assert architecture_cost(space, arch) == counted
        assert parameters_and_macs(space, arch) == (counted.parameters, counted.macs)
        try:
            terms = slot_table(space).total(space.slots(arch))
        except UnsupportedRequest:
            continue
        summed += 1
        assert terms == (counted.parameters, counted.macs, counted.weight_bytes)
    assert summed in (0, n)


@pytest.mark.parametrize("name", SMALL)
def test_costs_of_random_architectures_are_the_counted_ones(name):
    _as_counted(name, 8, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_costs_of_a_thousand_architectures_are_the_counted_ones(name):
    _as_counted(name, 1_000, 1)


# ---------------------------------------------------------------------------------- tables


def test_the_batch_of_a_whole_space_is_the_table_of_the_benchmark(benchmark_data):
    space = NasBench201()
    with np.load(benchmark_data("nb201.npz")) as archive:
        names = [str(name) for name in archive["op_names"]]
        order = [names.index(option) for option in space.choices[0].options]
        rows = np.argsort(order)[archive["ops"]]
        parameters, flops_m = archive["params"][:, 0], archive["flops_m"][:, 0]
    found = batch_costs(space, rows)
    assert len(np.unique(rows, axis=0)) == len(found.parameters) == 15_625
    np.testing.assert_array_equal(found.parameters, parameters)
    # The table counts the additions of the classifier's bias as well, one a class.
    np.testing.assert_array_equal(
        ((found.macs + 10) / 1e6).astype(np.float32), flops_m.astype(np.float32)
    )


@pytest.mark.parametrize("name", ["nasbench201", "fbnet"])
def test_a_batch_equals_its_architectures(name):
    space, rng = SMALL[name](), np.random.default_rng(3)
    archs = [sample(space, rng) for _ in range(20)]
    found = batch_costs(space, [encoding.ordinal(space, arch) for arch in archs])
    for arch, *terms in zip(archs, *found, strict=True):
        cost = _counted(space, arch)
        assert terms == [cost.parameters, cost.macs, cost.weight_bytes]
    assert [len(column) for column in batch_costs(space, np.zeros((0, len(space.choices)), int))]


def test_the_table_of_a_cell_space_is_over_its_edges_not_its_choices():
    space = SMALL["darts"]()
    assert slot_table(space).base.macs > 0
    with pytest.raises(UnsupportedRequest, match="not its choices one to one"):
        batch_costs(space, np.zeros((1, len(space.choices)), int))


def test_a_space_with_open_sizes_has_no_table():
    space = SMALL["chain"]()
    with pytest.raises(UnsupportedRequest, match="'depth' is a depth"):
        slot_table(space)
    arch = next(enumerate_architectures(space))
    cost = _counted(space, arch)
    assert parameters_and_macs(space, arch) == (cost.parameters, cost.macs)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 0, 0, 5]], "5 for '2->3', expected 0 to 4"),
        ([[-1, 0, 0, 0, 0, 0]], "-1 for '0->1', expected 0 to 4"),
        ([0, 0, 0, 0, 0, 0], r"shape \(n, 6\)"),
        ([[0, 0, 0]], r"shape \(n, 6\)"),
        ([[0.5, 0, 0, 0, 0, 0]], "expected integers"),
    ],
)
def test_bad_rows_are_refused(rows, message):
    with pytest.raises(InvalidArchitecture, match=message):
        batch_costs(SMALL["nasbench201"](), rows)


def test_unknown_slots_and_options_are_refused_by_the_table():
    table = slot_table(SMALL["nasbench201"]())
    with pytest.raises(InvalidArchitecture, match="no slot '0->4'"):
        table.total({"0->4": "none"})
    with pytest.raises(InvalidArchitecture, match="no option 'nor_conv_5x5'"):
        table.total({"0->1": "nor_conv_5x5"})

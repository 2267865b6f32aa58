"""Tables of latencies: sums, what they lack, relaxed architectures, files, corrections."""

from __future__ import annotations

import dataclasses
import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mobile_workloads import mobile

from evaluators.latency import LatencyEvaluator, MeasuredLatency
from nas.components import describe
from nas.cost import architecture_cost
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.latency.check import Network, agreement, check, compared
from nas.latency.correction import Correction, Sum, fit
from nas.latency.measure import Protocol, Timing
from nas.latency.operations import operations
from nas.latency.table import LatencyTable, load_for
from nas.latency.units import units
from nas.space import parse, sample
from nas.supernet import EdgeGate, HardSample, Supernet
from nas.testing import EvaluatorContract
from nas.testing.toys import FlatSpace, toy_proposals
from search_spaces.nasbench201 import NasBench201
from strategies.resource import ExpectedResource, resource_table

OVERHEAD = 0.25


def ms_of(key):
    """Some milliseconds that an operation could take."""
    return OVERHEAD + (1 + zlib.crc32(key.encode()) % 1000) / 1000


def timing(ms):
    return Timing(ms, 0.9 * ms, 1.2 * ms, 20, 1, 0.005, True)


def made(space, keys=None, **changed):
    keys = operations(space) if keys is None else keys
    table = LatencyTable(
        space.name, describe(space), "onnxruntime", Protocol(), {"cpu": "a test's"}, OVERHEAD, 4.0,
        {key: timing(ms_of(key)) for key in keys}, words="tests:mobile --set classes=10",
    )  # fmt: skip
    return dataclasses.replace(table, **changed)


@pytest.fixture(scope="module")
def table():
    return made(mobile())


def drawn(space, many, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(space, rng) for _ in range(many)]


# ------------------------------------------------------------------------------------- sums


def test_a_prediction_is_the_overhead_and_what_each_operation_takes_beyond_it(table):
    space = mobile()
    for arch in drawn(space, 3):
        keys = [one.key for one in units(space, arch)]
        expected = OVERHEAD + sum(ms_of(key) - OVERHEAD for key in keys)
        assert table.predict(space, arch) == pytest.approx(expected)
        weights = architecture_cost(space, arch).weight_bytes / 1e6
        assert table.sum(space, arch) == Sum(pytest.approx(expected), len(keys), weights)


def test_a_correction_is_applied(table):
    space, arch = mobile(), drawn(mobile(), 1)[0]
    found = table.sum(space, arch)
    corrected = dataclasses.replace(table, correction=Correction(0.5, 0.9, 0.01, 2.0, 50))
    expected = 0.5 + 0.9 * found.ms + 0.01 * found.operations + 2.0 * found.weight_mb
    assert corrected.predict(space, arch) == pytest.approx(expected)
    assert corrected.sum(space, arch) == found


def test_what_is_missing_is_named_with_the_command_that_adds_it(table, tmp_path):
    space, arch = mobile(), drawn(mobile(), 1)[0]
    assert table.missing(space, [arch]) == {}
    lost = units(space, arch)[2]
    kept = {key: value for key, value in table.entries.items() if key != lost.key}
    file = tmp_path / "table.json"
    dataclasses.replace(table, entries=kept).save(file)
    poorer = LatencyTable.load(file)
    assert list(poorer.missing(space, [arch])) == [lost.key]
    with pytest.raises(UnsupportedRequest) as refused:
        poorer.predict(space, arch)
    said = str(refused.value)
    assert lost.title in said
    command = (
        f"nas latency profile tests:mobile --set classes=10 --backend onnxruntime --out {file}"
    )
    assert f"all that the space has: {command}; and these alone: --arch '{arch}'" in said
    assert parse(space, str(arch)) == arch


def test_a_table_of_another_space_or_backend_is_refused(table, tmp_path):
    file = tmp_path / "t.json"
    table.save(file)
    with pytest.raises(ConfigError, match=r"is of the space 'mbconv/v1', not of 'flat/v1'"):
        load_for(file, FlatSpace())
    with pytest.raises(ConfigError, match="is of the backend 'onnxruntime', not 'torch'"):
        load_for(file, mobile(), "torch")
    with pytest.raises(ConfigError, match="is of the space"):
        table.predict(FlatSpace(), drawn(FlatSpace(), 1)[0])
    with pytest.raises(ConfigError, match=r"on inputs of \w+, those of the space here are 1x14x14"):
        load_for(file, dataclasses.replace(mobile(), input=(1, 14, 14)))
    with pytest.raises(UnsupportedRequest, match="This adds all that the space has"):
        load_for(file, dataclasses.replace(mobile(), stem=24))
    dataclasses.replace(table, entries={}).save(file)
    with pytest.raises(DataError, match="is empty"):
        load_for(file, mobile())


# ----------------------------------------------------------------------------------- relaxed


def one_hot(options, chosen):
    return torch.tensor([float(option == chosen) for option in options], dtype=torch.float64)


@pytest.mark.parametrize("correction", [None, Correction(0.1, 1.3, -0.02, 3.0, 20)])
def test_expected_latency_under_one_hot_gates_is_the_prediction(table, correction):
    space = mobile()
    held = dataclasses.replace(table, correction=correction)
    slots = held.slots(space)
    for arch in drawn(space, 4, seed=3):
        options = space.slots(arch)
        gates = {label: one_hot(costs, options[label]) for label, costs in slots.slots.items()}
        whole = held.predict(space, arch)
        assert slots.expected(gates).item() == pytest.approx(whole)
        assert slots.total(options) == pytest.approx(whole)
        assert slots.expected(options).item() == pytest.approx(whole)


def test_expected_latency_is_linear_in_the_gates_and_gives_them_gradients(table):
    space = mobile()
    slots = table.slots(space)
    logits = {
        label: torch.zeros(len(costs), requires_grad=True) for label, costs in slots.slots.items()
    }
    gates = {label: value.softmax(0) for label, value in logits.items()}
    expected = table.expected(space, gates)
    even = slots.base + sum(np.mean(list(costs.values())) for costs in slots.slots.values())
    assert expected.item() == pytest.approx(even)
    expected.backward()
    for label, costs in slots.slots.items():
        values = torch.tensor(list(costs.values()))
        by_hand = (values - values.mean()) / len(values)
        assert torch.allclose(logits[label].grad, by_hand, atol=1e-6)


def test_gates_of_edges_and_samples_are_read_and_others_refused(table):
    slots = table.slots(mobile())
    gates = {label: one_hot(costs, next(iter(costs))) for label, costs in slots.slots.items()}
    plain = slots.expected(gates).item()
    label, weights = next(iter(gates.items()))
    for gate in (HardSample(weights, 0), EdgeGate(weights, torch.ones(()))):
        assert slots.expected({**gates, label: gate}).item() == plain
    with pytest.raises(UnsupportedRequest, match=r"must be \d weights, one for each of"):
        slots.expected({**gates, label: torch.ones(2)})
    with pytest.raises(UnsupportedRequest, match="no gate for"):
        slots.expected({})


def test_latencies_that_are_no_sum_over_slots_are_refused():
    space = NasBench201(channels=3, cells=1, input=(3, 8, 8))
    with pytest.raises(UnsupportedRequest, match="no sum over its slots"):
        made(space).slots(space)
    toy = FlatSpace()
    with pytest.raises(UnsupportedRequest, match="the choice 'width' is none"):
        made(toy).slots(toy)


def test_gradient_strategies_take_the_file(table, tmp_path):
    space, file = mobile(), tmp_path / "t.json"
    table.save(file)
    slots = Supernet(space).slots
    found = resource_table(space, str(file), slots)
    assert found.metric == "latency_ms"
    expected = ExpectedResource(found, slots)
    for arch in drawn(space, 3, seed=1):
        held = space.slots(arch)
        gates = {label: one_hot(options, held[label]) for label, options in slots.items()}
        assert expected(gates).item() == pytest.approx(table.predict(space, arch))
    other = NasBench201(channels=3)
    with pytest.raises(ConfigError, match="is of the space"):
        resource_table(other, str(file), {})


# ------------------------------------------------------------------------------------- files


def test_a_saved_table_is_the_same_table(table, tmp_path):
    file = tmp_path / "t.json"
    corrected = dataclasses.replace(table, correction=Correction(0.5, 0.9, 0.01, 2.0, 50))
    corrected.save(file)
    assert LatencyTable.load(file) == corrected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: "{", "is damaged, or no table"),
        (lambda d: "[]", "is no table of latencies"),
        (lambda d: {**d, "format": "another"}, "its format is not"),
        (lambda d: {**d, "version": 7}, "version 7, expected 1"),
        (lambda d: {k: v for k, v in d.items() if k != "entries"}, "it has no 'entries'"),
        (lambda d: {**d, "overhead_ms": "much"}, "'much' is no number"),
        (lambda d: {**d, "entries": {"k": {"ms": -1.0}}}, "-1.0 are no milliseconds"),
        (lambda d: {**d, "entries": [1]}, "is damaged"),
        (lambda d: {**d, "protocol": {"clock": "moon"}}, "no clock 'moon'"),
        (lambda d: {**d, "correction": {"constant": 1}}, "it has no 'factor'"),
    ],
)
def test_a_damaged_file_gets_one_clear_error(table, tmp_path, change, said):
    file = tmp_path / "t.json"
    document = change(table.document())
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(DataError, match=said):
        LatencyTable.load(file)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        LatencyTable.load(tmp_path / "none.json")


# -------------------------------------------------------------------------------- agreement


def test_agreement_by_hand():
    found = agreement([1.0, 2.4, 2.7], [1.0, 2.0, 3.0])
    assert found.mape == pytest.approx(0.3 / 3)
    assert found.rmse == pytest.approx(np.sqrt((0.16 + 0.09) / 3))
    assert found.bias == pytest.approx(0.1 / 3)
    assert found.spearman == pytest.approx(1.0)
    assert found.within_10 == pytest.approx(2 / 3)
    assert agreement([1.0, 1.0], [1.0, 2.0]).spearman is None
    with pytest.raises(ConfigError, match="a prediction for each"):
        agreement([1.0], [])


@given(
    st.tuples(st.floats(-1, 1), st.floats(0.5, 2), st.floats(-0.05, 0.05), st.floats(0, 0.1)),
    st.integers(0, 100),
)
def test_a_correction_finds_the_line_that_made_the_measurements(line, seed):
    rng = np.random.default_rng(seed)
    sums = [
        Sum(float(rng.uniform(5, 20)), int(rng.integers(3, 15)), float(rng.uniform(1, 20)))
        for _ in range(30)
    ]
    truth = [Correction(*line, 30)(one) for one in sums]
    found = fit(sums, truth)
    made = (found.constant, found.factor, found.each, found.each_mb)
    assert made == pytest.approx(line, abs=1e-6)
    assert [found(one) for one in sums] == pytest.approx(truth)


def test_a_correction_of_few_networks_is_refused():
    with pytest.raises(ConfigError, match="at least 10 networks, got 3"):
        fit([Sum(ms, 1, 1.0) for ms in (1.0, 2.0, 3.0)], [1, 2, 3])


def test_a_correction_is_judged_on_what_it_was_not_fitted_to():
    rng = np.random.default_rng(0)
    archs = drawn(FlatSpace(), 60)
    networks = []
    for number, arch in enumerate(archs):
        total, count = float(rng.uniform(1, 5)), int(rng.integers(4, 9))
        # The second half follows another line: held out, the correction must look poor.
        ms = 2 * total if number < 30 else 4 * total
        found = Sum(total, count, float(rng.uniform(1, 20)))
        networks.append(Network(arch, found, timing(ms), 1.0))
    found = compared(networks)
    assert found.raw.networks == 60
    assert found.held_out.networks == found.held_out_raw.networks == 30
    assert found.held_out.mape == pytest.approx(0.5)
    assert found.held_out_raw.mape == pytest.approx(0.75)
    assert found.correction.networks == 60
    assert compared(networks[:10]).held_out is None


def test_speeds_are_taken_out():
    arch = drawn(FlatSpace(), 1)[0]
    networks = [
        Network(arch, Sum(t, 5, 1.0), timing(t * s), 1 / s) for t, s in ((1.0, 2.0), (2.0, 0.5))
    ]
    found = compared(networks)
    assert found.raw.mape == pytest.approx(0)
    assert found.unscaled.mape == pytest.approx((0.5 + 1.0) / 2)


def test_a_check_of_too_many_networks_is_refused(table):
    with pytest.raises(ConfigError, match="hardly more than"):
        check(table, mobile(), 1000)
    with pytest.raises(ConfigError, match="2 networks at least"):
        check(table, mobile(), 1)


# -------------------------------------------------------------------------------- evaluators


class TestLatencyEvaluator(EvaluatorContract):
    samples = 4

    @pytest.fixture(autouse=True)
    def _file(self, table, tmp_path):
        self.file = tmp_path / "t.json"
        table.save(self.file)

    def space(self):
        return mobile()

    def evaluator(self):
        return LatencyEvaluator(self.space(), str(self.file))

    def test_it_is_the_tables_prediction(self, table):
        for proposal in toy_proposals(self.space(), 3):
            found = self.evaluator().evaluate(proposal).values["latency_ms"]
            assert found == table.predict(self.space(), proposal.arch)

    def test_it_refuses_another_table(self, tmp_path):
        with pytest.raises(ConfigError, match="is of the backend"):
            LatencyEvaluator(self.space(), str(self.file), backend="torch")
        with pytest.raises(DataError, match="cannot be read"):
            LatencyEvaluator(self.space(), str(tmp_path / "none.json"))


def test_a_measuring_evaluator_refuses_bad_settings():
    for settings in ({"clock": "sun"}, {"backend": "tensorflow"}, {"half_width": -1.0}):
        with pytest.raises(ConfigError):
            MeasuredLatency(mobile(), **settings)

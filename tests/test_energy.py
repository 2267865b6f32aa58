"""Energy by the user's figures, and flash by the type of the weights, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.cost import CostEvaluator
from evaluators.energy import EnergyEvaluator
from evaluators.staged import Staged
from nas.cost import architecture_cost
from nas.cost.energy import HOROWITZ_45NM, EnergyFigures, energy_mj, read_figures
from nas.cost.flash import flash_bytes
from nas.described import described
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.latency.units import units
from nas.objective import minimize
from nas.space import network, parse, sample
from nas.testing import EvaluatorContract
from nas.trial import Infeasible, Measured, Proposal
from search_spaces.nasbench201 import NasBench201


def net(builder):
    width = builder.number("width", (2, 4))
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * 64, 10),
    )


SPACE = described(net, input=(1, 8, 8), classes=10)
FOUR = parse(SPACE, "width=4")
FULL, DEPTHWISE, LINEAR = 64 * 4 * 9, 64 * 4 * 9, 256 * 10
OUTPUTS = 256 + 256 + 10
KEPT = 36 + 4 * 4 + (36 + 4) + (2560 + 10)  # kernel; norm; depthwise; linear


class TestEnergyEvaluator(EvaluatorContract):
    samples = 6

    def space(self):
        return NasBench201(channels=4, cells=1)

    def evaluator(self):
        return EnergyEvaluator(self.space())


def test_arithmetic_and_memory_are_added_up():
    figures = EnergyFigures(mac_pj=2.0, sram_byte_pj=3.0, dram_byte_pj=5.0, fixed_mj=0.25)
    picojoules = 2 * (FULL + DEPTHWISE + LINEAR) + 3 * 2 * 4 * OUTPUTS + 5 * 4 * KEPT
    assert energy_mj(SPACE, FOUR, figures) == pytest.approx(0.25 + 1e-9 * picojoules, rel=1e-12)


def test_values_of_one_byte_move_a_quarter():
    wide = EnergyFigures(sram_byte_pj=3.0, dram_byte_pj=5.0)
    narrow = EnergyFigures(sram_byte_pj=3.0, dram_byte_pj=5.0, value_bytes=1)
    assert 4 * energy_mj(SPACE, FOUR, narrow) == pytest.approx(energy_mj(SPACE, FOUR, wide))


def test_each_kind_of_layer_has_its_figure():
    figures = EnergyFigures(mac_pj={"depthwise": 7.0, "Linear": 11.0, "default": 1.0})
    picojoules = FULL + 7 * DEPTHWISE + 11 * LINEAR
    assert energy_mj(SPACE, FOUR, figures) == pytest.approx(1e-9 * picojoules)
    without = EnergyFigures(mac_pj={"Conv2d": 3.0, "default": 0.0})
    assert energy_mj(SPACE, FOUR, without) == pytest.approx(1e-9 * 3 * (FULL + DEPTHWISE))


def test_measured_operations_are_summed(tmp_path):
    space = NasBench201(channels=4, cells=1)
    arch = sample(space, np.random.default_rng(3))
    found = units(space, arch)
    figures = {one.key: float(number + 1) for number, one in enumerate(found)}
    file = tmp_path / "energy.json"
    file.write_text(json.dumps({"operations": figures, "fixed_mj": 0.5}))
    expected = 0.5 + sum(figures[one.key] for one in found)
    measured = EnergyEvaluator(space, str(file)).evaluate(Proposal(0, arch))
    assert measured.values == {"energy_mj": pytest.approx(expected)}
    removed = found[-1].key
    del figures[removed]
    file.write_text(json.dumps({"operations": figures}))
    with pytest.raises(UnsupportedRequest, match="lack 1 operations") as error:
        EnergyEvaluator(space, str(file)).evaluate(Proposal(0, arch))
    assert removed in str(error.value)


def test_a_limit_is_decided_by_the_preview():
    space = NasBench201(channels=4, cells=1)
    rng = np.random.default_rng(0)
    archs = [sample(space, rng) for _ in range(6)]
    energies = [energy_mj(space, arch, HOROWITZ_45NM) for arch in archs]
    limit = float(np.median(energies))
    staged = Staged([EnergyEvaluator(space)], [minimize("energy_mj", limit=limit)])
    for number, (arch, energy) in enumerate(zip(archs, energies, strict=True)):
        assert staged.preview(arch) == {"energy_mj": energy}
        kind = Measured if energy <= limit else Infeasible
        assert type(staged.evaluate(Proposal(number, arch))) is kind


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"mac_pJ": 1.0}, "did you mean 'mac_pj'"),
        ({"mac_pj": -1.0}, "mac_pj.* 0 or more"),
        ({"mac_pj": "4"}, "must be a number"),
        ({"mac_pj": {"Conv2d": 1.0}}, "needs 'default'"),
        ({"mac_pj": 1.0, "value_bytes": 3}, "1, 2 or 4"),
        ({"mac_pj": 1.0, "operations": {"a": 1.0}}, "got both"),
        ({"operations": {"a": float("nan")}}, "0 or more"),
        ({"operations": [1.0]}, "must map keys"),
        ({"fixed_mj": 1.0}, "got neither"),
        ([1.0], "must hold an object"),
    ],
)
def test_figures_that_cannot_be_used_are_refused(tmp_path, document, message):
    file = tmp_path / "energy.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        read_figures(file)


def test_a_damaged_file_is_one_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        EnergyEvaluator(SPACE, str(tmp_path / "none.json"))
    (tmp_path / "torn.json").write_text('{"mac_pj": ')
    with pytest.raises(DataError, match="damaged"):
        read_figures(tmp_path / "torn.json")


def test_flash_by_the_type_of_the_weights():
    assert flash_bytes(SPACE, FOUR) == architecture_cost(SPACE, FOUR).weight_bytes == 4 * KEPT
    assert flash_bytes(SPACE, FOUR, "float16") == 2 * KEPT
    matrices = 36 + 36 + 2560
    assert flash_bytes(SPACE, FOUR, "int8") == matrices + 4 * (KEPT - matrices)
    with pytest.raises(ConfigError, match="float16"):
        CostEvaluator(SPACE, weights="float15")


def test_the_cost_evaluator_counts_flash_for_the_type():
    space = NasBench201(channels=4, cells=1)
    arch = sample(space, np.random.default_rng(1))
    whole = CostEvaluator(space).preview(arch)
    bytes_of_8_bits = CostEvaluator(space, weights="int8").preview(arch)
    assert bytes_of_8_bits == {**whole, "weight_bytes": flash_bytes(space, arch, "int8")}
    state = network(space, arch).state_dict()
    kernels = sum(t.numel() for t in state.values() if t.dim() > 1)
    vectors = sum(t.numel() for t in state.values() if t.dim() == 1 and t.dtype == torch.float32)
    assert bytes_of_8_bits["weight_bytes"] == kernels + 4 * vectors

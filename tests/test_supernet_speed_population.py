"""A population scored as a tree of paths has the scores that its networks have one by one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch import nn

from nas.errors import UnsupportedRequest
from nas.layers.basic import ConvBNReLU, ReLUConvBN
from nas.layers.convolutions import conv_bn
from nas.space import mutate, sample
from nas.supernet import Supernet
from nas.supernet.folding import fold
from nas.supernet.population import Part, score_alone, score_population, sequence
from search_spaces.mbconv import MBConv, Stage
from search_spaces.nasbench201 import NasBench201
from search_spaces.spos import Spos

SPOS = Spos(
    stem=4, channels=(6, 8), depths=(2, 2), head=8, dropout=0.0, classes=3, input=(3, 16, 16)
)


def prepared(space, n=12, seed=0):
    """A supernet with statistics and scales of its own, inputs, and architectures of kin."""
    torch.manual_seed(seed)
    supernet = Supernet(space).train()
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand(tensor.shape) if "running" in name else 0.0)
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    rng = np.random.default_rng(seed)
    archs = [sample(space, rng) for _ in range(n // 3)]
    while len(archs) < n:
        archs.append(mutate(space, archs[int(rng.integers(len(archs)))], rng))
    archs.append(archs[0])
    recalibration = [torch.randn(6, *space.input) for _ in range(2)]
    batches = [(torch.randn(5, *space.input), torch.randint(2, (5,))) for _ in range(2)]
    return supernet, archs, recalibration, batches


def assert_as_alone(space, n=12):
    supernet, archs, recalibration, batches = prepared(space, n)
    for inputs in (recalibration, []):
        state = copy.deepcopy(supernet.state_dict())
        scores = score_population(supernet, archs, inputs, batches)
        assert all(torch.equal(state[key], value) for key, value in supernet.state_dict().items())
        assert supernet.training
        alone = [score_alone(supernet, arch, inputs, batches) for arch in archs]
        np.testing.assert_allclose(scores, alone, rtol=1e-5, atol=1e-5)
        assert scores[0] == scores[-1]
        assert len({loss for _, loss in scores}) > 1
    return supernet, archs


def test_a_sequence_of_slots():
    assert_as_alone(SPOS, n=24)


def test_sizes_that_a_mixture_cannot_tell():
    layout = (Stage(("ir", "ds"), (8,), (1, 2, 3), 2, kernels=(3,), expansions=(2,)),)
    space = MBConv(layout, stem=4, head=8, widths=(50, 100), input=(3, 12, 12), classes=2)
    supernet, archs = assert_as_alone(space, n=18)
    told = 0
    for arch in archs:
        try:
            supernet.gates(arch)
            told += 1
        except UnsupportedRequest:
            pass
    assert 0 < told < len(archs)


def test_slots_that_come_again_in_later_parts():
    assert_as_alone(NasBench201(channels=3, cells=1, classes=3, input=(3, 8, 8)))


@pytest.mark.parametrize("name", ["darts", "mbconv"])
def test_other_spaces(name):
    if name not in SMALL:
        pytest.skip(f"there is no small {name}")
    assert_as_alone(SMALL[name](), n=6)


def test_what_paths_share_is_run_once():
    supernet, archs, recalibration, batches = prepared(SPOS, n=24)
    runs = 0

    def count(*_):
        nonlocal runs
        runs += 1

    blocks = [part for part in sequence(supernet.largest) if Part.of(part).labels]
    assert len(blocks) == len(SPOS.choices)
    for block in blocks:
        for option in block.options:
            block.option(option).register_forward_pre_hook(count)
    score_population(supernet, archs, recalibration, batches)
    beginnings = {arch.picks[: i + 1] for arch in archs for i in range(len(arch.picks))}
    assert runs == len(beginnings) * (len(recalibration) + len(batches))
    assert runs < len(archs) * len(SPOS.choices) * 4 / 1.5


def test_layers_that_work_in_place_leave_what_paths_share():
    supernet, archs, recalibration, batches = prepared(SPOS, n=9)
    expected = score_population(supernet, archs, recalibration, batches)
    layers = supernet.largest.layers
    layers["block1"] = nn.Sequential(layers["block1"], nn.ReLU(inplace=True), nn.Identity())
    assert score_population(supernet, archs, recalibration, batches) == expected

    class Doubling(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    layers["block1"] = nn.Sequential(layers["block1"], Doubling())
    with pytest.raises(UnsupportedRequest, match="Doubling changes its input in place"):
        score_population(supernet, archs, recalibration, batches)


def test_nothing_to_score_on_is_refused():
    supernet, archs, recalibration, _ = prepared(SPOS)
    with pytest.raises(ValueError, match="at least one batch"):
        score_population(supernet, archs, recalibration, [])


@pytest.mark.parametrize(
    ("module", "folds"),
    [
        (conv_bn(4, 6, 3), 1),
        (ConvBNReLU(4, 6, 3), 1),
        (ReLUConvBN(4, 6, 3), 1),
        (nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU()), 1),
        (nn.Sequential(conv_bn(4, 6, 3), nn.Tanh(), conv_bn(6, 2, 1)), 2),
        (nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)), 0),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)), 0),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 0),
    ],
    ids=range(8),
)
def test_folded_norms(module, folds):
    torch.manual_seed(0)
    module = module.double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    x = torch.randn(8, 4, 6, 6, dtype=torch.float64)
    folded = fold(module)
    assert (0 if folded is None else len(folded.trios)) == folds
    for _ in range(2):  # what changes in the original is taken over
        module.train()
        module(x)
        if folded is not None:
            torch.testing.assert_close(folded.update()(x), module.eval()(x), rtol=1e-9, atol=1e-11)


def test_hooks_are_not_folded_away():
    module = conv_bn(4, 6, 3)
    module[1].register_forward_hook(lambda *_: None)
    assert fold(module) is None


def test_dropout_of_a_path_is_off():
    assert_as_alone(replace(SPOS, dropout=0.5), n=6)

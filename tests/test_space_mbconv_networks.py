"""Networks of the MBConv spaces share weights and export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exporting import export_and_run
from small_spaces import SMALL
from torch import nn

from nas.space import network, sample
from nas.supernet import Supernet

NAMES = ("mbconv", "mnasnet", "proxylessnas", "fbnet", "ofa_mobilenet_v3")


QUICK = ("ofa_mobilenet_v3",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES]
)
def test_exported_files_run_alone_and_are_clean(name, tmp_path):
    export_and_run(SMALL[name](), tmp_path, number=3)


@pytest.mark.parametrize("name", NAMES)
def test_networks_over_shared_weights_are_the_stand_alone_ones(name):
    space = SMALL[name]()
    torch.manual_seed(0)
    supernet = Supernet(space)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    nn.init.normal_(tensor, std=0.3)
    supernet.eval()
    x = torch.randn(2, *space.input)
    rng = np.random.default_rng(3)
    outputs = []
    for _ in range(6):
        arch = sample(space, rng)
        alone = network(space, arch).eval()
        alone.load_state_dict(supernet.extract(arch).state_dict())
        with torch.no_grad():
            outputs.append(alone(x))
            assert torch.equal(supernet.network(arch)(x), outputs[-1])
            if not supernet.numbers:
                mixed = supernet(x, supernet.gates(arch))
                torch.testing.assert_close(mixed, outputs[-1])
    assert len({tuple(out.flatten().tolist()) for out in outputs}) == len(outputs)

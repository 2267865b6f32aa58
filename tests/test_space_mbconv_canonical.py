"""Canonical forms of the MBConv spaces: equal networks, and no others, have an equal form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.space import count, enumerate_architectures, network, parse
from search_spaces.mbconv import MBConv, Stage


def tiny(*layout: Stage, **arguments) -> MBConv:
    given = {"stem": 4, "head": 8, "widths": (100,), "classes": 3, "input": (3, 9, 10)} | arguments
    return MBConv(layout, **given)


def randomised_network(space, arch, seed=0):
    torch.manual_seed(seed)
    model = network(space, arch).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


SKIPPED = tiny(Stage(("ir_k3_e2", "ir_k5_e2", "skip"), (6,), (4,), 2))
CANONICAL = {
    "skips move behind": SKIPPED,
    "reductions do not": tiny(Stage(("ir_k3_e1", "ir_k3_e1_g2", "skip1x1"), (4,), (3,), 2)),
    "first block, too": tiny(Stage(("ir_k3_e2", "ir_k5_e2", "skip"), (4,), (3,))),
    "two skips": tiny(Stage(("ir_k3_e2", "skip1x1", "skip"), (4,), (3,))),
    "additions": tiny(
        Stage(
            ("conv", "ir_e3"),
            (4, 6),
            (1, 2),
            kernels=(3, 5),
            squeezes=(0, 25),
            skips=("pool", "identity", "none"),
            shared=True,
        )
    ),
    "additions of a block": tiny(Stage(("ds_k3",), (4, 6), (1, 2), skips=("none", "identity"))),
    "widths": tiny(
        Stage(("ds_k3",), (8, 12, 16), (1,), 2), stem=8, head=16, widths=(100, 110, 150, 160)
    ),
}


@pytest.mark.parametrize("case", list(CANONICAL))
def test_canonical_networks_compute_the_same_and_merge_all_that_do(case):
    space = CANONICAL[case]
    archs = list(enumerate_architectures(space))
    assert len(archs) == count(space)
    x = torch.randn(2, *space.input, generator=torch.Generator().manual_seed(1))
    outputs = {}
    for arch in archs:
        # The weights in the order in which they are met: names differ where blocks move.
        model = randomised_network(space, arch)
        with torch.no_grad():
            outputs[arch] = tuple(model(x).flatten().tolist())
    merged = 0
    for arch in archs:
        canonical = space.canonical(arch)
        merged += canonical != arch
        assert outputs[canonical] == outputs[arch]
    assert merged
    # Seeded alike, different networks differ: no two forms are one network.
    assert len({space.canonical(arch) for arch in archs}) == len(set(outputs.values()))


def test_canonical_form_of_a_skip():
    space = SKIPPED
    text = "stage1/block{}/op={}"

    def arch(*ops):
        return parse(space, " ".join(text.format(i, op) for i, op in enumerate(ops, start=1)))

    a, b = "ir_k3_e2", "ir_k5_e2"
    assert space.canonical(arch(a, "skip", b, a)) == arch(a, b, a, "skip")
    assert space.canonical(arch(b, "skip", "skip", a)) == arch(b, a, "skip", "skip")
    assert space.canonical(arch(b, b, a, "skip")) == arch(b, b, a, "skip")

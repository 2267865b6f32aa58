"""Weights are inherited in every space, as far as they fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from morphing import child_of, difference, randomised
from small_spaces import SMALL

from nas.morphism import inherit
from nas.space import enumerate_architectures, network, sample


def built(space, arch, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return network(space, arch)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_space_inherits_what_it_can(name):
    space, rng = SMALL[name](), np.random.default_rng(4)
    arch, child = sample(space, rng), sample(space, rng)
    parent = randomised(built(space, arch))
    same, given_ = child_of(space, parent, arch, arch)
    assert given_.preserved
    assert given_.reused == 1
    assert difference(parent, same, space.input) == 0
    other, given_ = child_of(space, parent, arch, child)
    assert 0 <= given_.reused < 1
    assert given_.preserved == (not given_.why)
    if given_.preserved:
        assert difference(parent, other, space.input) <= 1e-5
    again = inherit(space, arch, parent.state_dict(), child, 0)
    assert all(torch.equal(tensor, given_.weights[n]) for n, tensor in again.weights.items())


def test_tensors_of_two_operations_of_one_slot_are_not_taken_for_each_other():
    space = SMALL["nasbench201"]()
    archs = [
        arch
        for arch in enumerate_architectures(space)
        if set(arch.as_dict().values()) <= {"nor_conv_3x3", "nor_conv_1x1", "none"}
    ]
    arch = next(a for a in archs if set(a.as_dict().values()) == {"nor_conv_3x3"})
    child = next(a for a in archs if set(a.as_dict().values()) == {"nor_conv_1x1"})
    parent = randomised(built(space, arch))
    given_ = inherit(space, arch, parent.state_dict(), child, seed=1)
    fresh = built(space, child, 1).state_dict()
    norms = [name for name in given_.weights if "edges" in name and name.endswith("running_var")]
    assert norms
    assert all(torch.equal(given_.weights[name], fresh[name]) for name in norms)

"""Children compute what their parents do: on chains, MBConv networks and grown chains."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from morphing import CHAIN, MBCONV, chain, child_of, difference, randomised, trained
from small_spaces import SMALL

from nas.architecture import Architecture
from nas.errors import ConfigError, DataError, InvalidArchitecture
from nas.morphism import inherit, morphisms
from nas.space import from_picks, network, sample, validate

TOLERANCE = 1e-5
GROWN = SMALL["grown_chain"]()
SPACES = {"chain": CHAIN, "mbconv": MBCONV, "grown_chain": GROWN}


def built(space, arch, seed=0):
    torch.manual_seed(seed)
    return network(space, arch)


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_step_and_several_preserve_the_function(name, seed):
    space, rng = SPACES[name], np.random.default_rng(seed)
    arch = first = sample(space, rng)
    parent = start = randomised(built(space, arch, seed), seed)
    for _ in range(2):
        steps = morphisms(space, arch)
        if not steps:
            break
        step = steps[int(rng.integers(len(steps)))]
        validate(space, step.child)
        child, given_ = child_of(space, parent, arch, step.child, seed, noise=0.5)
        assert given_.preserved, step
        assert not given_.why
        assert 0 < given_.reused <= 1
        assert difference(parent, child, space.input) <= TOLERANCE, step
        arch, parent = step.child, child
    # All of them at once, for who knows the first parent alone.
    child, given_ = child_of(space, start, first, arch, seed)
    if given_.preserved:
        assert difference(start, child, space.input) <= TOLERANCE


@pytest.mark.parametrize("name", ["chain", "mbconv"])
def test_children_of_trained_networks_compute_what_those_do(name):
    space = SPACES[name]
    arch = (
        chain((3, 4, 1), (3, 6, 2), dense=1)
        if name == "chain"
        else from_picks(space, _mbconv_picks())
    )
    parent = trained(built(space, arch))
    steps = morphisms(space, arch)
    assert {step.kind for step in steps} >= {"wider", "deeper", "kernel"}
    for step in steps[::5]:
        child, given_ = child_of(space, parent, arch, step.child, noise=0.5)
        assert given_.preserved
        assert difference(parent, child, space.input) <= TOLERANCE


def _mbconv_picks():
    picks = {"width": 100, "stage2/channels": 6, "stage2/depth": 1}
    picks |= {"stage2/block1/kernel": 3, "stage2/block1/expansion": 2, "stage2/block1/se": 25}
    return picks | {"stage3/block1/op": "ir_k3_e2", "stage3/block2/op": "skip"}


def test_several_morphisms_at_once_are_found():
    parent = chain((3, 4, 1), (3, 6, 2))
    one = randomised(built(CHAIN, parent))
    for child in (
        chain((5, 9, 1), (3, 4 + 5, 1), (5, 9, 2), dense=2, width=64),
        chain((3, 4, 1), (1, 4, 1), (3, 4, 1), (5, 6, 2)),
    ):
        other, given_ = child_of(CHAIN, one, parent, child)
        assert given_.preserved
        assert difference(one, other, CHAIN.input) <= TOLERANCE


def test_the_steps_of_a_chain_are_all_that_there_are():
    """Against a look at every architecture of the space that differs as a step may."""
    parent = chain((3, 4, 1), (3, 6, 2))
    found = {step.child: step for step in morphisms(CHAIN, parent)}
    wider = {chain((3, 6, 1), (3, 6, 2)), chain((3, 4, 1), (3, 9, 2))}
    kernel = {chain((5, 4, 1), (3, 6, 2)), chain((3, 4, 1), (5, 6, 2))}
    layers = {
        chain(*first, (k, w, 1), *second)
        for first, second, widths in (
            ([(3, 4, 1), (3, 6, 2)], [], (6, 9)),
            ([(3, 4, 1)], [(3, 6, 2)], (4, 6, 9)),
        )
        for k in (1, 3, 5)
        for w in widths
    }
    # A dense layer after the mean: the narrowest holds it.
    dense = {chain((3, 4, 1), (3, 6, 2), dense=1, width=w) for w in (32, 64)}
    assert set(found) == wider | kernel | layers | dense
    for children, kind in ((wider, "wider"), (kernel, "kernel"), (layers | dense, "deeper")):
        assert {found[child].kind for child in children} == {kind}
    assert found[chain((3, 4, 1), (5, 6, 2))].place == "conv1/kernel"
    assert found[chain((3, 4, 1), (3, 4, 1), (3, 6, 2))].place == "conv1"
    assert list(found) == [step.child for step in morphisms(CHAIN, parent)]


def test_skips_of_grown_chains():
    label = {"depth": 2, "layer0/kind": "conv", "layer0/kernel": 3, "layer0/width": 4}
    label |= {"layer0/stride": 1, "layer0/skip": 0, "layer1/kind": "conv", "layer1/kernel": 3}
    arch = from_picks(GROWN, label | {"layer1/width": 4, "layer1/stride": 2, "layer1/skip": 0})
    steps = [step for step in morphisms(GROWN, arch) if step.kind == "skip"]
    assert {step.child.as_dict().get("layer1/join") for step in steps} >= {"add", "concat"}
    parent = randomised(built(GROWN, arch))
    for step in steps:
        child, _ = child_of(GROWN, parent, arch, step.child)
        assert difference(parent, child, GROWN.input) <= TOLERANCE


# ------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("child", "why"),
    [
        (chain((1, 4, 1), (3, 6, 2)), r"0\.0\.conv\.weight: its kernel is 1, the parent's 3"),
        (chain((3, 4, 2), (3, 6, 2)), "its stride is 2, the parent's 1"),
        (chain((3, 4, 1), (3, 4, 2)), "it makes 4 channels, the parent's 6"),
        (chain((3, 4, 1), (3, 6, 2), pool="max"), "max_pool2d: the parent has no such max_pool2d"),
    ],
)
def test_what_cannot_be_preserved_says_why_and_inherits_what_matches(child, why):
    arch = chain((3, 4, 1), (3, 6, 2))
    parent = randomised(built(CHAIN, arch))
    given_ = inherit(CHAIN, arch, parent.state_dict(), child, seed=3)
    assert not given_.preserved
    assert re.search(why, given_.why), given_.why
    state, fresh = parent.state_dict(), built(CHAIN, child, 3).state_dict()
    assert set(given_.weights) == set(fresh)
    taken = 0
    for name, tensor in given_.weights.items():
        if name in state and state[name].shape == tensor.shape:
            assert torch.equal(tensor, state[name])
            taken += tensor.numel()
        else:
            assert torch.equal(tensor, fresh[name])
    assert given_.reused == taken / sum(tensor.numel() for tensor in fresh.values())


# ------------------------------------------------------------------------------ bad input


def test_bad_input_is_refused():
    arch = chain((3, 4, 1), (3, 6, 2))
    state = built(CHAIN, arch).state_dict()
    child = chain((3, 6, 1), (3, 6, 2))
    other = built(CHAIN, child).state_dict()
    with pytest.raises(DataError, match=r"'0\.0\.conv\.weight' must have shape \(4, 1, 3, 3\)"):
        inherit(CHAIN, arch, other, child, 0)
    with pytest.raises(DataError, match=r"have no '3\.bias'"):
        inherit(CHAIN, arch, {n: t for n, t in state.items() if n != "3.bias"}, child, 0)
    with pytest.raises(DataError, match="has no 'more'"):
        inherit(CHAIN, arch, state | {"more": torch.zeros(1)}, child, 0)
    for noise in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="noise must be at least 0 and below 1"):
            inherit(CHAIN, arch, state, child, 0, noise)
    alien = Architecture("another/v1", arch.picks)
    with pytest.raises(InvalidArchitecture, match="'another/v1'"):
        inherit(CHAIN, arch, state, alien, 0)
    with pytest.raises(InvalidArchitecture, match="'another/v1'"):
        morphisms(CHAIN, alien)

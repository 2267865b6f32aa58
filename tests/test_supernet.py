"""Shared weights: one path, a mixture and an extracted network agree, on every space."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_spaces import SMALL
from torch import nn

from nas.errors import UnsupportedRequest
from nas.space import enumerate_architectures, network, parse, sample
from nas.supernet import HardSample, Sparse, Supernet, recalibrate
from search_spaces.chain import Chain
from search_spaces.nasbench201 import OPERATIONS, NasBench201

# What a layer is given depends on other picks there, so weights cannot be shared over them.
UNSHARED = {"grown_chain", "hierarchical", "metaqnn", "nas_rl", "nasbench101"}
SHARED = sorted(set(SMALL) - UNSHARED)
NB201 = NasBench201(channels=3, cells=1, input=(3, 8, 8))


def randomised(supernet: Supernet, seed: int = 0) -> Supernet:
    """Weights and statistics drawn anew: fresh norms would hide a swapped tensor."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.4)
    return supernet


def inputs(space, n=2, seed=1):
    return torch.randn(n, *space.input, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHARED)
def test_path_mixture_and_extracted_network_agree_to_the_bit(name):
    space = SMALL[name]()
    supernet = randomised(Supernet(space)).eval()
    rng = np.random.default_rng(0)
    x = inputs(space)
    mixed = 0
    for _ in range(12):
        arch = sample(space, rng)
        fixed = network(space, arch).eval()
        extracted = supernet.extract(arch)
        assert list(extracted.state_dict()) == list(fixed.state_dict())
        fixed.load_state_dict(extracted.state_dict())
        with torch.no_grad():
            expected = fixed(x)
            assert torch.isfinite(expected).all()
            assert torch.equal(extracted(x), expected)
            assert torch.equal(supernet.network(arch)(x), expected)
            try:
                gates = supernet.gates(arch)
            except UnsupportedRequest:
                continue
            mixed += 1
            assert torch.equal(supernet(x, gates), expected)
    if not supernet.numbers:
        assert mixed == 12


@pytest.mark.parametrize("name", sorted(UNSHARED))
def test_spaces_whose_weights_cannot_be_shared_are_refused(name):
    space = SMALL[name]()

    def share():
        supernet = Supernet(space)
        for seed in range(20):  # one architecture may by chance be the largest
            supernet.network(sample(space, np.random.default_rng(seed)))

    with pytest.raises(UnsupportedRequest, match=space.name):
        share()


@pytest.mark.parametrize("name", SHARED)
def test_gradients_of_a_path_land_in_the_shared_tensors(name):
    space = SMALL[name]()
    supernet = randomised(Supernet(space)).eval()
    rng = np.random.default_rng(1)
    x = inputs(space)
    for _ in range(4):
        arch = sample(space, rng)
        alone = supernet.extract(arch)
        alone(x).square().sum().backward()
        assert all(p.grad is None for p in supernet.parameters())
        for _ in range(2):  # the views serve more than one backward pass
            supernet.zero_grad()
            supernet.network(arch)(x).square().sum().backward()
        total = sum(
            p.grad.double().square().sum() for p in supernet.parameters() if p.grad is not None
        )
        expected = sum(
            p.grad.double().square().sum() for p in alone.parameters() if p.grad is not None
        )
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
        supernet.zero_grad()


def test_a_path_leaves_other_options_without_gradient():
    supernet = Supernet(NB201)
    arch = parse(NB201, "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|")
    supernet.network(arch)(inputs(NB201)).sum().backward()
    touched = {name for name, p in supernet.named_parameters() if p.grad is not None}
    assert any("nor_conv_3x3" in name and "0_1" in name for name in touched)
    assert not any("nor_conv_1x1" in name and "0_1" in name for name in touched)


def test_what_a_path_learns_all_paths_have():
    supernet = Supernet(NB201)
    first, second = list(enumerate_architectures(NB201))[-1:0:-7000][:2]
    before = supernet.extract(second)(inputs(NB201))
    path = supernet.network(first)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.5)
    path(inputs(NB201)).square().sum().backward()
    optimiser.step()
    assert not torch.equal(supernet.extract(second)(inputs(NB201)), before)
    assert torch.equal(supernet.network(first)(inputs(NB201)), path(inputs(NB201)))


def test_extracted_weights_are_copies():
    supernet = Supernet(NB201)
    arch = next(enumerate_architectures(NB201))
    shared = {id(p) for p in supernet.parameters()}
    extracted = supernet.extract(arch)
    assert all(isinstance(p, nn.Parameter) for p in extracted.parameters())
    assert not shared & {id(p) for p in extracted.parameters()}
    copy.deepcopy(extracted)
    before = copy.deepcopy(supernet.state_dict())
    with torch.no_grad():
        for parameter in extracted.parameters():
            parameter.zero_()
    assert all(torch.equal(before[k], v) for k, v in supernet.state_dict().items())


# --------------------------------------------------------------------------------- mixtures


def soft_gates(supernet, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return {
        label: torch.rand(len(options), generator=generator, dtype=torch.float64)
        .add(0.1)
        .requires_grad_(grad)
        for label, options in supernet.slots.items()
    }


def double(space):
    return randomised(Supernet(space)).double().eval()


def test_mixture_is_the_weighted_sum_written_out():
    # One cell of one stage is enough of a mixture to be computed by hand.
    supernet = double(NB201)
    gates = soft_gates(supernet)
    cell = supernet.largest[1][0]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    states = [x]
    for target in range(1, 4):
        state = torch.zeros_like(x)
        for source in range(target):
            mixed = cell.edges[f"{source}_{target}"]
            for weight, option in zip(gates[f"{source}->{target}"], OPERATIONS, strict=True):
                module = mixed.option(option)
                if module is not None:
                    state = state + weight * module(states[source])
        states.append(state)
    given = []
    cell.register_forward_hook(lambda module, args, out: given.append(out))
    supernet._current.gates = gates
    torch.testing.assert_close(cell(x), states[-1], rtol=1e-12, atol=1e-12)


def test_gate_gradients_match_finite_differences():
    supernet = double(NB201)
    gates = soft_gates(supernet)
    x = inputs(NB201).double()

    def loss():
        return supernet(x, gates).square().mean()

    loss().backward()
    for label in ("0->1", "1->2", "2->3"):
        weights = gates[label]
        for index in range(len(OPERATIONS)):
            step = 1e-6
            with torch.no_grad():
                weights[index] += step
                above = loss()
                weights[index] -= 2 * step
                below = loss()
                weights[index] += step
            difference = (above - below) / (2 * step)
            torch.testing.assert_close(weights.grad[index], difference, rtol=1e-5, atol=1e-8)


def test_sparse_gates_are_dense_ones_with_zeros():
    supernet = double(NB201)
    x = inputs(NB201).double()
    kept = (2, 3)
    dense, sparse = {}, {}
    for label, weights in soft_gates(supernet, grad=False).items():
        masked = torch.zeros_like(weights)
        masked[list(kept)] = weights[list(kept)]
        dense[label] = masked
        sparse[label] = Sparse(weights.clone().requires_grad_(), kept)
    ran = count_runs(supernet)
    out = supernet(x, sparse)
    assert set(ran) == {"nor_conv_1x1", "nor_conv_3x3"}
    torch.testing.assert_close(out, supernet(x, dense), rtol=1e-12, atol=1e-12)
    out.sum().backward()
    for gate in sparse.values():
        assert (gate.weights.grad[[0, 1, 4]] == 0).all()
        assert (gate.weights.grad[[2, 3]] != 0).all()


def test_a_hard_sample_has_the_paths_value_and_gradients_for_all():
    supernet = double(NB201)
    x = inputs(NB201).double()
    arch = parse(
        NB201,
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|"
        "avg_pool_3x3~1|nor_conv_1x1~2|",
    )
    gates, soft = {}, {}
    for label, option in arch.picks:
        logits = torch.randn(len(OPERATIONS), dtype=torch.float64, requires_grad=True)
        probabilities = logits.softmax(0)
        hard = torch.zeros_like(probabilities)
        hard[OPERATIONS.index(option)] = 1
        soft[label] = logits
        gates[label] = HardSample(
            hard - probabilities.detach() + probabilities, OPERATIONS.index(option)
        )
    ran = count_runs(supernet)
    out = supernet(x, gates)
    assert sum(ran.values()) == 6 * 3  # one option a slot, in each of the three cells
    expected = supernet.extract(arch)(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    out.square().sum().backward()
    assert all((logits.grad != 0).any() for logits in soft.values())


def count_runs(supernet):
    ran = {}
    for module in supernet.modules():
        if hasattr(module, "option"):
            for option in module.options:
                child = module.option(option)
                if child is not None:
                    child.register_forward_pre_hook(
                        lambda *_, option=option: ran.update({option: ran.get(option, 0) + 1})
                    )
    return ran


def test_an_edge_without_any_option_gives_zeros_of_the_right_shape():
    supernet = Supernet(NB201).eval()
    gates = {label: Sparse(torch.ones(5), (0,)) for label in supernet.slots}
    arch = next(enumerate_architectures(NB201))
    assert set(arch.as_dict().values()) == {"none"}
    with torch.no_grad():
        out = supernet(inputs(NB201), gates)
        assert torch.equal(out, supernet.extract(arch)(inputs(NB201)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda gates: gates.pop("0->1"), "no gate is given for '0->1'"),
        (lambda gates: gates.update({"0->1": torch.ones(4)}), r"'0->1' has the options .* \(4,\)"),
        (lambda gates: gates.update({"0->1": "nor_conv3x3"}), "did you mean 'nor_conv_3x3'"),
        (lambda gates: gates.update({"0->1": 2}), "expected weights over"),
    ],
)
def test_gates_that_do_not_fit_are_refused_by_name(change, says):
    supernet = Supernet(NB201)
    gates = dict(soft_gates(supernet))
    gates = {label: gate.float() for label, gate in gates.items()}
    change(gates)
    with pytest.raises(UnsupportedRequest, match=says):
        supernet(inputs(NB201), gates)


def test_a_number_below_the_largest_is_no_path_of_a_mixture():
    space = Chain(input=(3, 8, 8), widths=(4, 8), kernels=(3,), strides=(1,), depths=(1, 2))
    supernet = Supernet(space)
    arch = sample(space, np.random.default_rng(0))
    narrow = parse(space, str(arch).replace("conv0/width=8", "conv0/width=4"))
    with pytest.raises(UnsupportedRequest, match="'conv0/width' is 4"):
        supernet.gates(narrow)


def test_weights_follow_a_change_of_type():
    supernet = randomised(Supernet(NB201)).eval()
    arch = sample(NB201, np.random.default_rng(3))
    before = supernet.network(arch)(inputs(NB201))
    supernet.double()
    after = supernet.network(arch)(inputs(NB201).double())
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------------------- recalibration


def test_recalibrated_statistics_are_the_average_over_the_batches():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    batches = [torch.randn(8, 3, 5, 5) * (i + 1) for i in range(3)]
    model.eval()
    weights = copy.deepcopy(dict(model.named_parameters()))
    recalibrate(model, batches)
    assert not model.training
    assert model[1].momentum == 0.1
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())
    first = [model[0](batch).transpose(0, 1).flatten(1) for batch in batches]
    mean = torch.stack([values.mean(1) for values in first]).mean(0)
    variance = torch.stack([values.var(1, unbiased=True) for values in first]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(model, [])


def test_recalibrating_a_path_is_recalibrating_the_extracted_network():
    supernet = randomised(Supernet(NB201)).eval()
    arch = sample(NB201, np.random.default_rng(5))
    batches = [inputs(NB201, n=8, seed=seed) for seed in range(3)]
    shared = copy.deepcopy(supernet.state_dict())
    extracted, path = supernet.extract(arch), supernet.network(arch)
    recalibrate(extracted, batches)
    recalibrate(path, batches)
    assert torch.equal(extracted(inputs(NB201)), path(inputs(NB201)))
    # The supernet's own statistics are as they were, and the next path begins with them.
    assert all(torch.equal(shared[key], value) for key, value in supernet.state_dict().items())
    assert not torch.equal(supernet.network(arch)(inputs(NB201)), extracted(inputs(NB201)))

"""Each proxy against a straightforward computation of its own."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scoring import batch, built, plain, small
from torch import nn
from torch.nn import functional as F

from nas.zero_cost import AZ_NAS, Batch, score, scores
from nas.zero_cost.az_nas import blocks, entropy, gain


def gradients(net, given):
    net = copy.deepcopy(net).train()
    F.cross_entropy(net(given.images), given.labels).backward()
    return [(p.detach(), p.grad) for p in net.parameters() if p.ndim > 1]


# --------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("make", [small, built])
def test_grad_norm_and_snip_are_sums_over_the_weights(make):
    given = batch()
    pairs = [(w, g) for w, g in gradients(make(), given) if g is not None]
    found = scores(("snip", "grad_norm"), make(), given)
    assert found["snip"] == pytest.approx(sum(float((w * g).abs().sum()) for w, g in pairs))
    assert found["grad_norm"] == pytest.approx(sum(float(g.norm()) for _, g in pairs))


def test_fisher_by_loops():
    net, given = small(), batch(4)
    first = net[0](given.images)
    second = net[2](F.relu(first))
    third = net[5](F.relu(second).flatten(1))
    outputs = (first, second, third)
    found = torch.autograd.grad(F.cross_entropy(third, given.labels), outputs)
    total = 0.0
    for output, gradient in zip(outputs, found, strict=True):
        for channel in range(output.shape[1]):
            effects = [
                float((output[n, channel] * gradient[n, channel]).sum().detach())
                for n in range(len(output))
            ]
            total += sum(effect**2 for effect in effects) / len(effects) / 2
    assert score("fisher", net, given) == pytest.approx(total, rel=1e-4)


def test_grasp_is_minus_weights_times_the_hessian_gradient():
    net, given = small(), batch()
    names = [name for name, p in net.named_parameters() if p.ndim > 1]
    rest = {name: p.detach() for name, p in net.named_parameters() if p.ndim == 1}

    def loss(*tensors):
        values = {**rest, **dict(zip(names, tensors, strict=True))}
        return F.cross_entropy(
            torch.func.functional_call(net, values, (given.images,)), given.labels
        )

    point = tuple(net.get_parameter(name).detach() for name in names)
    slope = torch.autograd.functional.jacobian(loss, point)
    _, product = torch.autograd.functional.hvp(loss, point, slope)
    expected = -sum(float((w * h).sum()) for w, h in zip(point, product, strict=True))
    assert score("grasp", net, given) == pytest.approx(expected, rel=1e-4)


def test_synflow_of_two_layers_by_hand():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0, -2.0], [-3.0, 4.0]])
    net[2].weight.data = torch.tensor([[-5.0, 6.0]])
    # R = 5·(1 + 2) + 6·(3 + 4) = 57, and each layer's Σ w·∂R/∂w is R again.
    assert score("synflow", net, Batch.noise((2,), 2)) == pytest.approx(math.log(2 * 57), rel=1e-14)


def test_synflow_leaves_batch_norm_out_and_ignores_signs():
    bare = plain(lambda: nn.Conv2d(3, 4, 3), nn.ReLU, nn.Flatten, lambda: nn.Linear(144, 5))
    normed = nn.Sequential(bare[0], nn.BatchNorm2d(4), *bare[1:])
    given = batch()
    assert score("synflow", normed, given) == score("synflow", bare, given)
    turned = copy.deepcopy(normed)
    turned[0].weight.data.neg_()
    assert score("synflow", turned, given) == score("synflow", normed, given)


def test_naswot_kernel_by_loops():
    net, given = small(), batch(5)
    with torch.no_grad():
        first = net[1](net[0](given.images)).flatten(1)
        second = net[3](net[2](net[1](net[0](given.images)))).flatten(1)
    codes = torch.cat([first, second], dim=1) > 0
    kernel = [
        [sum(bool(a == b) for a, b in zip(one, other, strict=True)) for other in codes]
        for one in codes
    ]
    expected = np.linalg.slogdet(np.array(kernel, dtype=float))[1]
    assert score("naswot", net, given) == pytest.approx(expected, rel=1e-12)


def test_naswot_counts_no_relu_that_leads_nowhere():
    connected = "|none~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    dangling = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    values = []
    for text in (connected, dangling):
        net = built(text)
        for parameter in net.parameters():  # the same in both, whatever was drawn for the other
            with torch.no_grad():
                values_of = torch.linspace(-1, 1, parameter.numel()).sin()
                parameter.copy_(values_of.reshape(parameter.shape))
        values.append(score("naswot", net, batch()))
    assert values[0] == values[1]


@pytest.mark.parametrize("make", [nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU])
def test_naswot_of_other_activations_counts_signs(make):
    relu, other = small(), small()
    other[1] = make()
    other[3] = nn.Identity()
    relu[3] = nn.Identity()
    given = batch(4)
    assert score("naswot", other, given) == score("naswot", relu, given)


def test_jacobian_covariance_by_numpy():
    net, given = built(), batch(6)
    x = given.images.clone().requires_grad_()
    copy.deepcopy(net).train()(x).sum().backward()
    values = np.linalg.eigvalsh(np.corrcoef(x.grad.flatten(1).double().numpy()))
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert score("jacob_cov", net, given) == pytest.approx(expected, rel=1e-4)


def test_zico_by_numpy():
    net, given = small(), batch(8)
    halves = [Batch(given.images[part], given.labels[part]) for part in (slice(4), slice(4, 8))]
    found = [[g.numpy() for _, g in gradients(net, half)] for half in halves]
    expected = 0.0
    for pair in zip(*found, strict=True):
        mean, deviation = np.mean(np.abs(pair), axis=0), np.std(pair, axis=0)
        expected += math.log(np.sum(mean[deviation > 0] / deviation[deviation > 0]))
    assert score("zico", net, given) == pytest.approx(expected, rel=1e-4)


def test_zen_does_not_change_with_the_scale_that_batch_norm_takes_away():
    # One linear convolution behind a norm: the norm's gain is what the correction undoes.
    net = plain(
        lambda: nn.Conv2d(3, 4, 3, bias=False), lambda: nn.BatchNorm2d(4), nn.Flatten,
        lambda: nn.Linear(144, 5),
    )  # fmt: skip
    given = batch()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        x = torch.randn_like(given.images)
        weight = torch.randn_like(net[0].weight)
        torch.randn_like(net[3].weight)
        noise = torch.randn_like(x)
    before, after = F.conv2d(x, weight), F.conv2d(x + 0.01 * noise, weight)
    spread = before.var(dim=(0, 2, 3), unbiased=False).mean()
    norm = nn.BatchNorm2d(4)
    change = (norm(before) - norm(after)).flatten(1).norm(dim=1).mean()
    expected = math.log(change.item()) + 0.5 * math.log(spread.item())
    assert score("zen", net, given, seed=7) == pytest.approx(expected, rel=1e-4)


def test_entropy_and_gain_by_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * np.arange(1, 7)
    values = np.linalg.eigvalsh(np.cov(x.T))
    share = values / values.sum()
    assert entropy(torch.tensor(x)) == pytest.approx(-(share * np.log(share)).sum(), abs=1e-6)
    back, out = rng.normal(size=(50, 4)), rng.choice([-1.0, 1.0], size=(50, 6))
    norm = np.linalg.svd(back.T @ out / 50)[1].max()
    assert gain(torch.tensor(back), torch.tensor(out)) == pytest.approx(
        2 - norm - 1 / (norm + 1e-6)
    )


def test_az_nas_blocks_of_nasbench201_are_stem_cells_and_reductions():
    found = [type(block).__name__ for block in blocks(built())]
    # The classifier's output is no feature map and is left out of the features.
    assert found == [
        "Sequential", "Cell", "ResidualReduction", "Cell", "ResidualReduction", "Cell", "Linear",
    ]  # fmt: skip


def test_az_nas_expressivity_is_the_sum_over_blocks():
    class Keep(nn.Module):
        def forward(self, x):
            return x

    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 1), Keep(), nn.Flatten())
    net.append(nn.Linear(6 * 64, 5))
    found = scores(AZ_NAS[:3], net, batch(), seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        x = torch.randn(8, 3, 8, 8)
        first = torch.randn(3, 3, 1, 1) * math.sqrt(2 / 3)
        second = torch.randn(6, 3, 1, 1) * math.sqrt(2 / 3)
    one = F.conv2d(x, first)
    entropies = [
        entropy(f.permute(0, 2, 3, 1).reshape(-1, f.shape[1])) for f in (one, F.conv2d(one, second))
    ]
    assert found["expressivity"] == pytest.approx(sum(entropies), rel=1e-5)
    assert found["progressivity"] == pytest.approx(entropies[1] - entropies[0], abs=1e-5)

"""What scoring leaves behind, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scoring import DISCONNECTED, SPACE, batch, built, plain, small
from torch import nn
from torch.nn import functional as F

from nas.data import digits
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.space import network, sample
from nas.trial import NotFinite
from nas.zero_cost import AZ_NAS, LOWEST, PROXIES, Batch, measured, score, scores

# ------------------------------------------------------------------- what scoring leaves


def state_of(net):
    return (
        {name: tensor.clone() for name, tensor in net.state_dict().items()},
        [(id(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad) for p in net.parameters()],
        [(id(b), b._version) for b in net.buffers()],
        [(module.training, sorted(vars(module))) for module in net.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()],
    )


def assert_untouched(net, before):
    after = state_of(net)
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items())
    for one, other in zip(before[1], after[1], strict=True):
        assert one[:4] == other[:4]
        assert one[4] is other[4]
    assert before[2:] == after[2:]


def used():
    """A network in an odd state: part in eval mode, a frozen weight, a gradient, a hook."""
    net = built()
    net[1][0].eval()
    first, second, *_ = net.parameters()
    first.requires_grad_(False)
    second.grad = torch.ones_like(second)
    net[0].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize("name", PROXIES)
def test_a_scored_network_is_what_it_was(name):
    net = used()
    before, random = state_of(net), torch.get_rng_state()
    score(name, net, batch())
    assert_untouched(net, before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", [name for name in PROXIES if name not in ("params", "macs")])
def test_a_network_that_raises_is_what_it_was(name):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    net = built()
    net[5] = Broken()
    before = state_of(net)
    with pytest.raises(RuntimeError, match="broken"):
        score(name, net, batch())
    assert_untouched(net, before)


def test_scores_are_the_same_whatever_else_is_asked_for():
    net, given = built(), batch()
    together = scores(PROXIES, net, given, seed=4)
    torch.manual_seed(11)
    assert {name: score(name, net, given, seed=4) for name in reversed(PROXIES)} == together
    assert score("zen", net, given, seed=5) != together["zen"]


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("name", [name for name in PROXIES if name not in ("params", "macs")])
def test_a_disconnected_network_scores_lowest(name):
    found = measured((name,), built(DISCONNECTED), batch())
    assert dict(found.values) == {name: LOWEST}
    assert not found.connected


def test_lowest_is_below_what_others_score():
    rng = np.random.default_rng(0)
    for _ in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = measured(PROXIES, network(SPACE, sample(SPACE, rng)), batch())
        assert all(v > LOWEST for v in found.values.values()) or not found.connected


def test_a_block_that_is_the_identity_has_the_lowest_trainability():
    identity = "|skip_connect~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    found = scores(("expressivity", "trainability"), built(identity), batch())
    assert found["trainability"] == LOWEST
    assert found["expressivity"] > 0


LINEAR = (nn.Flatten, lambda: nn.Linear(192, 10))


@pytest.mark.parametrize(
    ("name", "layers", "needed"),
    [
        ("naswot", LINEAR, "activations"),
        ("zen", LINEAR, "batch norms"),
        ("expressivity", LINEAR, "two blocks"),
        ("trainability", LINEAR, "two blocks"),
        ("snip", (nn.Flatten,), "layers with weights"),
        ("synflow", (nn.Flatten,), "layers with weights"),
        ("grasp", (nn.Flatten,), "layers with weights"),
        ("zico", (nn.Flatten,), "layers with weights"),
    ],
)
def test_a_network_without_what_a_proxy_needs_is_refused(name, layers, needed):
    with pytest.raises(UnsupportedRequest, match=rf"(?s){name}.* of tiny/v1: .*{needed}"):
        score(name, plain(*layers), batch(), where="tiny/v1")


def test_fisher_needs_layers_that_are_modules():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10, 192))

        def forward(self, x):
            return F.linear(x.flatten(1), self.weight)

    with pytest.raises(UnsupportedRequest, match=r"fisher of Bare: .*modules"):
        score("fisher", Bare(), batch())


def test_what_is_not_finite_is_named():
    net = small()
    net[0].weight.data[0, 0, 0, 0] = math.nan
    for name in ("snip", "grad_norm", "fisher", "grasp", "jacob_cov", "synflow", "zico"):
        with pytest.raises(NotFinite, match=f"{name} of small"):
            score(name, net, batch(), where="small")


def test_equal_examples_have_no_naswot():
    images = Batch.noise((3, 8, 8), 1 + 1).images[:1].repeat(4, 1, 1, 1)
    with pytest.raises(NotFinite, match="two examples have the same code"):
        score("naswot", small(), Batch(images))


def test_names_labels_and_batches_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'synflow'"):
        score("synflaw", small(), batch())
    with pytest.raises(ConfigError, match="given twice"):
        scores(("snip", "snip"), small(), batch())
    with pytest.raises(UnsupportedRequest, match="snip of Sequential: it needs labelled data"):
        score("snip", small(), Batch.noise((3, 8, 8), 4))
    with pytest.raises(UnsupportedRequest, match=r"zico of .*two examples at least, got 3"):
        score("zico", small(), batch(3))
    with pytest.raises(ConfigError, match="two examples"):
        Batch(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="so many labels"):
        Batch(torch.zeros(4, 3, 8, 8), torch.zeros(3, dtype=torch.long))


def test_batches_of_data():
    data = digits()
    one, other = Batch.of(data, 6, seed=1), Batch.of(data, 6, seed=1)
    assert torch.equal(one.images, other.images)
    assert one.images.shape == (6, 1, 8, 8)
    assert not torch.equal(one.images, Batch.of(data, 6, seed=2).images)
    assert Batch.of(data, 6, input=(1, 4, 4)).images.shape == (6, 1, 4, 4)
    with pytest.raises(DataError, match="cannot be scaled to"):
        Batch.of(data, 6, input=(3, 8, 8))
    with pytest.raises(DataError, match="a batch needs 5000"):
        Batch.of(data, 5000)


def test_tokens_and_vectors_have_az_nas_scores():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    tokens = nn.Sequential(layer, copy.deepcopy(layer), nn.Flatten(), nn.Linear(40, 3))
    vectors = plain(*itertools.chain(*[(lambda: nn.Linear(6, 6), nn.ReLU)] * 3))
    for net, shape in ((tokens, (5, 8)), (vectors, (6,))):
        found = scores(AZ_NAS[:3], net, Batch.noise(shape, 16))
        assert found["expressivity"] > 0
        assert found["trainability"] <= 1e-6

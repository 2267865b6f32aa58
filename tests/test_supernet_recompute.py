"""Cells that are computed again in the backward pass learn what cells that are kept learn."""

from __future__ import annotations

import pytest
import torch
from gradient_workloads import described, quick
from small_spaces import SMALL
from torch import nn

from nas.objective import maximize
from nas.supernet import Supernet, recomputed, search_form
from nas.supernet.recompute import Recomputed
from search_spaces.nasbench201 import NasBench201
from strategies import darts


def pair(name, fast):
    space = SMALL[name]()
    form = search_form(space)
    torch.manual_seed(0)
    kept = Supernet(space, form).train()
    again = Supernet(space, recomputed(form)).train()
    again.largest.load_state_dict(
        {again.names[n]: kept.largest.state_dict()[own] for n, own in kept.names.items()}
    )
    kept.fast = again.fast = fast
    return space, kept, again


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        pytest.param("darts", True, marks=pytest.mark.slow),
        ("nasbench201", False),
        ("nasbench201", True),
    ],
)
def test_gradients_and_statistics_are_those_of_kept_cells(name, fast):
    space, kept, again = pair(name, fast)
    assert any(isinstance(module, Recomputed) for module in again.modules())
    torch.manual_seed(1)
    x = torch.randn(2, *space.input)
    raw = {label: torch.randn(len(o)) for label, o in kept.open_gates().items()}
    found = []
    for supernet in (kept, again):
        alpha = {label: nn.Parameter(values.clone()) for label, values in raw.items()}
        torch.manual_seed(2)
        for _ in range(2):
            out = supernet(x, {label: values.softmax(0) for label, values in alpha.items()})
            out.square().mean().backward()
        found.append((out, alpha))
    (one, alphas), (other, alphas_again) = found
    assert torch.equal(one, other)
    for label, alpha in alphas.items():
        torch.testing.assert_close(alphas_again[label].grad, alpha.grad, rtol=1e-4, atol=1e-7)
    theirs = dict(again.largest.named_parameters()) | dict(again.largest.named_buffers())
    mine = dict(kept.largest.named_parameters()) | dict(kept.largest.named_buffers())
    for shared, own in kept.names.items():
        tensor, same = mine[own], theirs[again.names[shared]]
        assert torch.equal(tensor, same), shared  # statistics took one step a pass, not two
        if tensor.grad is None:
            assert same.grad is None
        else:
            torch.testing.assert_close(same.grad, tensor.grad, rtol=1e-4, atol=1e-7)


def test_what_is_kept_for_the_backward_pass_is_less():
    space, *supernets = pair("nasbench201", fast=True)
    x = torch.randn(2, *space.input)
    kept = []
    for supernet in supernets:
        stored = 0

        def pack(tensor):
            nonlocal stored
            stored += tensor.numel()
            return tensor

        gates = {label: torch.ones(len(o)) for label, o in supernet.open_gates().items()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            supernet(x, gates)
        kept.append(stored)
    assert 4 * kept[1] < kept[0]


def test_a_path_is_the_same_network():
    space, kept, again = pair("nasbench201", fast=False)
    arch = space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|none~2|")
    x = torch.randn(2, *space.input)
    with torch.no_grad():
        assert torch.equal(kept.eval().network(arch)(x), again.eval().network(arch)(x))
        assert torch.equal(kept(x, kept.gates(arch)), again(x, again.gates(arch)))


def test_a_search_that_recomputes_is_the_same_search():
    space = NasBench201(channels=2, cells=1, classes=3, input=(2, 4, 4))
    found = []
    for recompute in (False, True):
        strategy = darts.Darts(
            space,
            (maximize("accuracy"),),
            described(),
            settings=quick(darts.SETTINGS),
            device="cpu",
            recompute=recompute,
        )
        (proposal,) = strategy.ask(1)
        found.append((proposal.arch, strategy._run.search.curve[0]["train_loss"]))
    assert found[0][0] == found[1][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-6)

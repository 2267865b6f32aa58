"""The fast kernels of a mixture give what its options give one by one, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.layers.basic import ReLUConvBN
from nas.layers.cells import DilConv, FactorizedReduction, SepConv
from nas.supernet import Sparse, Supernet, kernels, partial_channels, search_form
from nas.supernet.gates import HardSample
from nas.supernet.kernels.convolutions import convolve
from nas.supernet.kernels.terms import READINGS
from search_spaces.darts import Darts
from search_spaces.nasbench201 import NasBench201

TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def image(channels, height=6, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, channels, height, width, generator=generator, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def drawn(module, seed=0):
    """In double precision, with weights that no symmetry hides behind."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.1)
    return module.double().train()


def gradients(out, of):
    return torch.autograd.grad(out.sin().sum(), of)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (7, 1), ((5, 3), 1), (3, 2), (5, 2), (3, 3)]
)
def test_depthwise_convolutions(kernel, dilation, stride, size):
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(dilation * (side // 2) for side in sides)
    conv = drawn(nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=4, bias=False))
    x = image(4, *size)
    out, expected = convolve(conv, x, kernels.Once()), conv(x)
    torch.testing.assert_close(out, expected, **TIGHT)
    of = (x, conv.weight)
    for found, right in zip(gradients(out, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(found, right, **TIGHT)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 1, bias=False),
        nn.Conv2d(4, 6, 1, stride=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, stride=(1, 2), padding=1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
    ],
    ids=str,
)
def test_other_convolutions_are_what_their_module_says(conv):
    conv, x = drawn(conv), image(4)
    out, expected = convolve(conv, x, kernels.Once()), conv(x)
    torch.testing.assert_close(out, expected, **TIGHT)
    of = (x, conv.weight)
    for found, right in zip(gradients(out, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(found, right, **TIGHT)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2)])
def test_second_derivatives_of_convolutions(kernel, dilation):
    padding = dilation * (kernel // 2)
    conv = drawn(nn.Conv2d(2, 2, kernel, 1, padding, dilation, groups=2, bias=False))
    point = drawn(nn.Conv2d(2, 3, 1, bias=False))

    def both(x, deep, wide):
        with torch.no_grad():
            conv.weight, point.weight = nn.Parameter(deep), nn.Parameter(wide)
        conv._parameters["weight"], point._parameters["weight"] = deep, wide
        return convolve(point, convolve(conv, x, kernels.Once()), kernels.Once())

    x = image(2, 4, 4)[:1].detach().requires_grad_()
    args = (x, conv.weight.detach().requires_grad_(), point.weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(both, args)
    assert torch.autograd.gradgradcheck(both, args)


def options(c, stride, affine):
    modules = {
        "max": nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(c, affine=affine)),
        "avg": nn.Sequential(
            nn.AvgPool2d(3, stride, 1, count_include_pad=False), nn.BatchNorm2d(c, affine=affine)
        ),
        "bare": nn.AvgPool2d(3, stride, 1),
        "skip": nn.Identity() if stride == 1 else FactorizedReduction(c, c),
        "sep": SepConv(c, c, 5, stride),
        "dil": DilConv(c, c, 3, stride),
        "conv": ReLUConvBN(c, c, 3, stride),
        "user": nn.Sequential(nn.Tanh(), nn.Conv2d(c, c, 3, stride, 1), nn.GroupNorm(2, c)),
    }
    if not affine:
        for module in modules.values():
            for norm in [part for part in module.modules() if type(part) is nn.BatchNorm2d]:
                norm.affine, norm.weight, norm.bias = False, None, None
    return [drawn(module, seed) for seed, module in enumerate(modules.values())]


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_a_weighted_sum_is_written_out(affine, stride, size):
    x = image(4, *size)
    found, right = [], []
    for fast, results in ((True, found), (False, right)):
        modules = options(4, stride, affine)
        weights = torch.linspace(-0.7, 1.3, len(modules) + 1, dtype=torch.float64).requires_grad_()
        once = kernels.Once()
        # Two slots that read the same state, the second with options of its own weights.
        others = options(4, stride, affine)
        for use in (modules, others):
            if fast:
                out = kernels.weighted_sum(list(enumerate(use, start=1)), x, weights, once)
            else:
                out = sum(w * module(x) for w, module in zip(weights[1:], use, strict=True))
            of = [x, weights, *(p for module in use for p in module.parameters())]
            results += [out, *gradients_kept(out, of)]
        for module in (*modules, *others):
            results += [buffer.double() for buffer in module.buffers()]
    assert len(found) == len(right) > 40
    for mine, its in zip(found, right, strict=True):
        torch.testing.assert_close(mine, its, **TIGHT)


def gradients_kept(out, of):
    return torch.autograd.grad(out.sin().sum(), of, retain_graph=True)


def test_second_derivatives_of_a_weighted_sum():
    x = image(2, 4, 4)
    norm = drawn(nn.Sequential(nn.Identity(), nn.BatchNorm2d(2)))
    pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(2, affine=False)).double()
    weights = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64, requires_grad=True)

    def out(x, weights, scale, shift):
        norm[1]._parameters.update(weight=scale, bias=shift)
        modules = list(enumerate((norm, pool, nn.Identity())))
        return kernels.weighted_sum(modules, x, weights, kernels.Once())

    args = (x, weights, *(p.detach().clone().requires_grad_() for p in norm.parameters()))
    assert torch.autograd.gradcheck(out, args)
    assert torch.autograd.gradgradcheck(out, args)


def test_only_wanted_gradients_are_kept_for():
    """A step of the architecture keeps no inputs of convolutions, one of the weights no outputs."""
    x = image(4)
    conv = drawn(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False))
    conv.weight.requires_grad_(False)
    saved = convolve(conv, x, kernels.Once()).grad_fn.saved_tensors
    assert saved[0] is None
    assert saved[1] is not None
    gate = torch.tensor([1.0], dtype=torch.float64)
    out = kernels.weighted_sum([(0, nn.Identity())], x, gate, kernels.Once())
    assert out.grad_fn.saved_tensors[1] is None


def test_what_slots_share_is_computed_once_and_what_differs_is_not():
    once, runs = kernels.Once(), []
    x, other = image(4), image(4, seed=1)

    def count(tensor, key):
        return once(tensor, key, lambda: runs.append(key) or tensor * 2)

    assert count(x, "a") is count(x, "a")
    count(x, "b")
    count(other, "a")
    assert runs == ["a", "b", "a"]
    twice = [nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
    gate = torch.ones(1, dtype=torch.float64)
    outs = [kernels.weighted_sum([(0, pool)], x, gate, once) for pool in twice]
    for pool, out in zip(twice, outs, strict=True):
        torch.testing.assert_close(out, pool(x), **TIGHT)
    assert not torch.equal(*outs)


def test_hooks_and_subclasses_are_called():
    class Doubled(SepConv):
        def forward(self, x):
            return 2 * super().forward(x)

    x = image(4)
    doubled, hooked = drawn(Doubled(4, 4, 3)), drawn(SepConv(4, 4, 3))
    seen = []
    hooked.norm_a.register_forward_hook(lambda *args: seen.append(1))
    for module in (doubled, hooked):
        torch.testing.assert_close(kernels.value(module, x, kernels.Once()), module(x), **TIGHT)
    assert len(seen) == 2


def test_a_norm_of_one_value_a_channel_is_refused_as_ever():
    modules = [(0, nn.Sequential(nn.AvgPool2d(4), nn.BatchNorm2d(2, affine=False)))]
    for norm_inside in (modules, [(0, ReLUConvBN(2, 2, 3, 4))]):
        with pytest.raises(ValueError, match="more than 1 value"):
            kernels.weighted_sum(norm_inside, torch.ones(1, 2, 4, 4), torch.ones(1), kernels.Once())


# ---------------------------------------------------------------------------- whole networks

SPACES = {
    "darts": Darts(channels=4, cells=3, input=(3, 12, 12), nodes=3),
    "darts odd": Darts(channels=4, cells=3, input=(3, 11, 9), nodes=2),
    "nasbench201": NasBench201(channels=4, cells=1, input=(3, 9, 8)),
}


def a_step(space, form, fast, gate):
    torch.manual_seed(0)
    supernet = Supernet(space, form).double().train()
    supernet.fast = fast
    x = torch.randn(4, *space.input, dtype=torch.float64)
    parameters = {
        label: torch.randn(len(names), dtype=torch.float64, requires_grad=True)
        for label, names in supernet.slots.items()
    }
    logits = supernet(x, {label: gate(values) for label, values in parameters.items()})
    F.cross_entropy(logits, torch.arange(4)).backward()
    grads = {name: p.grad for name, p in (*supernet.named_parameters(), *parameters.items())}
    found = {f"gradient of {name}": grad for name, grad in grads.items() if grad is not None}
    buffers = {name: buffer.double() for name, buffer in supernet.named_buffers()}
    return {"logits": logits, **found, **buffers}, supernet


def hard(values):
    soft = values.softmax(0)
    index = int(values.argmax())
    return HardSample(F.one_hot(values.argmax(), len(values)) - soft.detach() + soft, index)


GATES = {
    "soft": lambda values: values.softmax(0),
    "two": lambda values: Sparse(values.softmax(0), (1, 3)),
    "hard": hard,
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", SPACES)
def test_a_fast_supernet_is_the_plain_one(name, gate):
    space = SPACES[name]
    fast, supernet = a_step(space, search_form(space), True, GATES[gate])
    plain, _ = a_step(space, search_form(space), False, GATES[gate])
    assert list(fast) == list(plain)
    for key in plain:
        torch.testing.assert_close(fast[key], plain[key], rtol=1e-7, atol=1e-10, msg=key)
    assert supernet._current.once is None  # nothing of a pass is held after it


def test_partial_channels_are_computed_fast_too():
    space = SPACES["darts"]
    form = search_form(space, partial_channels(2))
    fast, _ = a_step(space, form, True, GATES["soft"])
    plain, _ = a_step(space, form, False, GATES["soft"])
    for key in plain:
        torch.testing.assert_close(fast[key], plain[key], rtol=1e-7, atol=1e-10, msg=key)


def test_a_fast_supernet_is_plain_in_eval_mode():
    space = SPACES["darts"]
    supernet = Supernet(space).eval()
    x = torch.randn(2, *space.input)
    gates = {label: torch.ones(len(names)) for label, names in supernet.slots.items()}
    plain = supernet(x, gates)
    supernet.fast = True
    assert torch.equal(supernet(x, gates), plain)


def test_every_reading_is_of_a_layer_that_is_tested_here():
    tested = {type(module) for module in (*options(4, 1, False), *options(4, 2, False))}
    assert set(READINGS) <= tested | {nn.MaxPool2d}

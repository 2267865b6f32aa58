"""Networks with weights as training leaves them, and children of them."""

from __future__ import annotations

import torch
from torch import nn

from nas.data import digits
from nas.morphism import inherit
from nas.morphism.plan import find_plan
from nas.morphism.trace import trace
from nas.morphism.weights import Writing
from nas.space import from_picks, network
from nas.training import Recipe, train
from search_spaces.chain import Chain
from search_spaces.mbconv import MBConv, Stage

CHAIN = Chain(input=(1, 8, 8), depths=(1, 2, 3, 4), kernels=(1, 3, 5), widths=(4, 6, 9))
IR = {"kernels": (3, 5), "expansions": (2, 3)}
MBCONV = MBConv(
    layout=(
        Stage(("ds_k3",), (4,), activation="relu6"),
        Stage(("ir",), (6, 8), (1, 2), stride=2, squeezes=(25, 50), activation="hswish", **IR),
        Stage(("ir_k3_e2", "ir_k5_e2", "ir_k3_e3", "ir_k3_e1_g2", "er_k3_e2", "skip"), (8,), (2,)),
    ),
    stem=4,
    head=16,
    stem_stride=1,
    dense=12,
    activation="hswish",
    widths=(100, 200),
    classes=10,
    input=(1, 8, 8),
)


def randomised(built, seed=0):
    """All biases, norms and statistics as different from their first values as training's."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in built.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(0.3 + 2 * torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point() and tensor.ndim < 2:
            tensor.add_(0.4 * torch.randn(tensor.shape, generator=generator))
    return built.eval()


def trained(built, epochs=2):
    """Briefly, on the digits."""
    train(built, digits().train, Recipe(batch_size=64), epochs, seed=0)
    return built.eval()


def difference(one, other, input):
    """Of the outputs, relative to the largest."""
    x = torch.randn(6, *input, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        before, after = one.eval()(x), other.eval()(x)
    return float((before - after).abs().max() / before.abs().max())


def child_of(space, parent, arch, child, seed=0, noise=0.0):
    """The child's network with what it inherits, and that itself."""
    given = inherit(space, arch, parent.state_dict(), child, seed, noise)
    built = network(space, child)
    built.load_state_dict(given.weights)
    return built.eval(), given


def grow(parent, child, input, seed=0):
    """The same for any two modules; a line that says why where it cannot be."""
    with torch.device("meta"):
        graphs = [trace(make().eval(), input) for make in (parent, child)]
    plan = find_plan(*graphs, seed)
    one, other = randomised(parent(), seed), child().eval()
    if isinstance(plan, str):
        return plan
    writing = Writing(*graphs, one.state_dict(), other.state_dict(), seed, 0.0)
    writing.write(plan)
    other.load_state_dict(other.state_dict() | writing.written)
    return one, other, plan


def chain(*layers, pool="none", dense=0, width=32):
    """An architecture of ``CHAIN`` by kernel, width and stride of each layer."""
    picks = {"depth": len(layers), "pool": pool, "dense": dense}
    for index, values in enumerate(layers):
        names = ("kernel", "width", "stride")
        picks |= {f"conv{index}/{n}": v for n, v in zip(names, values, strict=True)}
    if dense:
        picks["dense_width"] = width
    return from_picks(CHAIN, picks)


class Sequence(nn.Sequential):
    """Layers in a row, each added to what goes in where its shape allows."""

    def forward(self, x):
        for layer in self:
            y = layer(x)
            x = x + y if y.shape == x.shape else y
        return x

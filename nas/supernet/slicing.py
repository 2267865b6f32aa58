"""How the tensors of a smaller network are cut from the shared ones.

A tensor's *layout* says what its entries stand for, one extent for each dimension:

- an ``int``: so many entries in a row, of which a smaller network has the leading ones (channels);
- a tuple of them, ``(a, b, …)``: a times b … entries, nested. A smaller network has the leading
  ones of each: ``(3, 64)`` is 64 queries, then 64 keys, then 64 values;
- a ``range``: entries at these positions, of which a smaller network has those with its own. A
  kernel of 5 is ``range(-2, 3)``, the centre of one of 7; so are relative positions.

Torch's layers have layouts here. A layer of one's own that holds parameters itself, or whose
layers hold several things in one tensor, states them (``HasLayouts``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from nas.errors import UnsupportedRequest, nearest

Extent = int | tuple[int, ...] | range
Layout = tuple[Extent, ...]


@runtime_checkable
class HasLayouts(Protocol):
    """A layer that says what the dimensions of its tensors are.

    What is exported leaves the method out. A constant that the constructor computes, a mask or an
    index, is no weight: register it with ``persistent=False``.
    """

    def layouts(self) -> Mapping[str, Layout]:
        """The layouts of its tensors, and of its layers' (``"qkv.weight"``), by their names in it.

        Those it does not name have the layouts of the layers that hold them.
        """


def layouts_of(network: nn.Module) -> dict[str, Layout]:
    """The layout of every tensor of a network that has one, by its name.

    Raises:
        UnsupportedRequest: what a layer states is not about its tensors.
    """
    found: dict[str, Layout] = {}
    told: dict[str, Layout] = {}
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        for name, layout in stated(module).items():
            told.setdefault(prefix + name, layout)  # the outer layer, met first, knows more
        for name, layout in torch_layouts(module).items():
            found[prefix + name] = layout
    return {**found, **told}


def stated(module: nn.Module) -> dict[str, Layout]:
    """What a layer says of its tensors' layouts, and its layers'.

    Raises:
        UnsupportedRequest: it has no such tensor, or another shape.
    """
    if not hasattr(type(module), "layouts"):  # what isinstance would ask, far faster
        return {}
    assert isinstance(module, HasLayouts)
    layer, tensors = type(module).__name__, module.state_dict(keep_vars=True)
    found = {}
    for name, layout in module.layouts().items():
        if name not in tensors:
            raise UnsupportedRequest(
                f"{layer}.layouts names a tensor {name!r}: {nearest(name, tensors)}"
            )
        _check(layout, tensors[name].shape, layer, name)
        found[name] = tuple(layout)
    return found


def part(
    shared: torch.Tensor, large: Layout | None, small: Layout | None, shape: torch.Size, name: str
) -> torch.Tensor:
    """The part of a shared tensor that a smaller network has, as a view.

    ``.reshape(shape)`` of it is the smaller network's tensor: a copy where a layout is nested and
    more than its outermost is cut, a view elsewhere.

    Args:
        shared: the tensor of the largest network.
        large, small: the layouts of both; ``None`` where there is none.
        shape: of the smaller network's.
        name: of the tensor, for messages.

    Raises:
        UnsupportedRequest: the smaller network's is no part of it, or there is no rule.
    """
    if shared.shape == shape and large == small:
        return shared
    if large is None or small is None or len(large) != len(small):
        raise UnsupportedRequest(
            f"{name}: there is no rule for cutting a tensor of shape {tuple(shape)} from the "
            f"shared one, which has shape {tuple(shared.shape)}; the layer that holds it can "
            "state one (layouts, see nas.supernet.slicing)"
        )
    try:
        cuts = [_cut(of, wanted) for of, wanted in zip(large, small, strict=True)]
    except ValueError as error:
        raise UnsupportedRequest(
            f"{name}: a tensor of shape {tuple(shape)} is no part of the shared one, which has "
            f"shape {tuple(shared.shape)}: {error}"
        ) from None
    view = shared.view([size for cut in cuts for size, _, _ in cut])
    for dimension, (size, start, length) in enumerate(entry for cut in cuts for entry in cut):
        if length < size:
            view = view.narrow(dimension, start, length)
    return view


def _cut(large: Extent, small: Extent) -> list[tuple[int, int, int]]:
    """Of each factor of a dimension: its size, and where what is taken starts and how long it is.

    Raises:
        ValueError: it is no part of it; the message says why.
    """
    if isinstance(large, range) and isinstance(small, range):
        if len(small) == 1 and small[0] in large:  # one entry has no step
            return [(len(large), large.index(small[0]), 1)]
        if large.step != small.step or not small or small[0] not in large or small[-1] not in large:
            raise ValueError(f"{_positions(small)} do not lie among {_positions(large)}")
        return [(len(large), large.index(small[0]), len(small))]
    if isinstance(large, range) or isinstance(small, range):
        raise ValueError("one has positions where the other has none")
    sizes = large if isinstance(large, tuple) else (large,)
    wanted = small if isinstance(small, tuple) else (small,)
    if len(sizes) != len(wanted):
        raise ValueError(f"{wanted} entries are nested otherwise than {sizes}")
    for size, length in zip(sizes, wanted, strict=True):
        if length > size:
            raise ValueError(f"{length} entries are more than {size}")
    return [(size, 0, length) for size, length in zip(sizes, wanted, strict=True)]


def _positions(of: range) -> str:
    return f"the positions {list(of)}" if len(of) < 10 else f"{len(of)} positions"


def _check(layout: Any, shape: torch.Size, layer: str, name: str) -> None:
    sizes = tuple(
        math.prod(extent) if isinstance(extent, tuple) else _length(extent) for extent in layout
    )
    if sizes != tuple(shape):
        raise UnsupportedRequest(
            f"{layer}.layouts says {name!r} is {tuple(layout)}, which are {sizes} entries; it has "
            f"shape {tuple(shape)}"
        )


def _length(extent: Any) -> int:
    return len(extent) if isinstance(extent, range) else int(extent)


# ------------------------------------------------------------------------------ torch's layers


def torch_layouts(module: nn.Module) -> dict[str, Layout]:
    """The layouts of the tensors that one of torch's layers holds; of others nothing."""
    kind = type(module)
    if kind not in _RULE_OF:
        _RULE_OF[kind] = next((rule for known, rule in _RULES if issubclass(kind, known)), None)
    rule = _RULE_OF[kind]
    return {} if rule is None else rule(module)


def _centred(kernel: tuple[int, ...]) -> tuple[range, ...]:
    """Positions in half steps, so that a kernel of even size has its middle between two entries."""
    return tuple(range(1 - size, size, 2) for size in kernel)


def _convolution(module: Any) -> dict[str, Layout]:
    # Where the groups grow in number they are the leading ones; where they grow in width, what is
    # taken is the leading channels of each.
    groups = module.groups
    out: Extent = _grouped(groups, module.out_channels)
    inside = module.in_channels // groups
    return {"weight": (out, inside, *_centred(module.kernel_size)), "bias": (out,)}


def _transposed(module: Any) -> dict[str, Layout]:
    groups = module.groups
    out = module.out_channels // groups
    first = _grouped(groups, module.in_channels)
    return {
        "weight": (first, out, *_centred(module.kernel_size)),
        "bias": (_grouped(groups, module.out_channels),),
    }


def _grouped(groups: int, channels: int) -> Extent:
    # Of as many groups as channels (depthwise) it is the channels that are counted.
    return (groups, channels // groups)


def _linear(module: Any) -> dict[str, Layout]:
    return {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}


def _norm(module: Any) -> dict[str, Layout]:
    channels = (module.num_features,)
    names = ("weight", "bias", "running_mean", "running_var")
    return {**dict.fromkeys(names, channels), "num_batches_tracked": ()}


def _group_norm(module: Any) -> dict[str, Layout]:
    return dict.fromkeys(("weight", "bias"), (module.num_channels,))


def _layer_norm(module: Any) -> dict[str, Layout]:
    # Of more than one dimension, the others are places of an image: there is no rule for those.
    sizes = tuple(module.normalized_shape)
    return dict.fromkeys(("weight", "bias"), sizes) if len(sizes) == 1 else {}


def _embedding(module: Any) -> dict[str, Layout]:
    return {"weight": (module.num_embeddings, module.embedding_dim)}


def _prelu(module: Any) -> dict[str, Layout]:
    return {"weight": (module.num_parameters,)}


def _attention(module: Any) -> dict[str, Layout]:
    width = module.embed_dim
    return {
        "in_proj_weight": ((3, width), width),
        "in_proj_bias": ((3, width),),
        "q_proj_weight": (width, width),
        "k_proj_weight": (width, module.kdim),
        "v_proj_weight": (width, module.vdim),
        "bias_k": (1, 1, width),
        "bias_v": (1, 1, width),
    }


_RULES: tuple[tuple[type[nn.Module], Callable[[Any], dict[str, Layout]]], ...] = (
    (_ConvTransposeNd, _transposed),
    (_ConvNd, _convolution),
    (nn.Linear, _linear),
    (_NormBase, _norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
    (nn.MultiheadAttention, _attention),
)

_RULE_OF: dict[type[nn.Module], Callable[[Any], dict[str, Layout]] | None] = {}
"""By class, as it was found."""

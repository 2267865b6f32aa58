"""What makes the modules of operations: factories for the channels that come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from nas.errors import ConfigError
from nas.layers.attention import (
    EfficientChannelAttention,
    SqueezeExcitation,
    divisible,
    eca_kernel_size,
)
from nas.layers.cells import FactorizedReduction
from nas.layers.mobile import (
    FusedInvertedBottleneck,
    GroupedInvertedBottleneck,
    InvertedBottleneck,
    Residual,
    SeparableBottleneck,
    SqueezedInvertedBottleneck,
    SqueezedSeparableBottleneck,
    UniversalInvertedBottleneck,
)

Make = Callable[[int, Mapping[str, Any]], "partial[Any] | None"]
"""From the channels that come in and all arguments of the operation."""


def of_class(module: Callable[..., nn.Module]) -> Make:
    """Of a class that takes ``c_in``, ``c_out`` and the operation's arguments."""

    def make(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
        return partial(module, **_sizes(c_in, given))

    return make


def keeping(module: Callable[..., nn.Module]) -> Make:
    """Of a class that takes ``channels``, which stay, and the operation's arguments."""

    def make(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
        return partial(module, channels=c_in, **given)

    return make


def _sizes(c_in: int, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"c_in": c_in, **given, "c_out": given["c_out"] or c_in}


def _hidden(c_in: int, expansion: float) -> int:
    """The product where the expansion is a whole number, else rounded to a multiple of 8."""
    whole = expansion == int(expansion)
    return c_in * int(expansion) if whole else divisible(c_in * expansion, 8)


def residual(module: Callable[..., nn.Module], **arguments: Any) -> Residual:
    """A block around which its input is added."""
    return Residual(module(**arguments))


def _bottleneck(module: Callable[..., nn.Module], sizes: dict[str, Any]) -> partial[Any]:
    stays = sizes["stride"] == 1 and sizes["c_in"] == sizes["c_out"]
    return partial(residual, module, **sizes) if stays else partial(module, **sizes)


def inverted(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """The inverted residual, by what it has: an expansion, groups, a squeeze."""
    sizes = _sizes(c_in, given)
    expansion, ratio = sizes.pop("expansion"), sizes.pop("se_ratio")
    groups, gate = sizes.pop("groups"), sizes.pop("gate")
    if ratio and groups > 1:
        raise ConfigError(f"ir: se{ratio:g} and g{groups} do not go together, expected one")
    if ratio:
        sizes["squeezed"] = max(1, int(ratio * c_in))
        sizes["squeeze_activation"] = sizes["activation"]
        sizes["gate"] = gate
    if groups > 1:
        sizes["groups"] = groups
        module: Callable[..., nn.Module] = GroupedInvertedBottleneck
    elif expansion == 1:
        module = SqueezedSeparableBottleneck if ratio else SeparableBottleneck
        return _bottleneck(module, sizes)
    else:
        module = SqueezedInvertedBottleneck if ratio else InvertedBottleneck
    return _bottleneck(module, sizes | {"hidden": _hidden(c_in, expansion)})


def fused(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """The fused inverted residual."""
    sizes = _sizes(c_in, given)
    hidden = _hidden(c_in, sizes.pop("expansion"))
    return _bottleneck(FusedInvertedBottleneck, sizes | {"hidden": hidden})


def universal(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """The universal inverted bottleneck, with its input added where the shape stays."""
    sizes = _sizes(c_in, given)
    start, inner = sizes.pop("kernel_sizes")
    hidden = _hidden(c_in, sizes.pop("expansion"))
    kernels = {"start_kernel": start, "kernel_size": inner}
    return _bottleneck(UniversalInvertedBottleneck, sizes | kernels | {"hidden": hidden})


def shuffle(same: Callable[..., nn.Module], halving: Callable[..., nn.Module]) -> Make:
    """ShuffleNetV2's block, and the one that halves; half of the channels work in it."""

    def make(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
        sizes = _sizes(c_in, given)
        stride, c_out = sizes.pop("stride"), sizes["c_out"]
        sizes["hidden"] = max(1, int(sizes.pop("expansion") * (c_out // 2)))
        if stride == 2 and c_out > c_in:
            return partial(halving, **sizes)
        if stride == 1 and c_out == c_in and c_in % 2 == 0:
            del sizes["c_in"], sizes["c_out"]
            return partial(same, channels=c_in, **sizes)
        raise ConfigError(
            f"a shuffle block of stride {stride} from {c_in} to {c_out} channels: expected an "
            "even number that stays at stride 1, and more channels at stride 2"
        )

    return make


def skip(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """The input as it is, or halved."""
    c_out = given["c_out"] or c_in
    if given["stride"] == 2:
        return partial(FactorizedReduction, c_in=c_in, c_out=c_out)
    if c_out != c_in:
        raise ConfigError(f"skip from {c_in} to {c_out} channels: expected s2, or a conv_k1")
    return partial(nn.Identity)


def pool(module: Callable[..., nn.Module], **arguments: Any) -> Make:
    """A pool that keeps the size at stride 1 if its window is odd."""

    def make(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
        return partial(module, **given, padding=(given["kernel_size"] - 1) // 2, **arguments)

    return make


def squeeze(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """Squeeze-and-excitation of the channels that come in."""
    squeezed = divisible(given["se_ratio"] * c_in, given["divisor"])
    return partial(SqueezeExcitation, channels=c_in, squeezed=squeezed, gate=given["gate"])


def attend(c_in: int, given: Mapping[str, Any]) -> partial[Any]:
    """Efficient channel attention; the kernel is the paper's where none is given."""
    kernel_size = given["kernel_size"] or eca_kernel_size(c_in)
    return partial(EfficientChannelAttention, kernel_size=kernel_size)

"""Parameters and multiply-accumulates of every operation, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from operation_texts import C_IN, TEXTS

from nas.cost import count
from nas.operations import OPERATIONS, parse_operation


@dataclass(frozen=True)
class Tally:
    """Parameters, and MACs."""

    parameters: int = 0
    macs: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.parameters + other.parameters, self.macs + other.macs)

    def __mul__(self, times: int) -> Tally:
        return Tally(self.parameters * times, self.macs * times)


def plain(c_in, c_out, taps, places, groups=1, bias=False):
    weights = taps * c_in * c_out // groups
    return Tally(weights + bias * c_out, weights * places)


def normed(c_in, c_out, taps, places, groups=1):
    return plain(c_in, c_out, taps, places, groups) + Tally(2 * c_out)


def depthwise(channels, kernel_size, places):
    return normed(channels, channels, kernel_size**2, places, channels)


def squeeze(channels, squeezed):
    return plain(channels, squeezed, 1, 1, bias=True) + plain(squeezed, channels, 1, 1, bias=True)


def rounded(value, divisor):
    """The MobileNets' rule, by search: the multiple nearest to a value, not below nine tenths."""
    multiples = range(divisor, int(value) + 2 * divisor, divisor)
    return min((m for m in multiples if m >= 0.9 * value), key=lambda m: (abs(m - value), -m))


def hidden_of(c_in, expansion):
    exact = c_in * expansion
    return int(exact) if expansion == int(expansion) else rounded(exact, 8)


def conv(a, c, o, before, after):
    made = plain(c, o, a.kernel_size**2, after, a.groups, bias=a.norm == "none")
    return made + Tally(0 if a.norm == "none" else 2 * o)


def asym(a, c, o, before, after):
    # The first convolution strides along the rows only.
    between = a.height * -(-a.width // a.stride)
    row = plain(c, o, a.kernel_size, between)
    return row + normed(o, o, a.kernel_size, after)


def sep(a, c, o, before, after):
    taps = a.kernel_size**2
    first = plain(c, c, taps, after, c) + normed(c, c, 1, after)
    return first + plain(c, c, taps, after, c) + normed(c, o, 1, after)


def dil(a, c, o, before, after):
    return plain(c, c, a.kernel_size**2, after, c) + normed(c, o, 1, after)


def ds(a, c, o, before, after):
    return depthwise(c, a.kernel_size, after) + normed(c, o, 1, after)


def skip(a, c, o, before, after):
    return Tally() if a.stride == 1 else normed(c, o, 1, after)


def gshuffle(a, c, o, before, after):
    made = o if a.stride == 1 else o - c
    inner = normed(c, o // 4, 1, before, a.groups) + depthwise(o // 4, a.kernel_size, after)
    return inner + normed(o // 4, made, 1, after, a.groups)


def shuffle(a, c, o, before, after):
    hidden = int(o // 2 * a.expansion)
    c_branch, made = (c // 2, o // 2) if a.stride == 1 else (c, o - c)
    branch = normed(c_branch, hidden, 1, before) + depthwise(hidden, a.kernel_size, after)
    branch += normed(hidden, made, 1, after)
    beside = depthwise(c, a.kernel_size, after) + normed(c, c, 1, after)
    return branch if a.stride == 1 else branch + beside


def xception(a, c, o, before, after):
    hidden = int(o // 2 * a.expansion)
    c_branch, made = (c // 2, o // 2) if a.stride == 1 else (c, o - c)
    branch = depthwise(c_branch, 3, after) + normed(c_branch, hidden, 1, after)
    branch += depthwise(hidden, 3, after) + normed(hidden, hidden, 1, after)
    branch += depthwise(hidden, 3, after) + normed(hidden, made, 1, after)
    beside = depthwise(c, 3, after) + normed(c, c, 1, after)
    return branch if a.stride == 1 else branch + beside


def ir(a, c, o, before, after):
    hidden = hidden_of(c, a.expansion)
    expand = normed(c, hidden, 1, before, a.groups) if a.expansion != 1 else Tally()
    attend = squeeze(hidden, max(1, int(c * a.se_ratio))) if a.se_ratio else Tally()
    project = normed(hidden, o, 1, after, a.groups)
    return expand + depthwise(hidden, a.kernel_size, after) + attend + project


def er(a, c, o, before, after):
    hidden = hidden_of(c, a.expansion)
    return normed(c, hidden, a.kernel_size**2, after) + normed(hidden, o, 1, after)


def uib(a, c, o, before, after):
    hidden = hidden_of(c, a.expansion)
    start, inner = a.kernel_sizes
    middle = before if inner else after
    made = depthwise(c, start, middle) if start else Tally()
    made += normed(c, hidden, 1, middle)
    made += depthwise(hidden, inner, after) if inner else Tally()
    return made + normed(hidden, o, 1, after)


def ghost_module(c, o, taps, places):
    half = -(-o // 2)
    return normed(c, half, taps, places) + depthwise(half, 3, places)


def ghostmod(a, c, o, before, after):
    return ghost_module(c, o, a.kernel_size**2, after)


def beside_ghosts(a, c, o, after):
    if a.stride == 1 and c == o:
        return Tally()
    return depthwise(c, a.kernel_size, after) + normed(c, o, 1, after)


def between_ghosts(a, hidden, after):
    made = depthwise(hidden, a.kernel_size, after) if a.stride > 1 else Tally()
    attend = squeeze(hidden, rounded(hidden * a.se_ratio, 4)) if a.se_ratio else Tally()
    return made + attend


def ghost(a, c, o, before, after):
    hidden = round(c * a.expansion)
    made = ghost_module(c, hidden, 1, before) + ghost_module(hidden, o, 1, after)
    return made + between_ghosts(a, hidden, after) + beside_ghosts(a, c, o, after)


def repghost_module(c, o, places):
    return normed(c, o, 1, places) + depthwise(o, 3, places) + Tally(2 * o)


def repghost(a, c, o, before, after):
    hidden = round(c * a.expansion)
    made = repghost_module(c, hidden, before) + repghost_module(hidden, o, after)
    return made + between_ghosts(a, hidden, after) + beside_ghosts(a, c, o, after)


def mix(a, c, o, before, after):
    hidden = round(c * a.expansion)
    parts = [hidden // len(a.kernel_sizes)] * len(a.kernel_sizes)
    parts[0] += hidden - sum(parts)
    made = normed(c, hidden, 1, before) if hidden != c else Tally()
    for part, size in zip(parts, a.kernel_sizes, strict=True):
        made += plain(part, part, size**2, after, part)
    attend = squeeze(hidden, max(1, int(c * a.se_ratio))) if a.se_ratio else Tally()
    return made + Tally(2 * hidden) + attend + normed(hidden, o, 1, after)


def octave(a, c, o, before, after):
    """As many parameters as a plain convolution has; only high to high is at full size."""
    low_in, low_out = int(c * a.alpha), int(o * a.alpha)
    height, width = (-(-edge // a.stride) for edge in (a.height, a.width))
    quarter = -(-height // 2) * -(-width // 2)
    taps = a.kernel_size**2
    high = taps * (c - low_in) * (o - low_out)
    return Tally(taps * c * o + 2 * o, high * after + (taps * c * o - high) * quarter)


def shift(a, c, o, before, after):
    hidden = round(o * a.expansion)
    made = normed(c, hidden, 1, before) + normed(hidden, o, 1, after)
    return made if a.stride == 1 and c == o else made + normed(c, o, 1, after)


def pconv(a, c, o, before, after):
    hidden = round(c * a.expansion)
    part = c // a.part
    made = plain(part, part, a.kernel_size**2, after)
    return made + normed(c, hidden, 1, after) + plain(hidden, c, 1, after)


def star(a, c, o, before, after):
    hidden = round(c * a.expansion)
    taps = a.kernel_size**2
    made = depthwise(c, a.kernel_size, after) + plain(c, hidden, 1, after, bias=True) * 2
    return made + normed(hidden, c, 1, after) + plain(c, c, taps, after, c, bias=True)


def repvgg(a, c, o, before, after):
    made = normed(c, o, 9, after, a.groups) + normed(c, o, 1, after, a.groups)
    return made + Tally(2 * c if a.stride == 1 and c == o else 0)


def se(a, c, o, before, after):
    return squeeze(c, rounded(c * a.se_ratio, a.divisor))


def eca(a, c, o, before, after):
    # 16 channels: |log2(16) + 1| / 2 = 2.5, the odd number after 2.
    return plain(1, 1, a.kernel_size or 3, c)


def nothing(a, c, o, before, after):
    return Tally()


FORMS: dict[str, Callable[..., Tally]] = {
    "none": nothing,
    "skip": skip,
    "max": nothing,
    "avg": nothing,
    "conv": conv,
    "asym": asym,
    "sep": sep,
    "dil": dil,
    "ds": ds,
    "gshuffle": gshuffle,
    "shuffle": shuffle,
    "xception": xception,
    "ir": ir,
    "er": er,
    "uib": uib,
    "ghostmod": ghostmod,
    "ghost": ghost,
    "mix": mix,
    "oct": octave,
    "shift": shift,
    "pconv": pconv,
    "star": star,
    "repvgg": repvgg,
    "repghost": repghost,
    "se": se,
    "eca": eca,
}


def test_every_kind_has_a_form():
    assert set(FORMS) == set(OPERATIONS)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (14, 5)])
@pytest.mark.parametrize("text", [text for text in TEXTS if text != "none"])
def test_cost_is_the_closed_form(text, height, width):
    operation = parse_operation(text)
    arguments = SimpleNamespace(**operation.values(), height=height, width=width)
    stride = getattr(arguments, "stride", 1)
    before, after = height * width, -(-height // stride) * -(-width // stride)
    expected = FORMS[operation.kind](arguments, C_IN, operation.c_out(C_IN), before, after)
    with torch.device("meta"):
        module = operation.factory(C_IN)()
    cost = count(module, (C_IN, height, width))
    assert (cost.parameters, cost.macs) == (expected.parameters, expected.macs)

"""A mobile space and data small enough for searches with a latency term to be repeated."""

from __future__ import annotations

from functools import cache

from nas.data import Data, digits
from nas.space import SearchSpace
from search_spaces.mbconv import MBConv, Stage

OPERATIONS = ("ir_k3_e1", "ir_k3_e4", "ir_k5_e4", "skip")


def mobile() -> SearchSpace:
    """Four blocks on 8×8 images, of which three may be skipped: 192 architectures."""
    layout = (
        Stage(OPERATIONS, (8,), (2,), 1),
        Stage(OPERATIONS, (12,), (2,), 2),
    )
    return MBConv(
        layout, stem=8, stem_stride=1, head=32, widths=(100,), dropout=0.0, classes=10,
        input=(1, 8, 8),
    )  # fmt: skip


@cache
def small_digits() -> Data:
    return digits()

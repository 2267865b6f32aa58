"""Multiply-accumulates of one operation.

One multiply-accumulate counts one. Counted are convolutions (grouped and transposed ones too),
matrix products and the two products of attention; not counted are biases, norms, pools, and
everything element by element. A convolution's padding counts like any other input, as it does
wherever MACs are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.errors import UnsupportedRequest

# Products hide inside these, and their arguments do not tell how many.
_OPAQUE = {
    "_trilinear",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "mkldnn_rnn_layer",
    "_cudnn_rnn",
    "_thnn_fused_lstm_cell",
    "_thnn_fused_gru_cell",
}

_ATTENTION = "_scaled_dot_product_"


def multiply_accumulates(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> int:
    """The multiply-accumulates of one ATen operation, from its arguments' shapes.

    Raises:
        UnsupportedRequest: an operation that multiplies matrices out of sight.
    """
    namespace, _, name = func._schema.name.partition("::")
    if namespace != "aten":
        return 0
    if name in ("convolution", "_convolution", "convolution_overrideable"):
        image, weight, transposed = args[0], args[1], args[6]
        places = image if transposed else output
        # One kernel application a place: weights of one output (input) channel, all its taps.
        return int(places.numel() * math.prod(weight.shape[1:]))
    if name in ("mm", "bmm"):
        return int(args[0].numel()) * int(args[1].shape[-1])
    if name in ("addmm", "baddbmm", "addbmm"):
        return int(args[1].numel()) * int(args[2].shape[-1])
    if name in ("mv", "dot", "vdot"):
        return int(args[0].numel())
    if name == "addmv":
        return int(args[1].numel())
    if name == "linear":
        return int(args[0].numel()) * int(args[1].shape[0])
    if name.startswith(_ATTENTION):
        query, key, value = args[:3]
        scores = math.prod(query.shape[:-1]) * key.shape[-2]
        return int(scores * (query.shape[-1] + value.shape[-1]))
    if name in _OPAQUE:
        raise UnsupportedRequest(
            f"the multiply-accumulates of {name!r} cannot be counted: write it with matrix products"
        )
    return 0

"""The rule of each function, and the walk through a network by them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from nas.morphism.trace import POINTWISE, Graph, Operation, Value
from nas.supernet.ties import layers, shapes
from nas.supernet.ties.groups import Ties
from nas.supernet.ties.walk import Dimensions, Rule, Walk, unknown


def follow(ties: Ties, graph: Graph, names: Mapping[str, str]) -> None:
    """Adds what one network ties.

    Args:
        graph: of the network.
        names: of its tensors that are shared, to their shared names.
    """
    walk = Walk(ties, graph, names)
    for operation in graph.operations:
        rule = _RULES.get(operation.function, unknown)
        found = rule(walk, operation)
        for number, dimensions in zip(operation.outputs, found, strict=True):
            walk.values[number] = dimensions
    for dimension in walk.of(Value(graph.output)):
        ties.fix(dimension, "the network gives it")


def _understood(rule: Rule) -> Rule:
    """The rule, or none where a function is called in a way that the rule cannot read."""

    @functools.wraps(rule)
    def careful(walk: Walk, operation: Operation) -> list[Dimensions]:
        try:
            found = rule(walk, operation)
        except (LookupError, TypeError, ValueError):
            # What is tied by then stays so: no harm, as all of it is fixed now.
            return unknown(walk, operation)
        ranks = [len(walk.shapes[number]) for number in operation.outputs]
        return found if ranks == [len(made) for made in found] else unknown(walk, operation)

    return careful


_SAME = POINTWISE | {
    *("add", "sub", "rsub", "mul", "div", "truediv", "rtruediv", "itruediv", "true_divide"),
    *("pow", "rpow", "maximum", "minimum", "where", "lerp", "addcmul", "addcdiv", "neg", "abs"),
    *("exp", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "clamp", "clip", "erf"),
    *("sin", "cos", "float", "double", "half", "bfloat16", "mish", "selu", "celu", "softsign"),
    *("logsigmoid", "threshold", "hardshrink", "softshrink", "zeros_like", "ones_like"),
    *("eq", "ne", "lt", "le", "gt", "ge", "multiply", "divide", "subtract", "masked_fill"),
    # These go over a dimension, whose order does not matter to them.
    *("softmax", "log_softmax", "normalize"),
    *("dropout1d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}
_POOLS = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("boolean_dispatch", "lp_pool1d", "lp_pool2d", "interpolate"),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
}
_REDUCTIONS = {"mean", "sum", "amax", "amin", "var", "std", "logsumexp", "prod"}
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as"}

_RULES: dict[str, Rule] = {
    name: _understood(rule)
    for names, rule in (
        (("conv1d", "conv2d", "conv3d"), layers.convolution),
        (("linear",), layers.linear),
        (("matmul", "bmm", "rmatmul"), layers.matmul),
        (("embedding",), layers.embedding),
        (("scaled_dot_product_attention",), layers.attention),
        (("batch_norm", "instance_norm", "prelu"), layers.channel_norm),
        (("layer_norm", "rms_norm"), layers.layer_norm),
        (("group_norm",), layers.group_norm),
        (_SAME, layers.elementwise),
        (_POOLS, layers.each_channel),
        (("pad",), layers.pad),
        (_REDUCTIONS, layers.reduction),
        (_RESHAPES, shapes.reshape),
        (("permute",), shapes.permute),
        (("transpose", "swapaxes", "swapdims"), shapes.transpose),
        (("expand", "expand_as", "broadcast_to"), shapes.expand),
        (("getitem",), shapes.getitem),
        (("cat", "concat", "chunk", "split", "unbind"), shapes.by_position),
    )
    for name in names
}

"""What can be said of an operation from its settings and shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

from nas.morphism.channels import Channels, listed, widened
from nas.morphism.trace import LAYER, Graph, Operation, Weight

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def what(operation: Operation) -> str:
    return "layer" if operation.function == LAYER else operation.function


def has_weight(value: object) -> bool:
    """Whether an argument is several tensors, one of the network's state among them."""
    return isinstance(value, tuple) and any(isinstance(part, Weight) for part in value)


def plain_norm(operation: Operation) -> bool:
    """Whether it scales and shifts each channel by statistics and weights of its own."""
    given = operation.arguments
    names = ("running_mean", "running_var", "weight", "bias")
    return not given["training"] and all(isinstance(given[name], Weight) for name in names)


def geometry(operation: Operation, other: Operation) -> str:
    """Why a convolution with a larger kernel cannot look at the same pixels; empty if it can."""
    mine, theirs = operation.arguments, other.arguments
    for name in ("stride", "dilation"):
        if mine[name] != theirs[name]:
            return f"its {name} is {mine[name][0]}, the parent's {theirs[name][0]}"
    kernel, base = mine["weight"].shape[2:], theirs["weight"].shape[2:]
    if any(size < least for size, least in zip(kernel, base, strict=True)):
        return f"its kernel is {kernel[0]}, the parent's {base[0]}"
    if isinstance(mine["padding"], str) or isinstance(theirs["padding"], str):
        return "" if (mine["padding"], kernel) == (theirs["padding"], base) else "another padding"
    for size, least, pad, before, dilation in zip(
        kernel, base, mine["padding"], theirs["padding"], mine["dilation"], strict=True
    ):
        if (size - least) % 2 or pad - before != dilation * (size - least) // 2:
            return "its kernel is not centred where the parent's is"
    return ""


def identity_sources(operation: Operation, graph: Graph, seed: int) -> Channels | None:
    """Which input each output of a layer can repeat, one for each; ``None`` if it cannot."""
    given = operation.arguments
    weight = given["weight"]
    if not isinstance(weight, Weight) or len(graph.shapes[operation.inputs[0]]) < 2:
        return None
    c_out = weight.shape[0]
    if operation.function == "linear":
        if len(graph.shapes[operation.inputs[0]]) != 2 or c_out < weight.shape[1]:
            return None
        return listed(widened(weight.shape[1], c_out, seed), weight.shape[1])
    if isinstance(given["padding"], str) or any(step != 1 for step in given["stride"]):
        return None
    for size, pad, dilation in zip(
        weight.shape[2:], given["padding"], given["dilation"], strict=True
    ):
        if size % 2 == 0 or pad != dilation * (size // 2):
            return None
    c_in = graph.shapes[operation.inputs[0]][1]
    groups = given["groups"]
    if groups == 1 and c_out >= c_in:
        return listed(widened(c_in, c_out, seed), c_in)
    return tuple(range(c_in)) if c_out == c_in else None


def is_scalar(weight: Weight) -> bool:
    """Whether one number is used for all."""
    return all(size == 1 for size in weight.shape)


def channel_place(weight: Weight, shape: Sequence[int]) -> int | None:
    """Which dimension of a tensor of weights goes along the channels of a value, if only one."""
    place = 1 - len(shape) + len(weight.shape)
    if place < 0 or weight.shape[place] != shape[1]:
        return None
    rest = [size for index, size in enumerate(weight.shape) if index != place]
    return place if all(size == 1 for size in rest) else None


def keeps_channels(operation: Operation, graph: Graph) -> bool:
    """Whether it is a mean over each channel's map."""
    if operation.function != "mean":
        return False
    dims = operation.arguments.get("dim", operation.arguments.get("1"))
    dims = (dims,) if isinstance(dims, int) else dims
    rank = len(graph.shapes[operation.inputs[0]])
    return dims is not None and all(dim % rank >= 2 for dim in dims)


def takes_all(operation: Operation, other: Operation, graph: Graph, base: Graph) -> bool:
    """Whether two cuts of maps take the same pixels and all channels."""
    cuts = []
    for each, shapes in ((operation, graph.shapes), (other, base.shapes)):
        index = each.arguments.get("1")
        if len(each.inputs) != 1 or not isinstance(index, tuple) or len(index) < 2:
            return False
        before, after = shapes[each.inputs[0]], shapes[each.outputs[0]]
        if not all(isinstance(part, slice) for part in index) or index[1].step not in (None, 1):
            return False
        if before[:2] != after[:2]:
            return False
        cuts.append([repr(part) for place, part in enumerate(index) if place != 1])
    return cuts[0] == cuts[1]

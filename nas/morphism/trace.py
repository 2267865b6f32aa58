"""A network as the list of torch functions that its forward pass calls, with the shapes.

The pass is made without weights (``meta``), so it takes milliseconds whatever the network's size,
and whatever code lies between the layers is seen as what it did. A layer that states its own rule
(``nas.morphism.rules.Grows``) is one operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nas.architecture import Architecture
from nas.errors import UnsupportedRequest
from nas.morphism.layer import Grows
from nas.space import SearchSpace, network

LAYER = "layer"
"""The function of an operation that is a layer with its own rule."""

_BATCH = 2

_SAME = {"dropout", "dropout2d", "feature_dropout", "contiguous", "clone", "detach", "to"}
"""Functions that give what they are given, in eval mode."""

_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


@dataclass(frozen=True)
class Value:
    """A tensor that an operation takes, by the number it has in its network."""

    number: int


@dataclass(frozen=True)
class Weight:
    """A tensor of the network's state that an operation takes."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One call of a torch function.

    Attributes:
        function: its name without what marks it as in place: ``conv2d``, ``add``.
        arguments: by name where the function is one of those with a rule, in order elsewhere; a
            tensor is a ``Value`` or a ``Weight``, anything else is kept as it is.
        inputs: the values among them, in order.
        output: its result; operations with several results have several numbers.
        layer: of an operation ``layer``, the module.
    """

    function: str
    arguments: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: nn.Module | None = None

    @property
    def weights(self) -> list[Weight]:
        return [value for value in self.arguments.values() if isinstance(value, Weight)]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """What it is called with apart from tensors, in a form that can be compared."""
        return [
            (name, repr(_without_values(value)))
            for name, value in self.arguments.items()
            if not isinstance(value, Value | Weight)
        ]

    @property
    def name(self) -> str:
        """The name of its first tensor of the network's state; empty if it has none."""
        weights = self.weights
        return weights[0].name if weights else ""


@dataclass(frozen=True)
class Graph:
    """A network's operations in their order.

    Attributes:
        shapes: of every value, with a batch of two; value 0 is the input.
        output: the value that the network gives.
        state: name and shape of every tensor of the network's state.
    """

    operations: tuple[Operation, ...]
    shapes: tuple[tuple[int, ...], ...]
    output: int
    state: dict[str, tuple[int, ...]]


def without_repetitions(graph: Graph) -> Graph:
    """The same graph in which nothing is computed twice: values that are equal have one number."""
    numbers = list(range(len(graph.shapes)))
    known: dict[object, Operation] = {}
    kept = []
    for operation in graph.operations:
        renumbered = replace(
            operation,
            arguments={k: _renumbered(v, numbers) for k, v in operation.arguments.items()},
            inputs=tuple(numbers[number] for number in operation.inputs),
        )
        layer = None if operation.layer is None else id(operation.layer)
        arguments = tuple((name, repr(v)) for name, v in renumbered.arguments.items())
        first = known.setdefault((operation.function, arguments, layer), renumbered)
        if first is renumbered:
            kept.append(renumbered)
        for number, same in zip(operation.outputs, first.outputs, strict=True):
            numbers[number] = same
    return replace(graph, operations=tuple(kept), output=numbers[graph.output])


def _without_values(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_without_values(part) for part in value)
    return Value if isinstance(value, Value) else value


def _renumbered(value: Any, numbers: list[int]) -> Any:
    if isinstance(value, tuple) and any(isinstance(part, Value) for part in value):
        return tuple(_renumbered(part, numbers) for part in value)
    return Value(numbers[value.number]) if isinstance(value, Value) else value


def graph_of(space: SearchSpace, arch: Architecture) -> Graph:
    """The graph of an architecture's network; errors are those of ``trace``."""
    with torch.device("meta"):
        built = network(space, arch).eval()
    return trace(built, space.input)


def trace(network: nn.Module, input: Sequence[int]) -> Graph:
    """The graph of a network in eval mode whose tensors are on ``meta``.

    Raises:
        UnsupportedRequest: the forward pass asks for values of tensors, takes something that is
            no tensor of the network, or gives something else than one tensor.
    """
    x = torch.empty(_BATCH, *input, device="meta")
    recorder = _Recorder(network, x)
    try:
        with torch.no_grad(), _as_one_operation(network, recorder), recorder:
            result = network(x)
    except UnsupportedRequest:
        raise
    except Exception as error:  # whatever a network does that has no weights to compute with
        raise UnsupportedRequest(
            f"the network's operations cannot be listed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(result, torch.Tensor) or id(result) not in recorder.numbers:
        raise UnsupportedRequest(f"the network must give one tensor, got a {type(result)}")
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return Graph(
        tuple(recorder.operations), tuple(recorder.shapes), recorder.numbers[id(result)], state
    )


class _Recorder(TorchFunctionMode):
    def __init__(self, network: nn.Module, x: torch.Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.shapes = [tuple(x.shape)]
        self.numbers = {id(x): 0}
        self.names: dict[int, str] = {}
        # keep_vars: the very tensors that the layers hold, which are known by their identity.
        for name, tensor in network.state_dict(keep_vars=True).items():
            self.names.setdefault(id(tensor), name)
        self.paused = False
        self._held = [x]  # an identity is given again once its tensor is gone

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        function = func.__name__.strip("_")
        if function in ("iadd", "imul", "isub", "radd", "rmul"):
            function = function[1:]
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if function in _SAME and tensors and id(tensors[0]) in self.numbers:
            return tensors[0]
        result = _result(function, func, args, kwargs)
        outputs = [part for part in _parts(result) if isinstance(part, torch.Tensor)]
        if outputs:
            self.record(function, _named(function, args, kwargs), outputs)
        return result

    def record(
        self,
        function: str,
        arguments: dict[str, Any],
        outputs: Sequence[torch.Tensor],
        layer: nn.Module | None = None,
    ) -> None:
        seen = {name: self._seen(value) for name, value in arguments.items()}
        inputs = tuple(
            part.number
            for value in seen.values()
            for part in (value if isinstance(value, tuple) else (value,))
            if isinstance(part, Value)
        )
        if any(id(tensor) in self.names for tensor in outputs):
            raise UnsupportedRequest("the network writes into its own weights as it runs")
        made = []
        for tensor in outputs:
            made.append(len(self.shapes))
            self.shapes.append(tuple(tensor.shape))
            self.numbers[id(tensor)] = made[-1]
            self._held.append(tensor)
        self.operations.append(Operation(function, seen, inputs, tuple(made), layer))

    def _seen(self, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
            return tuple(self._seen(part) for part in value)
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in self.names:
            return Weight(self.names[id(value)], tuple(value.shape))
        if id(value) not in self.numbers:
            # Made on the way from nothing: a value like any other, but one of no known origin.
            self.numbers[id(value)] = len(self.shapes)
            self.shapes.append(tuple(value.shape))
            self._held.append(value)
        return Value(self.numbers[id(value)])


def _parts(result: Any) -> Sequence[Any]:
    return result if isinstance(result, list | tuple) else (result,)


def _result(function: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function gives on ``meta``; for the frequent ones without torch's own reckoning."""
    first = args[0] if args else None
    if isinstance(first, torch.Tensor) and not kwargs.get("inplace"):
        if function == "batch_norm" or function in POINTWISE:
            return torch.empty_like(first)
        if func.__name__ in ("add", "mul", "__add__", "__mul__") and len(args) == 2:
            other = args[1]
            if isinstance(other, torch.Tensor) and other.dtype == first.dtype and not kwargs:
                shape = torch.broadcast_shapes(first.shape, other.shape)  # type: ignore[no-untyped-call]  # torch leaves it untyped
                return first.new_empty(shape)
    if function == "adaptive_avg_pool2d" and len(args) == 2 and args[1] in (1, (1, 1)):
        return args[0].new_empty(*args[0].shape[:-2], 1, 1)
    if function == "conv2d" and not kwargs and not isinstance(args[4], str):
        x, weight, _, stride, padding, dilation, _ = args
        sizes = [
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(
                x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
            )
        ]
        return x.new_empty(x.shape[0], weight.shape[0], *sizes)
    return func(*args, **kwargs)


POINTWISE = {
    "relu",
    "relu6",
    "hardtanh",
    "hardswish",
    "silu",
    "gelu",
    "leaky_relu",
    "elu",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "softplus",
}
"""Functions that take every number by itself."""

_SIGNATURES = {
    **dict.fromkeys(
        _CONVOLUTIONS, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    ),
    "linear": ("input", "weight", "bias"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
}
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "eps": 1e-5}


def _named(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name; those that do not matter here are left out."""
    names = _SIGNATURES.get(function)
    if names is None:
        found = {str(place): value for place, value in enumerate(args)}
        return found | {name: value for name, value in kwargs.items() if name != "inplace"}
    given = dict(zip(names, args, strict=False)) | kwargs
    if function in _CONVOLUTIONS:
        for name in ("stride", "padding", "dilation"):
            value: Any = given.get(name, _DEFAULTS[name])
            if isinstance(value, int):
                value = (value,) * _CONVOLUTIONS[function]
            given[name] = value if isinstance(value, str) else tuple(value)
        kernel = given["weight"].shape[2:]
        if given["padding"] == "same" and all(size % 2 for size in kernel):
            reach = zip(kernel, given["dilation"], strict=True)
            given["padding"] = tuple(dilation * (size // 2) for size, dilation in reach)
    return {name: given.get(name, _DEFAULTS.get(name)) for name in names if name != "momentum"}


@contextmanager
def _as_one_operation(network: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Records each layer with a rule of its own as one operation."""
    changed = []
    for module in network.modules():
        if isinstance(module, Grows):
            module.forward = _recorded(module, recorder)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _recorded(module: nn.Module, recorder: _Recorder) -> Any:
    forward = module.forward

    def run(x: torch.Tensor) -> torch.Tensor:
        recorder.paused = True
        try:
            y: torch.Tensor = forward(x)
        finally:
            recorder.paused = False
        state = module.state_dict(keep_vars=True).values()
        arguments = {str(place): tensor for place, tensor in enumerate((x, *state))}
        recorder.record(LAYER, arguments, [y], module)
        return y

    return run

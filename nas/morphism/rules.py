"""What each kind of operation can do in a child, given where its inputs are from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nas.morphism.channels import (
    Channels,
    Origin,
    Other,
    Same,
    joined,
    listed,
    simplest,
    widened,
)
from nas.morphism.facts import Range, clamp_of
from nas.morphism.layer import Grows
from nas.morphism.layouts import (
    CONVOLUTIONS,
    channel_place,
    geometry,
    has_weight,
    identity_sources,
    is_scalar,
    keeps_channels,
    plain_norm,
    takes_all,
    what,
)
from nas.morphism.trace import POINTWISE, Graph, Operation, Value, Weight

_EACH_CHANNEL = POINTWISE | {
    *("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate"),
}
_ZERO_OF_ZERO = {"relu", "relu6", "hardtanh", "hardswish", "silu", "gelu", "leaky_relu", "elu"} | {
    *("tanh", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "interpolate"),
    *("flatten", "reshape", "view"),
}
_FLATTEN = ("flatten", "reshape", "view")
_CONSTANTS = ("arange", "full", "linspace", "ones", "zeros")


@dataclass(frozen=True)
class Found:
    """One thing that an operation can do.

    Attributes:
        way: see ``nas.morphism.plan.Step``.
        given: where its inputs are from.
        origins: where its outputs are from then.
        parent: the parent's operation, of a copy.
        silenced: values of the child's own that have to be zero.
        why: what kept it from doing as the parent does.
        refused: whether that is what the parent's layer of the same name is like.
    """

    way: Literal["copy", "identity", "own"]
    given: tuple[Origin, ...]
    origins: tuple[Origin, ...]
    parent: Operation | None = None
    silenced: tuple[int, ...] = ()
    why: str = ""
    refused: bool = False


@dataclass
class Rules:
    """The rules for a child of a parent.

    Args:
        parent, child: the networks.
        ranges: between which numbers the parent's values lie.
        seed: which channels a wider layer has twice.
    """

    parent: Graph
    child: Graph
    ranges: Sequence[Range]
    seed: int
    _known: dict[tuple[str, tuple[int, ...]], list[Operation]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operation in self.parent.operations:
            self._known.setdefault((operation.function, operation.inputs), []).append(operation)

    def ways(self, operation: Operation, given: Sequence[Origin]) -> Iterator[Found]:
        """All that an operation can do, the likeliest first; the last is something of its own."""
        origins = tuple(given)
        reasons: list[str] = []
        same = [origin for origin in origins if isinstance(origin, Same)]
        if operation.function == "cat" and same and _joins_channels(operation):
            yield from self._cat(operation, origins, same)
        elif (same and len(same) == len(origins)) or self._made_anew(operation):
            yield from self._as_parent(operation, same, reasons)
        elif operation.function == "add":
            yield from self._sum(operation, origins)
        silent = self._may_be_silent(operation, origins)
        why = f"the parent has no such {what(operation)}" if same else ""
        why = why and f"{operation.name or operation.function}: {reasons[0] if reasons else why}"
        own = tuple(Other(silent) for _ in operation.outputs)
        yield Found("own", origins, own, why=why, refused=bool(reasons))

    @staticmethod
    def _made_anew(operation: Operation) -> bool:
        """Whether it reads weights alone, or nothing: tokens, positions."""
        return not operation.inputs and bool(operation.weights or operation.function in _CONSTANTS)

    def _may_be_silent(self, operation: Operation, given: tuple[Origin, ...]) -> bool:
        if operation.function in (*CONVOLUTIONS, "linear"):
            return True
        if operation.function == "batch_norm":
            return isinstance(operation.arguments["weight"], Weight)
        quiet = [isinstance(origin, Other) and origin.silent for origin in given]
        if operation.function == "mul":
            return any(quiet) or bool(operation.weights)
        if operation.function in _ZERO_OF_ZERO or operation.function in ("add", "cat"):
            return bool(quiet) and all(quiet) and not operation.weights
        return False

    # ------------------------------------------------------------------------ doing the same

    def _as_parent(
        self, operation: Operation, given: list[Same], reasons: list[str]
    ) -> Iterator[Found]:
        known = self._candidates(operation, given)
        named = [other for other in known if other.name == operation.name]
        yield from self._copies(operation, given, named, reasons)
        made = self._identity(operation, given)
        if made is not None:
            why = f"{operation.name}: {reasons[0]}" if reasons else ""
            yield Found("identity", tuple(given), (made,), why=why, refused=bool(reasons))
        others = [other for other in known if other.name != operation.name]
        yield from self._copies(operation, given, others, reasons)

    def _candidates(self, operation: Operation, given: Sequence[Same]) -> list[Operation]:
        values = tuple(origin.value for origin in given)
        known = self._known.get((operation.function, values), [])
        if operation.function in ("add", "mul") and values != values[::-1]:
            known = known + self._known.get((operation.function, values[::-1]), [])
        return known

    def _copies(
        self,
        operation: Operation,
        given: list[Same],
        others: list[Operation],
        reasons: list[str],
    ) -> Iterator[Found]:
        for other in others:
            made = self._copy(operation, other, given)
            if isinstance(made, str):
                reasons.append(made)
                continue
            origins = tuple(
                Same(number, simplest(channels, self._size(number)) if channels else None)
                for number, channels in zip(other.outputs, made, strict=True)
            )
            yield Found("copy", tuple(given), origins, other)

    def _size(self, value: int) -> int:
        shape = self.parent.shapes[value]
        return shape[1] if len(shape) > 1 else 1

    def _copy(
        self, operation: Operation, other: Operation, given: list[Same]
    ) -> list[Channels | None] | str:
        """The channels of each output if an operation does what the parent's does, or why not."""
        channels = [listed(origin.channels, self._size(origin.value)) for origin in given]
        if operation.function in CONVOLUTIONS or (
            operation.function == "linear" and len(self.child.shapes[operation.inputs[0]]) == 2
        ):
            made = self._weighted(operation, other, channels[0])
            return made if isinstance(made, str) else [made]
        if operation.layer is not None and other.layer is not None:
            return self._layer(operation, other, channels[0])
        if operation.function == "getitem" and takes_all(operation, other, self.child, self.parent):
            return [channels[0]]
        if operation.settings != other.settings:
            return f"its settings are not those of the parent's {other.function}"
        if operation.function == "batch_norm" and plain_norm(operation):
            return [channels[0]] if plain_norm(other) else "its statistics are another's"
        # Whatever it may be: the same of the same is the same.
        if all(origin.channels is None for origin in given) and self._alike(operation, other):
            return [None] * len(other.outputs)
        if not given:
            return f"the parent's {other.function} has other shapes"
        each = operation.function in _EACH_CHANNEL or keeps_channels(operation, self.child)
        if each and not operation.weights:
            return [channels[0]]
        if operation.function in ("add", "mul", "sub", "div"):
            return self._elementwise(operation, other, channels)
        if operation.function in _FLATTEN and self._flattens(operation, other):
            _, _, *sizes = self.parent.shapes[other.inputs[0]]
            area = 1
            for size in sizes:
                area *= size
            return [
                tuple(
                    channel * area + place if channel >= 0 else -1
                    for channel in channels[0]
                    for place in range(area)
                )
            ]
        if any(origin.channels is not None for origin in given):
            return f"no rule says what {operation.function} does to channels that are widened"
        return f"the parent's {other.function} has other shapes"

    def _alike(self, operation: Operation, other: Operation) -> bool:
        """Whether the shapes of weights and outputs are the same."""
        plain = not any(has_weight(value) for value in operation.arguments.values())
        weights = [w.shape for w in operation.weights] == [w.shape for w in other.weights]
        mine = [self.child.shapes[number] for number in operation.outputs]
        return plain and weights and mine == [self.parent.shapes[n] for n in other.outputs]

    def _flattens(self, operation: Operation, other: Operation) -> bool:
        for graph, each in ((self.child, operation), (self.parent, other)):
            before, after = graph.shapes[each.inputs[0]], graph.shapes[each.outputs[0]]
            if len(before) < 3 or len(after) != 2 or before[0] != after[0]:
                return False
        mine, theirs = self.child.shapes[operation.inputs[0]], self.parent.shapes[other.inputs[0]]
        return mine[2:] == theirs[2:]

    def _weighted(
        self, operation: Operation, other: Operation, channels: Channels
    ) -> Channels | str:
        mine, theirs = operation.arguments, other.arguments
        weight, base = mine["weight"], theirs["weight"]
        if not isinstance(weight, Weight) or not isinstance(base, Weight):
            return "its weights are computed"
        if (mine["bias"] is None) != (theirs["bias"] is None):
            return "one of both has a bias"
        groups, base_groups = mine.get("groups", 1), theirs.get("groups", 1)
        c_out, base_out = weight.shape[0], base.shape[0]
        if operation.function != "linear":
            why = geometry(operation, other)
            if why:
                return why
        size = self._size(other.inputs[0])
        depthwise = base_groups == size == base_out and groups == len(channels) == c_out
        if depthwise and weight.shape[1] == 1 == base.shape[1]:
            return channels
        if groups != base_groups:
            return f"it has {groups} groups, the parent's {base_groups}"
        part, base_part, out = len(channels) // groups, size // groups, base_out // groups
        if c_out < base_out:
            return f"it makes {c_out} channels, the parent's {base_out}"
        made: list[int] = []
        for group in range(groups):
            read = channels[group * part : (group + 1) * part]
            wanted = range(group * base_part, (group + 1) * base_part)
            if not set(wanted) <= set(read) or not set(read) <= {-1, *wanted}:
                return "it does not read all channels that the parent's reads"
            inside = listed(widened(out, c_out // groups, self.seed), out)
            made += [group * out + channel for channel in inside]
        return tuple(made)

    def _elementwise(
        self, operation: Operation, other: Operation, channels: list[Channels]
    ) -> list[Channels | None] | str:
        if len(operation.weights) != len(other.weights):
            return "the parent's is of other tensors"
        for weight, base in zip(operation.weights, other.weights, strict=True):
            shape = self.child.shapes[operation.inputs[0]]
            if is_scalar(weight) or channel_place(weight, shape) is not None:
                continue
            if weight.shape != base.shape or channels[0] != tuple(range(len(channels[0]))):
                return "its weights have a shape that cannot be widened"
        if len(channels) < 2:
            return [channels[0]]
        one, two = channels
        if len(one) != len(two) and 1 in (len(one), len(two)):
            return [max(one, two, key=len)]
        both = joined(one, two)
        return "its inputs are widened unlike" if both is None else [both]

    def _layer(
        self, operation: Operation, other: Operation, channels: Channels
    ) -> list[Channels | None] | str:
        layer, base = operation.layer, other.layer
        if type(layer) is not type(base) or not isinstance(layer, Grows):
            return "the parent has another layer there"
        made = layer.grows_from(base, channels) if -1 not in channels else None
        return "its own rule says it cannot" if made is None else [tuple(made)]

    # ------------------------------------------------------------------------ doing nothing

    def _identity(self, operation: Operation, given: list[Same]) -> Same | None:
        """What it gives if it gives back what it is given, where it can."""
        if len(given) != 1:
            return None
        (origin,) = given
        clamp = clamp_of(operation)
        if clamp is not None:
            least, most = self.ranges[origin.value]
            return origin if clamp[0] <= least and most <= clamp[1] else None
        if operation.function == "batch_norm":
            return origin if plain_norm(operation) else None
        if operation.function in ("add", "mul") and len(operation.weights) == 1:
            shapes = self.child.shapes
            kept = shapes[operation.outputs[0]] == shapes[operation.inputs[0]]
            return origin if kept else None
        if operation.function not in (*CONVOLUTIONS, "linear"):
            return None
        read = listed(origin.channels, self._size(origin.value))
        sources = identity_sources(operation, self.child, self.seed)
        if sources is None:
            return None
        made = tuple(read[source] for source in sources)
        return Same(origin.value, simplest(made, self._size(origin.value)))

    # --------------------------------------------------------------------- what is added on

    def _sum(self, operation: Operation, given: tuple[Origin, ...]) -> Iterator[Found]:
        """The rest of a sum whose other part can be made zero."""
        if len(given) != 2 or any(key not in ("0", "1") for key in operation.arguments):
            return
        shapes = self.child.shapes
        for place, (origin, rest) in enumerate((given, given[::-1])):
            kept = shapes[operation.outputs[0]] == shapes[operation.inputs[place]]
            if isinstance(origin, Same) and rest == Other(silent=True) and kept:
                silenced = (operation.inputs[1 - place],)
                yield Found("identity", given, (origin,), silenced=silenced)

    def _cat(
        self, operation: Operation, given: tuple[Origin, ...], kept: list[Same]
    ) -> Iterator[Found]:
        """Channels of its own beside those of the parent."""
        parts = operation.arguments.get("0", operation.arguments.get("tensors"))
        if not parts:
            return
        numbers = [part.number for part in parts if isinstance(part, Value)]
        for chosen in _choices_of(len(kept)):
            values = tuple(kept[place].value for place in chosen)
            parent = self._joins(values) if len(values) > 1 or len(kept) == 1 else None
            if parent is None and len(values) > 1:
                continue
            target = values[0] if parent is None else parent.outputs[0]
            offset, made, place = 0, list[int](), 0
            for origin, number in zip(given, numbers, strict=True):
                heard = isinstance(origin, Same) and place in chosen
                place += isinstance(origin, Same)
                if not heard or not isinstance(origin, Same):
                    made += [-1] * self.child.shapes[number][1]
                    continue
                read = listed(origin.channels, self._size(origin.value))
                made += [offset + channel if channel >= 0 else -1 for channel in read]
                offset += self._size(origin.value)
            origin = Same(target, simplest(tuple(made), self._size(target)))
            yield Found("copy" if parent else "identity", given, (origin,), parent)

    def _joins(self, values: tuple[int, ...]) -> Operation | None:
        for other in self._known.get(("cat", values), []):
            if _joins_channels(other):
                return other
        return None


def _joins_channels(operation: Operation) -> bool:
    return bool(operation.arguments.get("dim", operation.arguments.get("1", 0)) == 1)


def _choices_of(count: int) -> list[tuple[int, ...]]:
    """Which of the joined values the parent has joined as well: all, all but one, one alone."""
    every = tuple(range(count))
    fewer = [tuple(p for p in every if p != left) for left in reversed(every)]
    return list(dict.fromkeys([every, *(f for f in fewer if f), *((p,) for p in every)]))

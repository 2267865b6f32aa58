"""The MetaQNN space: chains of convolutions, pools and dense layers, one layer after the other.

Baker, Gupta, Naik & Raskar, "Designing Neural Network Architectures using Reinforcement
Learning", ICLR 2017. What a layer may be depends on the layer before it, on the depth, and on
the size of the representation, of which only a bin is known (``MetaQnn.state``):

- a convolution follows the input, a convolution or a pool; so does a global pool;
- a pool follows a convolution only: neither the input nor another pool;
- a dense layer follows where the representation is not in the largest bin, or another dense
  layer that is no narrower; at most ``max_dense`` in a row, and dense layers only after them;
- the chain may end (``softmax``) after any layer, and does after ``global_pool``.

A kernel has to fit the smallest size of its bin, so what is legal follows from the state alone
and is never impossible. Convolutions are padded to keep the size, pools are not padded. Dropout
is that of the authors' code: behind every second layer and every dense one, the i-th at
``i / (2 n)``; weights are Xavier's, biases zero.

What differs from the paper: the bins are arguments. With ``bins=(7, 3)`` the rules are those of
the authors' code, which bars 1×1 convolutions in the last bin besides; its configuration for
CIFAR-10 allows 18 layers, the default here is 12.
"""

from __future__ import annotations

import functools
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

from torch import nn

from nas.architecture import Architecture, Choice, Scalar
from nas.builder import Builder, Factory
from nas.errors import ConfigError, InvalidArchitecture, UnsupportedRequest, nearest
from nas.layers.chains import Dense, GlobalPool, PlainConv, Scores
from nas.points import Point
from nas.space import Legal, check_input, from_picks


class State(NamedTuple):
    """All that the paper's agent knows of a prefix: what may follow depends on nothing else.

    Attributes:
        layer: the option of the last layer, ``"input"`` before the first.
        depth: how many layers there are.
        bin: of the representation's size: 0 for the largest. The last for dense layers, which
            have no size.
        dense: how many dense layers are in a row here.
    """

    layer: str
    depth: int
    bin: int
    dense: int


class _Position(NamedTuple):
    """A state with the representation's true size, its smaller side."""

    layer: str
    depth: int
    size: int
    dense: int


ENDS = ("global_pool", "softmax")


@dataclass(frozen=True)
class MetaQnn:
    """Chains of at most so many layers; the classifier behind them is not counted.

    Args:
        layers: how many at most (the paper's bound for the depth).
        kernels: of convolutions, odd.
        widths: their output channels.
        pools: kernel and stride of the max pools.
        dense: widths of the dense layers.
        max_dense: how many of them at most.
        bins: representations larger than the first are in the first bin, of the rest those
            larger than the second in the second, and so on. Descending.
        classes: of the classifier.
        input: the shape of one image, (channels, height, width).
    """

    layers: int = 12
    kernels: tuple[int, ...] = (1, 3, 5)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    pools: tuple[tuple[int, int], ...] = ((5, 3), (3, 2), (2, 2))
    dense: tuple[int, ...] = (512, 256, 128)
    max_dense: int = 2
    bins: tuple[int, ...] = (8, 4)
    classes: int = 10
    input: tuple[int, ...] = (3, 32, 32)

    name = "metaqnn/v1"
    paper = "Baker, Gupta, Naik & Raskar, MetaQNN, ICLR 2017"
    points: ClassVar[Mapping[str, Point]] = {
        "MetaQNN_CIFAR10": Point(
            "[C(128,5,1), C(512,3,1), P(2,2), C(128,1,1), C(128,5,1), P(3,2), C(512,3,1), SM(10)]",
            paper,
        )
    }
    choices: tuple[Choice, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", check_input(self.input, "metaqnn"))
        if len(self.input) != 3:
            raise ConfigError(f"metaqnn: input must be (channels, height, width), got {self.input}")
        for argument, least in (("layers", 1), ("classes", 1), ("max_dense", 0)):
            if getattr(self, argument) < least:
                raise ConfigError(
                    f"metaqnn: {argument} must be at least {least}, got {getattr(self, argument)}"
                )
        for argument in ("kernels", "widths", "dense", "bins"):
            values = tuple(getattr(self, argument))
            if any(value < 1 for value in values):
                raise ConfigError(f"metaqnn: {argument} must be positive, got {values}")
            object.__setattr__(self, argument, values)
        if not self.kernels or not self.widths:
            raise ConfigError("metaqnn: there must be a kernel and a width to choose from")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"metaqnn: kernels must be odd, got {self.kernels}")
        object.__setattr__(self, "pools", tuple((k, s) for k, s in self.pools))
        if any(not 1 <= stride <= kernel for kernel, stride in self.pools):
            raise ConfigError(
                "metaqnn: pools must be (kernel, stride), the stride no larger than the kernel, "
                f"got {self.pools}"
            )
        if list(self.bins) != sorted(set(self.bins), reverse=True):
            raise ConfigError(f"metaqnn: bins must descend, as in (8, 4), got {self.bins}")
        options = (
            *(f"conv_k{kernel}_o{width}" for kernel in self.kernels for width in self.widths),
            *(f"pool_k{kernel}_s{stride}" for kernel, stride in self.pools),
            *(f"dense_{width}" for width in self.dense),
            *ENDS,
        )
        goes_on = tuple(option for option in options if option not in ENDS)
        choices = tuple(
            Choice(f"layer{i}", options, {f"layer{i - 1}": goes_on} if i else ())
            for i in range(self.layers)
        )
        object.__setattr__(self, "choices", choices)

    # -------------------------------------------------------------------------------- rules

    def state(self, prefix: Mapping[str, Scalar]) -> State:
        """What tabular Q-learning knows of a prefix: equal states share their Q-values.

        ``legal`` gives the same options to prefixes of the same state. Of one state and one
        option more than one state can follow, because a bin is not a size.
        """
        return self._state(self._position(prefix))

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        state = self.state(prefix)
        options = self._options(state)
        return (self.choices[state.depth], options) if options else None

    def size(self) -> int:
        @functools.cache
        def completions(position: _Position) -> int:
            options = self._options(self._state(position))
            return sum(completions(self._after(position, option)) for option in options) or 1

        return completions(self._position({}))

    def _position(self, prefix: Mapping[str, Scalar]) -> _Position:
        position = _Position("input", 0, min(self.input[1:]), 0)
        for choice in self.choices:
            if choice.label not in prefix:
                break
            position = self._after(position, str(prefix[choice.label]))
        return position

    def _after(self, position: _Position, option: str) -> _Position:
        kind, first, second = _read(option)
        size = position.size
        if kind == "pool":
            size = (size - first) // second + 1
        elif kind != "conv":
            size = 1
        dense = position.dense + 1 if kind == "dense" else 0
        return _Position(option, position.depth + 1, size, dense)

    def _state(self, position: _Position) -> State:
        above = [position.size > bound for bound in (*self.bins, 0)]
        return State(position.layer, position.depth, above.index(True), position.dense)

    def _options(self, state: State) -> tuple[str, ...]:
        """The legal options after a state; none where the chain has ended."""
        kind, width, _ = _read(state.layer)
        if state.layer in ENDS or state.depth == self.layers:
            return ()
        smallest = (*self.bins, 0)[state.bin] + 1
        legal = []
        for option in self.choices[0].options:
            following, first, _ = _read(str(option))
            allowed = {
                "conv": kind != "dense" and first <= smallest,
                "pool": kind == "conv" and first <= smallest,
                "dense": state.dense < self.max_dense
                and (first <= width if kind == "dense" else state.bin > 0),
                "global_pool": kind != "dense",
                "softmax": True,
            }
            if allowed[following]:
                legal.append(str(option))
        return tuple(legal)

    # ------------------------------------------------------------------------------ networks

    def canonical(self, arch: Architecture) -> Architecture:
        return arch  # no two chains here compute the same

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        return {label: str(option) for label, option in arch.picks}

    def build(self, builder: Builder) -> nn.Module:
        shape = self.input
        layers: list[nn.Module] = []
        for choice in self.choices:
            layer = builder.edge(choice.label, self._factories(shape))
            if layer is None:
                break
            layers.append(layer)
            shape = _shape_after(layer, shape, choice.label)
            if isinstance(layer, GlobalPool):
                break
        dropouts = dropout_steps([_kind(layer) for layer in layers])
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (layer, dropout) in enumerate(zip(layers, dropouts, strict=True)):
            parts[f"layer{index}"] = layer
            if dropout is not None:
                parts[f"dropout{index}"] = nn.Dropout(dropout[0] / (2 * dropout[1]))
        parts["scores"] = Scores(features=math.prod(shape), classes=self.classes)
        return nn.Sequential(parts)

    def _factories(self, shape: tuple[int, ...]) -> dict[str, Factory | None]:
        factories: dict[str, Factory | None] = {}
        for option in map(str, self.choices[0].options):
            kind, first, second = _read(option)
            if kind == "conv":
                factories[option] = partial(
                    PlainConv, c_in=shape[0], c_out=second, kernel_size=first
                )
            elif kind == "pool":
                factories[option] = partial(nn.MaxPool2d, kernel_size=first, stride=second)
            elif kind == "dense":
                factories[option] = partial(Dense, features=math.prod(shape), width=first)
            elif kind == "global_pool":
                factories[option] = partial(GlobalPool, c_in=shape[0], classes=self.classes)
            else:
                factories[option] = None
        return factories

    # ------------------------------------------------------------------------------ notation

    def parse(self, text: str) -> Architecture:
        """Reads the authors' ``[C(64,3,1), P(2,2), FC(512), SM(10)]``.

        ``C(width, kernel, stride)``, ``P(kernel, stride)``, ``FC(width)``, ``GAP(classes)``,
        ``SM(classes)``; ``D(i,n)``, dropout at ``i / (2 n)``, may be left out, but where it is
        given it has to be what the layers imply.
        """
        body = text.strip().removeprefix("[").removesuffix("]")
        parts = re.split(r"\s*(?:,|-)\s*(?![^(]*\))", body)
        options: list[str] = []
        dropouts: list[tuple[int, tuple[int, ...]]] = []
        ended = False
        for part in parts:
            match = re.fullmatch(r"(C|P|FC|GAP|SM|D)\(([\d\s,]+)\)", part.strip())
            if match is None:
                raise InvalidArchitecture(
                    f"metaqnn: {part!r} in {text!r:.200}, expected layers as in "
                    "'[C(64,3,1), P(2,2), FC(512), SM(10)]'"
                )
            try:
                numbers = tuple(int(number) for number in match.group(2).split(","))
            except ValueError:
                raise InvalidArchitecture(
                    f"metaqnn: {part!r} in {text!r:.200}, expected whole numbers"
                ) from None
            if ended:
                raise InvalidArchitecture(f"metaqnn: {part!r} follows SM in {text!r:.200}")
            if match.group(1) == "D":
                dropouts.append((len(options) - 1, numbers))
                continue
            option = self._option(match.group(1), numbers, part)
            ended = option == "softmax"
            if not ended:
                options.append(option)
        if not ended:
            raise InvalidArchitecture(f"metaqnn: {text!r:.200} must end with SM({self.classes})")
        steps = dropout_steps([_read(option)[0] for option in options])
        implied = [(index, step) for index, step in enumerate(steps) if step is not None]
        if dropouts and dropouts != implied:
            raise InvalidArchitecture(
                f"metaqnn: the dropouts of {text!r:.200} are not those of its layers: expected "
                + ", ".join(f"D({i},{n}) behind layer {index}" for index, (i, n) in implied)
            )
        if len(options) < self.layers and options[-1:] != ["global_pool"]:
            options.append("softmax")
        if len(options) > self.layers:
            raise InvalidArchitecture(
                f"metaqnn: {len(options)} layers in {text!r:.200}, at most {self.layers}"
            )
        return from_picks(self, {f"layer{i}": option for i, option in enumerate(options)})

    def format(self, arch: Architecture) -> str:
        """Writes what ``parse`` reads, without the dropouts."""
        parts = []
        for _, option in arch.picks:
            kind, first, second = _read(str(option))
            parts += {
                "conv": [f"C({second},{first},1)"],
                "pool": [f"P({first},{second})"],
                "dense": [f"FC({first})"],
                "global_pool": [f"GAP({self.classes})"],
                "softmax": [],
            }[kind]
        return "[" + ", ".join([*parts, f"SM({self.classes})"]) + "]"

    def _option(self, letter: str, numbers: tuple[int, ...], part: str) -> str:
        if letter == "C" and len(numbers) == 3 and numbers[2] == 1:
            option = f"conv_k{numbers[1]}_o{numbers[0]}"
        elif letter == "P" and len(numbers) == 2:
            option = f"pool_k{numbers[0]}_s{numbers[1]}"
        elif letter == "FC" and len(numbers) == 1:
            option = f"dense_{numbers[0]}"
        elif letter in ("GAP", "SM") and numbers == (self.classes,):
            option = "global_pool" if letter == "GAP" else "softmax"
        else:
            raise InvalidArchitecture(
                f"metaqnn: {part!r}, expected C(width,kernel,1), P(kernel,stride), FC(width), "
                f"GAP({self.classes}) or SM({self.classes})"
            )
        if option not in self.choices[0].options:
            raise InvalidArchitecture(
                f"metaqnn: {part!r} is {option!r}, which is no option: "
                f"{nearest(option, self.choices[0].options)}"
            )
        return option


def dropout_steps(kinds: Sequence[str]) -> list[tuple[int, int] | None]:
    """For each layer its dropout as (i, n), at ``i / (2 n)``, or ``None`` for none behind it.

    Args:
        kinds: of the layers: ``"conv"``, ``"pool"``, ``"dense"`` or ``"global_pool"``.
    """
    dense = kinds.count("dense")
    # As the authors count: the classifier is one of the layers, dense ones have one each.
    number = (len(kinds) + 1 - kinds.count("global_pool") - dense) // 2 + dense
    steps: list[tuple[int, int] | None] = []
    done = 0
    for index, kind in enumerate(kinds):
        here = (index % 2 == 1 or kind == "dense") and kind != "global_pool" and done < number
        done += here
        steps.append((done, number) if here else None)
    return steps


def _kind(layer: nn.Module) -> str:
    kinds = {PlainConv: "conv", nn.MaxPool2d: "pool", Dense: "dense", GlobalPool: "global_pool"}
    return next(kind for cls, kind in kinds.items() if isinstance(layer, cls))


@functools.cache
def _read(option: str) -> tuple[str, int, int]:
    """An option as its kind and numbers: ``"conv_k3_o64"`` is ``("conv", 3, 64)``."""
    numbers = [int(number) for number in re.findall(r"\d+", option)]
    first, second = (*numbers, 0, 0)[:2]
    return (option if option in ENDS else option.split("_")[0]), first, second


def _shape_after(layer: nn.Module, shape: tuple[int, ...], label: str) -> tuple[int, ...]:
    if isinstance(layer, PlainConv):
        return (layer.c_out, *shape[1:])
    if isinstance(layer, nn.MaxPool2d):
        kernel, stride = layer.kernel_size, layer.stride
        assert isinstance(kernel, int)
        assert isinstance(stride, int)
        return (shape[0], *((size - kernel) // stride + 1 for size in shape[1:]))
    if isinstance(layer, Dense):
        return (layer.width,)
    if isinstance(layer, GlobalPool):
        return (layer.classes,)
    raise UnsupportedRequest(
        f"{MetaQnn.name!r}: {label!r} decides the shape of all that follows, so it can be built "
        f"as one of its options only, not as a {type(layer).__name__}"
    )

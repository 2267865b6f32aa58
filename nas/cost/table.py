"""Tables of what each option of each slot costs, for spaces whose networks are sums of them.

Where all that is open is which module a slot holds, and a slot's options give outputs of one
shape, the parameters, multiply-accumulates and weight bytes of a network are a fixed part plus
one term a slot. The terms are read off one forward pass in which every option of a slot is tried
at each of its places. Peak memory is no such sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from nas.builder import Factory
from nas.cost.forward import Forward
from nas.cost.reading import Building, alone, running
from nas.cost.recorder import NotPlain
from nas.cost.standin import Known, Substitute, known_module, weights_of
from nas.errors import InvalidArchitecture, UnsupportedRequest, nearest
from nas.space import SearchSpace


class Terms(NamedTuple):
    """What a part of a network adds to its cost."""

    parameters: int
    macs: int
    weight_bytes: int


class BatchCosts(NamedTuple):
    """Costs of many architectures, one a row; int64."""

    parameters: NDArray[np.int64]
    macs: NDArray[np.int64]
    weight_bytes: NDArray[np.int64]


@dataclass(frozen=True)
class SlotTable:
    """Exact costs as a sum: a fixed part, and a term for the option of each slot.

    An option that is no connection costs nothing and changes nothing elsewhere: what a slot's
    option costs does not depend on what the other slots hold.

    Attributes:
        base: of what is not open.
        slots: slot label to option to its terms, over all places of the slot.
    """

    base: Terms
    slots: Mapping[str, Mapping[str, Terms]]

    def total(self, options: Mapping[str, str]) -> Terms:
        """Of a network whose slots hold these options; a slot left out adds nothing.

        Raises:
            InvalidArchitecture: there is no such slot or option.
        """
        parameters, macs, weight_bytes = self.base
        for label, option in options.items():
            try:
                terms = self.slots[label][option]
            except KeyError:
                known = self.slots.get(label)
                raise InvalidArchitecture(
                    f"no slot {label!r}: {nearest(label, self.slots)}"
                    if known is None
                    else f"slot {label!r} has no option {option!r}: {nearest(option, known)}"
                ) from None
            parameters += terms.parameters
            macs += terms.macs
            weight_bytes += terms.weight_bytes
        return Terms(parameters, macs, weight_bytes)

    def batch(self, options: Sequence[tuple[str, Sequence[str]]], rows: ArrayLike) -> BatchCosts:
        """Of many networks at once.

        Args:
            options: each slot's label and its options in order.
            rows: integers (n, slots), the position of the option that a slot holds.

        Raises:
            InvalidArchitecture: rows of another shape, or a position out of range.
        """
        matrix = np.asarray(rows)
        if matrix.ndim != 2 or matrix.shape[1] != len(options) or matrix.dtype.kind not in "iu":
            raise InvalidArchitecture(
                f"expected integers of shape (n, {len(options)}), a row an architecture; got "
                f"{matrix.dtype} of shape {matrix.shape}"
            )
        total = np.tile(np.array(self.base, dtype=np.int64), (len(matrix), 1))
        for column, (label, names) in zip(matrix.T, options, strict=True):
            outside = column[(column < 0) | (column >= len(names))]
            if len(outside):
                raise InvalidArchitecture(
                    f"{outside[0]} for {label!r}, expected 0 to {len(names) - 1}"
                )
            terms = np.array([self.slots[label][name] for name in names], dtype=np.int64)
            total += terms[column]
        return BatchCosts(*np.ascontiguousarray(total.T))


def trace_table(space: SearchSpace) -> SlotTable:
    """The table of a space, from one pass over its description with all options at once.

    Raises:
        UnsupportedRequest: the description asks for numbers, depths or subsets, the options of a
            slot give different shapes, or its modules do more than call what a slot gives them.
    """
    builder = _TableBuilder(space)
    try:
        with alone():
            with Building():
                network = space.build(builder)
            parameters, weight_bytes = weights_of(network)
            with running() as forward:
                forward.run(network, space.input)
            base = Terms(parameters, forward.recorder.macs, weight_bytes)
    except UnsupportedRequest:
        raise
    except Exception as error:
        raise UnsupportedRequest(
            f"{space.name!r} has no table of costs: with all options at once its network does not "
            f"run: {type(error).__name__}: {error}"
        ) from error
    slots = {
        label: {option: Terms(*numbers) for option, numbers in options.items()}
        for label, options in builder.terms.items()
    }
    return SlotTable(base, slots)


class _Spot(Substitute):
    """One place of a slot, trying every option on what it is called with."""

    __slots__ = ("_label", "_options", "_terms")

    _label: str
    _options: Mapping[str, Known | None]
    _terms: dict[str, list[int]]

    def __init__(
        self, label: str, options: Mapping[str, Known | None], terms: dict[str, list[int]]
    ) -> None:
        super().__init__()
        object.__setattr__(self, "_label", label)
        object.__setattr__(self, "_options", options)
        object.__setattr__(self, "_terms", terms)

    @property  # type: ignore[misc]  # object's may be set, this may not
    def __class__(self) -> Any:
        return nn.Module

    def __getattr__(self, name: str) -> NoReturn:
        raise UnsupportedRequest(f"slot {self._label!r} is asked for {name!r}, not only called")

    def weights(self) -> tuple[int, int]:
        for option, known in self._options.items():
            if known is not None:
                self._terms[option][0] += known.parameters
                self._terms[option][2] += known.bytes
        return 0, 0

    def run(self, forward: Forward, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        recorder = forward.recorder
        results: dict[str, tuple[Any, Any]] = {}
        for option, known in self._options.items():
            if known is None:
                continue
            before = recorder.macs
            result = known.run(forward, args, kwargs)
            self._terms[option][1] += recorder.macs - before
            recorder.macs = before
            shape = recorder.known(result)
            if shape is None:
                raise NotPlain(f"option {option!r} of slot {self._label!r} returns no tensor")
            results[option] = (shape[0][0], result)
        shapes = {option: shape for option, (shape, _) in results.items()}
        if len(set(shapes.values())) != 1:
            raise UnsupportedRequest(
                f"there is no table of costs: the options of slot {self._label!r} give different "
                f"shapes, {shapes}"
            )
        return next(iter(results.values()))[1]


class _TableBuilder:
    """Answers with all options of a slot at once, and with nothing else."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.terms: dict[str, dict[str, list[int]]] = {}

    def slot(self, label: str, options: Mapping[str, Factory]) -> Any:
        return self.edge(label, options)

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> Any:
        terms = self.terms.setdefault(label, {option: [0, 0, 0] for option in options})
        if list(terms) != list(options):
            raise UnsupportedRequest(
                f"{self._space.name!r} has no table of costs: slot {label!r} has the options "
                f"{tuple(terms)} in one place and {tuple(options)} in another"
            )
        known = {
            option: None if factory is None else known_module(factory)
            for option, factory in options.items()
        }
        return _Spot(label, known, terms)

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        self._refuse("number", label)

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        self._refuse("depth", label)

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        self._refuse("subset", label)

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        return describe(self, *args)

    def _refuse(self, verb: str, label: str) -> NoReturn:
        raise UnsupportedRequest(
            f"{self._space.name!r} has no table of costs: {label!r} is a {verb}, and costs are "
            "sums over the slots only where nothing else is open"
        )

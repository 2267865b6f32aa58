"""Rows of numbers for surrogate models: an architecture as blocks of features.

A block says one kind of thing about an architecture, and a model can trust each block more or
less. All are centred on the space and scaled alike (the mean squared length of a row is 1), so
that equal prior variances mean equal shares:

* ``"options"``: which option each choice has, one-hot.
* ``"counts"``: how often each option is taken over all choices that offer the same options.
  What an operation is good for is learnt once and not for each edge anew.
* ``"numbers"``: the values of choices of numbers, scaled.
* ``"paths"``: which paths of operations lead through the cells (``path_encoding``).
* ``"pairs"``: products of two counts: too much of one thing, or two that go together.
* ``"interactions"``: products of the options of two choices; their number grows with the square
  of the number of options.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.encoding import HasPaths, path_count, paths, vocabulary_size
from nas.errors import ConfigError, nearest
from nas.space import HasSize, SearchSpace, count, enumerate_architectures, sample

Rows = NDArray[np.float32]

BLOCKS = ("options", "counts", "numbers", "paths", "pairs", "interactions")
MOST_FEATURES = 4_000
"""A block wider than this is refused: a dense model of it is not meant."""
_REFERENCE = 512


class Inputs:
    """Makes rows of features for the architectures of one space.

    Args:
        space: theirs.
        blocks: which blocks a row has, in this order. Blocks that a space cannot have (paths of
            a space without cells, numbers where no choice is of numbers) or that tell nothing
            apart are left out.
        whole: all architectures of the space, if they are at hand: what rows are centred on.
            Without it, ``512`` random ones, always the same.

    Attributes:
        names: of the blocks there are.
        widths: of those blocks, in columns.
        rows: of ``whole``; without it ``None``.

    Raises:
        ConfigError: an unknown block, or one given twice.
        UnsupportedRequest: a block has more than ``MOST_FEATURES`` columns.
    """

    def __init__(
        self,
        space: SearchSpace,
        blocks: Sequence[str],
        whole: Sequence[Architecture] | None = None,
    ) -> None:
        for name in blocks:
            if name not in BLOCKS:
                raise ConfigError(
                    f"there is no block of features {name!r}: {nearest(name, BLOCKS)}"
                )
        if len(set(blocks)) != len(blocks):
            raise ConfigError(f"a block of features is given twice: {tuple(blocks)}")
        self.space = space
        self._vocabulary: dict[tuple[str, object], int] = {}
        for choice in space.choices:
            for option in choice.options:
                self._vocabulary[choice.label, option] = len(self._vocabulary)
        self._makers = _makers(space)
        self._paths = _Paths(space) if isinstance(space, HasPaths) else None
        listed = whole is not None
        if whole is None:
            rng = np.random.default_rng(0)
            whole = [sample(space, rng) for _ in range(_REFERENCE)]
        self._kept: list[tuple[str, NDArray[np.intp], Rows, float]] = []
        picked = self._one_hot(whole)
        parts = [np.zeros((len(whole), 0), dtype=np.float32)]
        for name in blocks:
            raw = self._raw(name, whole, picked)
            if raw is None:
                continue
            spread = raw.std(axis=0)
            columns = np.flatnonzero(spread > 1e-6)
            if len(columns):
                scale = 1.0 / float(np.sqrt((spread[columns].astype(np.float64) ** 2).sum()))
                centre = raw[:, columns].mean(axis=0, dtype=np.float64).astype(np.float32)
                self._kept.append((name, columns, centre, scale))
                if listed:
                    parts.append((raw[:, columns] - centre) * np.float32(scale))
        self.rows = np.concatenate(parts, axis=1) if listed else None
        self.names = tuple(name for name, *_ in self._kept)
        self.widths = tuple(len(columns) for _, columns, *_ in self._kept)

    def __call__(self, archs: Sequence[Architecture]) -> Rows:
        """One row an architecture; the architectures must be of the space (not checked)."""
        picked = self._one_hot(archs)
        rows = np.empty((len(archs), sum(self.widths)), dtype=np.float32)
        start = 0
        for (name, columns, centre, scale), width in zip(self._kept, self.widths, strict=True):
            raw = self._raw(name, archs, picked)
            assert raw is not None
            rows[:, start : start + width] = (raw[:, columns] - centre) * np.float32(scale)
            start += width
        return rows

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Which columns are kept and what rows are centred on: the draws need not be repeated."""
        state: dict[str, NDArray[Any]] = {}
        for name, columns, centre, scale in self._kept:
            state |= {f"{name}/columns": columns, f"{name}/centre": centre}
            state[f"{name}/scale"] = np.array(scale)
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes such a state up: the space must be the same."""
        names = dict.fromkeys(key.partition("/")[0] for key in state)
        parts = [
            [state[f"{name}/{part}"] for part in ("columns", "centre", "scale")] for name in names
        ]
        self._kept = [
            (name, columns, centre, float(scale))
            for name, (columns, centre, scale) in zip(names, parts, strict=True)
        ]
        self.rows = None
        self.names = tuple(names)
        self.widths = tuple(len(columns) for _, columns, *_ in self._kept)

    def _one_hot(self, archs: Sequence[Architecture]) -> Rows:
        picked = np.zeros((len(archs), len(self._vocabulary)), dtype=np.float32)
        known = self._vocabulary
        for row, arch in enumerate(archs):
            picked[row, [known[pick] for pick in arch.picks]] = 1.0
        return picked

    def _raw(self, name: str, archs: Sequence[Architecture], picked: Rows) -> Rows | None:
        if name == "options":
            return picked
        if name == "paths":
            return None if self._paths is None else self._paths(archs)
        if name not in self._makers:
            return None
        return self._makers[name](picked)


class _Paths:
    """Which paths lead through the cells, as ``nas.encoding.path_encoding`` shows them.

    The table of paths is made once, and architectures are not checked: whole spaces come here.
    """

    def __init__(self, space: HasPaths) -> None:
        self._graphs = space.graphs
        operations = [name for name in space.graph_operations if name != "none"]
        longest = space.longest_path
        # The paper's truncation: the longest paths are many and rare.
        while longest > 0 and path_count(space, longest) > MOST_FEATURES:
            longest -= 1
        sequences = itertools.chain.from_iterable(
            itertools.product(operations, repeat=length) for length in range(longest + 1)
        )
        self._position = {path: position for position, path in enumerate(sequences)}

    def __call__(self, archs: Sequence[Architecture]) -> Rows:
        width = len(self._position)
        shown: list[list[int]] = []
        cells = 1
        for arch in archs:
            graphs = self._graphs(arch)
            cells = len(graphs)
            shown.append(
                [
                    cell * width + self._position[path]
                    for cell, graph in enumerate(graphs.values())
                    for path in paths(graph)
                    if path in self._position
                ]
            )
        rows = np.zeros((len(archs), cells * width), dtype=np.float32)
        for row, columns in zip(rows, shown, strict=True):
            row[columns] = 1.0
        return rows


def _makers(space: SearchSpace) -> dict[str, Callable[[Rows], Rows]]:
    """What is computed from one-hot rows alone, by the block's name."""
    makers: dict[str, Callable[[Rows], Rows]] = {}
    width = vocabulary_size(space)
    groups: dict[tuple[object, ...], int] = {}
    sizes = [len(choice.options) for choice in space.choices]
    total = 0
    pooled: list[int] = []
    for choice in space.choices:
        if choice.options not in groups:
            groups[choice.options] = total
            total += len(choice.options)
        pooled += range(groups[choice.options], groups[choice.options] + len(choice.options))
    if len(groups) < len(space.choices):
        pool = np.zeros((width, total), dtype=np.float32)
        pool[np.arange(width), pooled] = 1.0
        makers["counts"] = functools.partial(_times, pool)
        if total * (total + 1) // 2 <= MOST_FEATURES:
            mean = pool.sum(axis=0) * _share(groups)
            makers["pairs"] = functools.partial(_pairs, pool, mean)
    values = np.zeros((width, len(space.choices)), dtype=np.float32)
    start = 0
    for column, (choice, size) in enumerate(zip(space.choices, sizes, strict=True)):
        if size > 1 and not any(isinstance(option, str) for option in choice.options):
            options = np.array([float(option) for option in choice.options])
            span = options.max() - options.min()
            values[start : start + size, column] = (options - options.min()) / span
        start += size
    if values.any():
        makers["numbers"] = functools.partial(_times, values)
    interactions = (width * width - sum(size * size for size in sizes)) // 2
    if interactions <= MOST_FEATURES:
        starts = list(itertools.accumulate(sizes, initial=0))
        centred = np.repeat([1.0 / size for size in sizes], sizes).astype(np.float32)
        makers["interactions"] = functools.partial(_interactions, starts, centred)
    return makers


def _share(groups: dict[tuple[object, ...], int]) -> Rows:
    return np.concatenate(
        [np.full(len(options), 1.0 / len(options), dtype=np.float32) for options in groups]
    )


def _times(matrix: Rows, picked: Rows) -> Rows:
    return picked @ matrix


def _pairs(pool: Rows, mean: Rows, picked: Rows) -> Rows:
    counts = np.asarray(picked @ pool - mean, dtype=np.float32)
    left, right = np.triu_indices(counts.shape[1])
    products: Rows = counts[:, left] * counts[:, right]
    return products


def _interactions(starts: list[int], centred: Rows, picked: Rows) -> Rows:
    columns = []
    for i, j in itertools.combinations(range(len(starts) - 1), 2):
        first = picked[:, starts[i] : starts[i + 1]]
        second = picked[:, starts[j] : starts[j + 1]]
        # An inactive choice is its mean, so that it interacts with nothing.
        active = first.any(axis=1, keepdims=True) & second.any(axis=1, keepdims=True)
        first = (first - centred[starts[i] : starts[i + 1]]) * active
        second = second - centred[starts[j] : starts[j + 1]]
        columns.append((first[:, :, None] * second[:, None, :]).reshape(len(picked), -1))
    if not columns:
        return np.zeros((len(picked), 0), dtype=np.float32)
    return np.concatenate(columns, axis=1)


def size_at_most(space: SearchSpace, limit: int) -> bool:
    """Whether the space has so few architectures; counts no further than that."""
    if isinstance(space, HasSize):
        return count(space) <= limit
    found = itertools.islice(enumerate_architectures(space), limit + 1)
    return sum(1 for _ in found) <= limit

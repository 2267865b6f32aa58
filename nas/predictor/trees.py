"""Random forests and boosted trees, kept as plain arrays.

Breiman, "Random Forests", Machine Learning 2001; Friedman, "Greedy Function Approximation: A
Gradient Boosting Machine", Annals of Statistics 2001. Scikit-learn grows the trees, with its
defaults; what it grew is copied into arrays that predict by themselves, so that a fitted model is
written to a file without pickle. A forest's deviation is the spread of its trees; boosting has
none of its own, so several are fitted to rows drawn with replacement, and theirs is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError, UnsupportedRequest
from nas.predictor.protocol import Floats, Prediction, checked, not_fitted, rows_of

Arrays = Mapping[str, NDArray[Any]]
_CHUNK = 4096


@dataclass(frozen=True, eq=False, slots=True)
class Trees:
    """Binary trees, their nodes one after the other.

    Attributes:
        feature: the column that a node asks for; -1 at a leaf.
        threshold: a row goes left where its column is at most this.
        left, right: the nodes below.
        value: of a leaf.
        roots: the first node of each tree.
        columns: how many columns a row has.
    """

    feature: NDArray[np.int32]
    threshold: Floats
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: Floats
    roots: NDArray[np.int32]
    columns: int

    @classmethod
    def packed(cls, grown: Sequence[Any], columns: int) -> Trees:
        """Copies scikit-learn's trees (``estimator.tree_``)."""
        sizes = [tree.node_count for tree in grown]
        roots = np.cumsum([0, *sizes])[:-1]
        offsets = np.repeat(roots, sizes)
        left = np.concatenate([tree.children_left for tree in grown])
        right = np.concatenate([tree.children_right for tree in grown])
        leaf = left < 0
        feature = np.concatenate([tree.feature for tree in grown])
        return cls(
            np.where(leaf, -1, feature).astype(np.int32),
            np.concatenate([tree.threshold for tree in grown]).astype(np.float64),
            np.where(leaf, -1, left + offsets).astype(np.int32),
            np.where(leaf, -1, right + offsets).astype(np.int32),
            np.concatenate([tree.value[:, 0, 0] for tree in grown]).astype(np.float64),
            roots.astype(np.int32),
            columns,
        )

    def each(self, rows: NDArray[np.float32]) -> Floats:
        """What each tree says of each row: (rows, trees)."""
        said = np.empty((len(rows), len(self.roots)))
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            at = np.broadcast_to(self.roots, (len(part), len(self.roots))).copy()
            line = np.arange(len(part))[:, None]
            while True:
                feature = self.feature[at]
                inner = feature >= 0
                if not inner.any():
                    break
                goes_left = part[line, np.maximum(feature, 0)] <= self.threshold[at]
                below = np.where(goes_left, self.left[at], self.right[at])
                at = np.where(inner, below, at)
            said[start : start + _CHUNK] = self.value[at]
        return said

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Trees:
        """Of what ``arrays`` gave; raises ``ConfigError`` where they are no trees."""
        found = {field.name: arrays[field.name] for field in fields(cls)}
        columns = int(found.pop("columns"))
        trees = cls(**found, columns=columns)
        nodes = len(trees.feature)
        inner = trees.feature >= 0
        at = np.arange(nodes)
        sound = (
            all(len(part) == nodes for part in (trees.threshold, trees.left, trees.right))
            and len(trees.value) == nodes
            and nodes > 0
            and len(trees.roots) > 0
            and 0 <= trees.roots.min() <= trees.roots.max() < nodes
            and trees.feature.max() < columns
            # Children come after their parent: no walk goes round in circles.
            and bool((trees.left[inner] > at[inner]).all() and (trees.left[inner] < nodes).all())
            and bool((trees.right[inner] > at[inner]).all() and (trees.right[inner] < nodes).all())
        )
        if not sound:
            raise ConfigError("arrays of trees that are none: nodes, children or columns disagree")
        return trees


class RandomForest:
    """Regression trees, each grown on rows drawn with replacement.

    Args:
        trees: how many; 100 is scikit-learn's default.
        seed: of all draws.
    """

    def __init__(self, trees: int = 100, seed: int = 0) -> None:
        _check("forest", trees=(trees, 2), seed=(seed, 0))
        self.trees = trees
        self.seed = seed
        self._grown: Trees | None = None

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        ensemble = _sklearn("forest")
        grown = ensemble.RandomForestRegressor(self.trees, random_state=self.seed)
        grown.fit(rows.astype(np.float32), values)
        self._grown = Trees.packed([tree.tree_ for tree in grown.estimators_], rows.shape[1])

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._grown is None:
            raise not_fitted(self)
        each = self._grown.each(_single(inputs, self._grown.columns, "forest"))
        return Prediction(each.mean(axis=1), each.std(axis=1, ddof=1))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if self._grown is None:
            raise not_fitted(self)
        return self._grown.arrays()

    def load_state_dict(self, state: Arrays) -> None:
        self._grown = Trees.from_arrays(state)


class GradientBoosting:
    """Boosted regression trees, several on rows drawn with replacement.

    Args:
        members: how many.
        trees: of each; 100 is scikit-learn's default, as are the next two.
        depth: of each tree.
        lr: what share of a tree's correction is taken.
        seed: of all draws.
    """

    def __init__(
        self, members: int = 5, trees: int = 100, depth: int = 3, lr: float = 0.1, seed: int = 0
    ) -> None:
        _check("boosting", members=(members, 2), trees=(trees, 1), depth=(depth, 1), seed=(seed, 0))
        if not 0 < lr < float("inf"):
            raise ConfigError(f"boosting: lr must be above 0 and finite, got {lr}")
        self.members = members
        self.trees = trees
        self.depth = depth
        self.lr = lr
        self.seed = seed
        self._grown: Trees | None = None
        self._first: Floats = np.zeros(0)
        self._share = lr

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        ensemble = _sklearn("boosting")
        rng = np.random.default_rng([self.seed, len(rows)])
        grown: list[Any] = []
        first = []
        for member in range(self.members):
            drawn = rng.integers(len(rows), size=len(rows))
            booster = ensemble.GradientBoostingRegressor(
                n_estimators=self.trees,
                max_depth=self.depth,
                learning_rate=self.lr,
                random_state=self.seed + member,
            )
            booster.fit(rows[drawn].astype(np.float32), values[drawn])
            first.append(values[drawn].mean())
            grown += [tree.tree_ for tree in booster.estimators_[:, 0]]
        self._grown = Trees.packed(grown, rows.shape[1])
        self._first = np.array(first)
        self._share = self.lr

    def predict(self, inputs: ArrayLike) -> Prediction:
        if self._grown is None:
            raise not_fitted(self)
        each = self._grown.each(_single(inputs, self._grown.columns, "boosting"))
        sums = each.reshape(len(each), len(self._first), -1).sum(axis=2)
        members = self._first + self._share * sums
        return Prediction(members.mean(axis=1), members.std(axis=1, ddof=1))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if self._grown is None:
            raise not_fitted(self)
        return {**self._grown.arrays(), "first": self._first, "share": np.array(self._share)}

    def load_state_dict(self, state: Arrays) -> None:
        self._grown = Trees.from_arrays(state)
        self._first = state["first"]
        self._share = float(state["share"])


def _single(inputs: ArrayLike, columns: int, what: str) -> NDArray[np.float32]:
    """Rows as scikit-learn's trees see them."""
    return rows_of(inputs, columns, what).astype(np.float32)


def _check(what: str, **numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value < least:
            raise ConfigError(f"{what}: {name} must be at least {least}, got {value}")


def _sklearn(what: str) -> Any:
    try:
        from sklearn import ensemble
    except ImportError as error:
        raise UnsupportedRequest(
            f"the {what} model grows its trees with scikit-learn: pip install scikit-learn"
        ) from error
    return ensemble

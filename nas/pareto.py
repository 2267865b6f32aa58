"""Pareto order on arrays: fronts, crowding, hypervolume and what a point adds to it.

Every function takes costs: one row a point, one column an objective, smaller is better
(``costs`` makes such a row of a trial's values). ``nas.history.ParetoFront`` keeps the front of
trials as they come; this is for populations and for reports.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError
from nas.objective import Objective

Floats = NDArray[np.float64]


def costs(objectives: Sequence[Objective], values: Mapping[str, float]) -> tuple[float, ...]:
    """The values of the objectives, in their order, negated where they are maximised."""
    return tuple(
        [
            -values[one.metric] if one.direction == "maximize" else values[one.metric]
            for one in objectives
        ]
    )


def violation(objectives: Sequence[Objective], values: Mapping[str, float]) -> float:
    """By how much these values break the limits: the sum of the excesses, 0 where none is broken.

    Each excess is a share of its limit, as Deb & Jain (2014) normalise constraints; of a limit
    of zero it is the excess itself. Values that are not there break nothing.
    """
    total = 0.0
    for objective in objectives:
        value = values.get(objective.metric)
        if value is not None and objective.limit is not None and not objective.within_limit(value):
            total += abs(value - objective.limit) / (abs(objective.limit) or 1.0)
    return total


def _matrix(points: ArrayLike, what: str) -> Floats:
    matrix = np.asarray(points, dtype=np.float64)
    if matrix.size == 0:
        return matrix.reshape(0, matrix.shape[1] if matrix.ndim == 2 else 0)
    if matrix.ndim != 2:
        raise ConfigError(f"{what} must be rows of costs, got an array of shape {matrix.shape}")
    return matrix


def _reference(reference: ArrayLike, columns: int) -> Floats:
    point = np.asarray(reference, dtype=np.float64)
    if point.ndim != 1 or (columns and len(point) != columns) or not np.isfinite(point).all():
        raise ConfigError(
            f"the reference point must be {columns} finite costs, one an objective; "
            f"got {reference!r}"
        )
    return point


# ------------------------------------------------------------------------------ fronts


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which rows no other row dominates; of equal rows all or none."""
    matrix = _matrix(points, "points")
    kept = np.zeros(len(matrix), dtype=np.bool_)
    # What comes later in lexicographic order cannot dominate what came before.
    left = np.lexsort(matrix.T[::-1]) if len(matrix) else np.zeros(0, dtype=np.intp)
    while len(left):
        best = matrix[left[0]]
        kept[left[0]] = True
        worse = (matrix[left] >= best).all(axis=1)
        equal = (matrix[left] == best).all(axis=1)
        kept[left[equal]] = True
        left = left[~worse]
    return kept


def non_dominated_sort(
    points: ArrayLike, violations: ArrayLike | None = None
) -> list[NDArray[np.intp]]:
    """The rows of each front, the best front first (Deb et al. 2002, fast non-dominated sort).

    Args:
        points: costs, n × m. Takes memory and time n²·m.
        violations: by how much each row breaks its limits. With it the order is constraint
            domination: what keeps them dominates what does not, and of two that do not the one
            that breaks them by less. Costs of those are not looked at.
    """
    matrix = _matrix(points, "points")
    if violations is None:
        return _fronts(matrix, np.arange(len(matrix)))
    broken = np.asarray(violations, dtype=np.float64)
    if broken.shape != (len(matrix),):
        raise ConfigError(f"{len(matrix)} points need as many violations, got {broken.shape}")
    fronts = _fronts(matrix, np.flatnonzero(broken == 0))
    for level in np.unique(broken[broken > 0]):
        fronts.append(np.flatnonzero(broken == level))
    return fronts


def _fronts(matrix: Floats, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Peels fronts off the dominance matrix of these rows."""
    chosen = matrix[rows]
    no_worse = np.ones((len(rows), len(rows)), dtype=np.bool_)
    for column in chosen.T:
        no_worse &= column[:, None] <= column[None, :]
    dominates = no_worse & ~no_worse.T
    above = dominates.sum(axis=0)
    fronts: list[NDArray[np.intp]] = []
    while True:
        front = np.flatnonzero(above == 0)
        if not len(front):
            return fronts
        fronts.append(rows[front])
        above -= dominates[front].sum(axis=0)
        above[front] = -1


def crowding_distance(points: ArrayLike) -> Floats:
    """How much room each row of one front has: infinite at the ends (Deb et al. 2002, III-B).

    In each objective the distance between the neighbours on both sides as a share of the
    front's range, summed. An objective in which all are equal adds nothing.
    """
    matrix = _matrix(points, "points")
    distance = np.zeros(len(matrix))
    for column in matrix.T if len(matrix) else ():
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            distance[order[[0, -1]]] = math.inf
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    if len(matrix) and not distance.any():
        distance[[0, -1]] = math.inf
    return distance


def reference_directions(objectives: int, divisions: int) -> Floats:
    """Das & Dennis's points on the unit simplex: C(objectives + divisions - 1, divisions) rows.

    Every row is of multiples of 1/divisions that add up to one (Deb & Jain 2014, section IV-B).
    """
    if objectives < 1 or divisions < 1:
        raise ConfigError(
            "reference directions need at least one objective and one division, "
            f"got {objectives} and {divisions}"
        )
    # Stars and bars: the gaps between bars are the numerators.
    places = divisions + objectives - 1
    rows = [
        np.diff((-1, *bars, places)) - 1
        for bars in itertools.combinations(range(places), objectives - 1)
    ]
    return np.array(rows, dtype=np.float64) / divisions


# ------------------------------------------------------------------------- hypervolume


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the points dominate and that the reference point bounds; exact.

    Points that are not better than the reference in every objective add nothing. Two objectives
    take n·log n; each further one multiplies that by the size of the front.
    """
    matrix = _matrix(points, "points")
    corner = _reference(reference, matrix.shape[1])
    if not len(matrix):
        return 0.0
    inside = matrix[(matrix < corner).all(axis=1)]
    return _volume(inside, corner) if len(inside) else 0.0


def _volume(points: Floats, corner: Floats) -> float:
    if points.shape[1] == 1:
        return float(corner[0] - points.min())
    if points.shape[1] == 2:
        ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
        height = np.minimum.accumulate(ordered[:, 1])
        right = np.append(ordered[1:, 0], corner[0])
        return float(((right - ordered[:, 0]) * (corner[1] - height)).sum())
    # Slabs along the last objective: each as wide as the points that reach into it.
    front = points[non_dominated(points)]
    front = front[np.argsort(front[:, -1], kind="stable")]
    ends = np.append(front[1:, -1], corner[-1])
    return sum(
        float(end - front[last, -1]) * _volume(front[: last + 1, :-1], corner[:-1])
        for last, end in enumerate(ends)
        if end > front[last, -1]
    )


def hypervolume_improvement(
    candidates: ArrayLike, front: ArrayLike, reference: ArrayLike
) -> Floats:
    """By how much each candidate alone would raise the hypervolume of a front.

    Args:
        candidates: costs, n × m.
        front: costs of what is there, k × m (k may be 0; dominated rows do no harm).

    Returns:
        n gains, zero or more, with two objectives in one pass over n × k.
    """
    new = _matrix(candidates, "candidates")
    corner = _reference(reference, new.shape[1])
    old = _matrix(front, "front")
    if old.size == 0:
        old = np.zeros((0, len(corner)))
    if len(old) and old.shape[1] != len(corner):
        raise ConfigError(f"the front has {old.shape[1]} objectives, the reference {len(corner)}")
    old = old[(old < corner).all(axis=1)]
    if new.size and new.shape[1] == 2:
        return _gain_in_two(new, old, corner)
    gains = np.zeros(len(new))
    for row in range(len(new)):
        point = new[row]
        if (point < corner).all():
            shadow = np.maximum(old, point)
            lost = hypervolume(shadow, corner) if len(old) else 0.0
            gains[row] = max(0.0, float(np.prod(corner - point)) - lost)
    return gains


def _gain_in_two(new: Floats, old: Floats, corner: Floats) -> Floats:
    """The area below the staircase of ``old`` that each point of ``new`` cuts out."""
    ordered = old[np.lexsort((old[:, 1], old[:, 0]))]
    left = np.concatenate(([-math.inf], ordered[:, 0]))
    right = np.append(ordered[:, 0], corner[0])
    height = np.concatenate(([corner[1]], np.minimum.accumulate(ordered[:, 1])))
    width = np.maximum(0.0, right - np.maximum(left, new[:, :1]))
    depth = np.maximum(0.0, height - new[:, 1:])
    gains: Floats = (width * depth).sum(axis=1)
    return gains

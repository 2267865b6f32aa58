"""A sweep's description to its searches: a grid of axes, a list, or both.

search: {space: nasbench201, evaluator: {name: tabular, table: digits}, …}
axes:
  strategy:                       # label → what is laid over ``search``
    random: {strategy: random}
    evolution: {strategy: {name: regularized_evolution, population_size: 20}}
  seed: [0, 1, 2]                 # a list: the axis is the key that is set
searches:                         # beside the grid, or instead of it
  - {strategy: slow, seed: 0, set: {strategy: local_search}}
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic
import yaml

from nas.components import describe, objective_from
from nas.config import SearchConfig, build, change, checked
from nas.errors import ConfigError, NasError, nearest
from nas.objective import Objective
from nas.sweep.files import SEED, Sweep, SweepSearch
from nas.sweep.place import Place, place_from

_SET = "set"


class SweepConfig(pydantic.BaseModel):
    """What a sweep's file holds.

    Attributes:
        search: a configuration as ``nas search`` takes it; what the axes bring may be missing.
        axes: for each axis a list of values, the axis being the (dotted) key that is set; or a
            mapping of labels to configurations that are laid over ``search``.
        searches: further searches, each with a label for every axis, and ``set``, which is laid
            over ``search`` last. Labels that ``axes`` knows bring what they stand for there.
        parallel: how many searches run at a time; by default as many as the cluster holds.
        executor: where the searches run: ``ray`` (default) or ``serial``, one after the other in
            this process; or a mapping with ``nas.sweep.place.Place``'s arguments.
        reference: the reference point of the hypervolume, a value for each objective; by default
            the worst that any trial within the limits measured.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    search: dict[str, Any] = pydantic.Field(default_factory=dict)
    axes: dict[str, Any] = pydantic.Field(default_factory=dict)
    searches: list[dict[str, Any]] = pydantic.Field(default_factory=list)
    parallel: int | None = pydantic.Field(default=None, ge=1)
    executor: str | dict[str, Any] = "ray"
    reference: dict[str, float] | None = None


@dataclass(frozen=True)
class Plan:
    """A sweep that is ready to run.

    Attributes:
        parallel: how many searches run at a time; ``None``: as many as there is room for.
        reference: of the hypervolume, by metric; ``None``: the worst that was measured.
    """

    sweep: Sweep
    place: Place = field(default_factory=Place)
    parallel: int | None = None
    reference: Mapping[str, float] | None = None


def planned(document: Mapping[str, Any], name: str) -> Plan:
    """The searches that a description asks for, each checked as far as that goes without a run.

    The components of one search of each cell are built and let go: seeds change nothing that
    could be wrong.

    Args:
        document: see ``SweepConfig``.
        name: of the sweep; by habit its file's.

    Raises:
        ConfigError: an unknown key or name, a label that is there twice, a search without one
            for some axis, searches with different objectives, or a search that cannot be built
            (the message names it).
        DataError: data cannot be read or do not fit the space.
    """
    config = checked(SweepConfig, document)
    if not config.axes and not config.searches:
        raise ConfigError("a sweep needs axes, or searches: there are neither")
    axes = {axis: _points(axis, values) for axis, values in config.axes.items()}
    found: dict[str, SweepSearch] = {}
    for points in itertools.product(*axes.values()) if axes else ():
        labels = dict(zip(axes, (point.label for point in points), strict=True))
        laid = config.search
        for axis, point in zip(axes, points, strict=True):
            laid = point.over(laid, axis)
        _add(found, labels, laid)
    names = list(axes) or list(dict.fromkeys(key for one in config.searches for key in one))
    for number, one in enumerate(config.searches):
        where = f"searches[{number}]"
        _add(found, *_single(one, config.search, axes, [n for n in names if n != _SET], where))
    searches = tuple(found.values())
    sweep = Sweep(name, _labels(searches), searches, _objectives(searches))
    reference = _reference(config.reference, sweep)
    place = place_from(config.executor)
    for cell in sweep.cells().values():
        try:
            build(cell[0].config)
        except NasError as error:
            raise type(error)(f"search {cell[0].name}: {error}") from error
    return Plan(sweep, place, config.parallel, reference)


# ------------------------------------------------------------------------------- axes


@dataclass(frozen=True)
class _Point:
    """A label of an axis, and what it stands for: a key's value, or a part of a configuration."""

    label: str
    value: Any
    is_key: bool

    def over(self, config: Mapping[str, Any], axis: str) -> dict[str, Any]:
        if not self.is_key:
            return laid_over(config, self.value)
        text = _as_yaml(self.value)
        try:
            return change(dict(config), [f"{axis}={text}"])
        except ConfigError as error:
            raise ConfigError(f"axes.{axis}: {error}") from error


def _points(axis: str, values: Any) -> list[_Point]:
    if axis == _SET:
        raise ConfigError(f"axes: an axis cannot be named {_SET!r}: it has a meaning in searches")
    if isinstance(values, Mapping):
        for label, part in values.items():
            if part is not None and not isinstance(part, Mapping):
                raise ConfigError(
                    f"axes.{axis}.{label} must be a part of a configuration, got {part!r}"
                )
        points = [_Point(str(label), part or {}, False) for label, part in values.items()]
    elif isinstance(values, list):
        points = [_Point(label_of(value), value, True) for value in values]
    else:
        raise ConfigError(
            f"axes.{axis} must be a list of values, or a mapping of labels to parts of a "
            f"configuration; got {values!r}"
        )
    if not points:
        raise ConfigError(f"axes.{axis} is empty")
    labels = [point.label for point in points]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"axes.{axis}: {label!r} is there twice; a mapping gives labels of your own"
            )
    return points


def label_of(value: Any) -> str:
    """The label of a value in a list: a component's name, else its YAML."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return _as_yaml(value)


def _as_yaml(value: Any) -> str:
    """A value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("...\n").strip()


def laid_over(config: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with another over it.

    Mappings are joined key by key, but for one that has a ``name``: it is a component of its own,
    and takes the place of what was there. Where only a name was, a mapping without one gives it
    arguments. Everything else is replaced.
    """
    joined = dict(config)
    for key, value in part.items():
        before = joined.get(key)
        if isinstance(value, Mapping) and "name" not in value:
            if isinstance(before, str):
                before = {"name": before}
            if isinstance(before, Mapping):
                value = laid_over(before, value)
        joined[key] = value
    return joined


# --------------------------------------------------------------------------- searches


def _single(
    one: Mapping[str, Any],
    search: Mapping[str, Any],
    axes: Mapping[str, Sequence[_Point]],
    names: Sequence[str],
    where: str,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Labels and configuration of an entry of ``searches``."""
    for key in one:
        if key != _SET and key not in names:
            raise ConfigError(f"{where}: there is no axis {key!r}: {nearest(key, names)}")
    missing = [axis for axis in names if axis not in one]
    if missing or not names:
        raise ConfigError(f"{where} needs a label for {missing[0] if missing else 'some axis'!r}")
    part = one.get(_SET) or {}
    if not isinstance(part, Mapping):
        raise ConfigError(f"{where}.set must be a part of a configuration, got {part!r}")
    labels: dict[str, str] = {}
    for axis in names:
        labels[axis] = label_of(one[axis])
        known = {point.label: point for point in axes.get(axis, ())}
        if labels[axis] in known:
            search = known[labels[axis]].over(search, axis)
        elif axis == SEED or any(point.is_key for point in known.values()):
            search = _Point(labels[axis], one[axis], True).over(search, axis)
    return labels, laid_over(search, part)


def _add(found: dict[str, SweepSearch], labels: dict[str, str], config: Mapping[str, Any]) -> None:
    folder = "/".join(["runs", *(_file_name(label) for label in labels.values())])
    one = SweepSearch(folder, labels, yaml.safe_load(yaml.safe_dump(dict(config), sort_keys=False)))
    if folder in found:
        raise ConfigError(
            f"two searches of the sweep would write to {folder}: {found[folder].labels} and "
            f"{labels}; give them labels that differ in letters and digits"
        )
    found[folder] = one
    try:
        checked(SearchConfig, one.config)
    except ConfigError as error:
        raise ConfigError(f"search {one.name}: {error}") from error


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.+=,@%-]+", "_", label).lstrip(".")[:80] or "_"


def _labels(searches: Sequence[SweepSearch]) -> dict[str, tuple[str, ...]]:
    """The labels of each axis, in the order in which searches have them."""
    axes: dict[str, dict[str, None]] = {}
    for one in searches:
        for axis, label in one.labels.items():
            axes.setdefault(axis, {})[label] = None
    return {axis: tuple(labels) for axis, labels in axes.items()}


def _objectives(searches: Sequence[SweepSearch]) -> tuple[Mapping[str, Any], ...]:
    """What all searches are for; limits that differ are left out."""
    common: list[Objective] | None = None
    for one in searches:
        try:
            objectives = [
                objective_from(item, f"objectives[{index}]")
                for index, item in enumerate(one.config["objectives"])
            ]
        except ConfigError as error:
            raise ConfigError(f"search {one.name}: {error}") from error
        if common is None:
            common = objectives
            continue
        if [(o.metric, o.direction) for o in objectives] != [
            (o.metric, o.direction) for o in common
        ]:
            raise ConfigError(
                f"search {one.name} is for {', '.join(map(str, objectives))} and "
                f"{searches[0].name} for {', '.join(map(str, common))}: the searches of a sweep "
                "are compared, and so share their objectives (limits may differ)"
            )
        common = [
            first
            if first.limit == other.limit
            else Objective(first.metric, first.direction, weight=first.weight)
            for first, other in zip(common, objectives, strict=True)
        ]
    return tuple(describe(objective) for objective in common or ())


def _reference(given: Mapping[str, float] | None, sweep: Sweep) -> Mapping[str, float] | None:
    if given is None:
        return None
    metrics = [objective_from(one, "objectives").metric for one in sweep.objectives]
    for metric in given:
        if metric not in metrics:
            raise ConfigError(f"reference: no objective {metric!r}: {nearest(metric, metrics)}")
    for metric in metrics:
        if metric not in given:
            raise ConfigError(f"reference has no value for {metric!r}")
    return {metric: float(given[metric]) for metric in metrics}

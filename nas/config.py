"""Configuration files: YAML to the components of a run. Nothing past this knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from nas.budget import Budget
from nas.components import create, objective_from
from nas.errors import ConfigError, nearest
from nas.evaluator import Evaluator
from nas.execution import Executor
from nas.objective import check_objectives
from nas.space import SearchSpace
from nas.strategy import Strategy


class SearchConfig(pydantic.BaseModel):
    """What a configuration file holds.

    Components are a registered name, or a mapping with ``name`` and arguments. A list of
    evaluators is run stage by stage, limits being checked after each.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    space: str | dict[str, Any]
    strategy: str | dict[str, Any]
    evaluator: str | dict[str, Any] | list[str | dict[str, Any]]
    objectives: list[str | dict[str, Any]]
    budget: dict[str, Any]
    data: str | dict[str, Any] | None = None
    executor: str | dict[str, Any] = "serial"
    seed: int = pydantic.Field(default=0, ge=0)


@dataclass(frozen=True)
class Run:
    """The components of a search, ready to start."""

    strategy: Strategy
    evaluator: Evaluator
    executor: Executor
    budget: Budget

    @property
    def space(self) -> SearchSpace:
        return self.strategy.space


def read(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ``ConfigError`` where there is none."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold a mapping, got a {type(document).__name__}")
    return document


def change(document: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy with ``key.key=value`` settings applied; values are YAML.

    A component written as a bare name takes arguments all the same, and a part of a list is
    addressed by its position or by its ``name``: ``evaluator.training.epochs=5``.
    """
    changed = yaml.safe_load(yaml.safe_dump(document, sort_keys=False))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, as in seed=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value is not YAML: {error}") from error
        _set(changed, path.split("."), value, setting)
    return dict(changed)


def _set(node: Any, keys: list[str], value: Any, setting: str) -> None:
    key = keys[0]
    place: Any = key
    if isinstance(node, list):
        known = [item if isinstance(item, str) else item.get("name") for item in node]
        if key.isdigit() and int(key) < len(node):
            place = int(key)
        elif key in known:
            place = known.index(key)
        else:
            raise ConfigError(f"--set {setting}: there is no {key!r}: {nearest(key, known)}")
    if len(keys) == 1:
        node[place] = value
        return
    child = node[place] if isinstance(node, list) else node.get(place)
    if child is None:
        child = {}
    elif isinstance(child, str):
        child = {"name": child}
    elif not isinstance(child, dict | list):
        raise ConfigError(f"--set {setting}: {key!r} is {child!r} and holds nothing")
    node[place] = child
    _set(child, keys[1:], value, setting)


def build(document: Mapping[str, Any]) -> Run:
    """The run a configuration describes.

    Raises:
        ConfigError: an unknown key or name (the nearest valid one is named), a value of the
            wrong type or outside its range.
        DataError: the data cannot be read or do not fit the space.
    """
    config = checked(SearchConfig, document)
    data = None if config.data is None else create("datasets", config.data, "data")
    space = _space(config.space, data)
    objectives = check_objectives(
        [objective_from(item, f"objectives[{i}]") for i, item in enumerate(config.objectives)]
    )
    given: dict[str, Any] = {"space": space, "objectives": objectives, "seed": config.seed}
    if data is not None:
        given["data"] = data
    evaluator = create("evaluators", _staged(config.evaluator), "evaluator", given)
    try:
        check_objectives(objectives, evaluator.metrics)
    except ConfigError as error:
        raise ConfigError(f"objectives: {error}") from error
    return Run(
        strategy=create("strategies", config.strategy, "strategy", given),
        evaluator=evaluator,
        executor=create("executors", config.executor, "executor"),
        budget=_budget(config.budget),
    )


def from_header(
    header: Mapping[str, Any], executor: Any = None, budget: Mapping[str, Any] | None = None
) -> Run:
    """The run a journal's header describes, to be continued; budget and executor may change."""
    return Run(
        strategy=create("strategies", header["strategy"], "strategy"),
        evaluator=create("evaluators", header["evaluator"], "evaluator"),
        executor=create("executors", executor or header["executor"], "executor"),
        budget=_budget({**header["budget"], **(budget or {})}),
    )


def space_from_header(header: Mapping[str, Any]) -> SearchSpace:
    """The space of the run a journal's header describes."""
    # Found at any depth: a fidelity layer's description holds the strategy that has the space.
    space: SearchSpace = create("spaces", find(header["strategy"], "space"), "space")
    return space


def data_from_header(header: Mapping[str, Any]) -> Any:
    """The data set that run trains on; raises ``ConfigError`` if it trains on none."""
    description = find(header["evaluator"], "data")
    if description is None:
        raise ConfigError("this run's evaluator trains on no data set")
    return create("datasets", description, "data")


def find(node: Any, key: str) -> Any:
    """The first value of a key at any depth of a described run, or ``None``."""
    if isinstance(node, Mapping):
        if key in node:
            return node[key]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            found = find(child, key)
            if found is not None:
                return found
    return None


Model = TypeVar("Model", bound=pydantic.BaseModel)


def checked(model: type[Model], document: Mapping[str, Any]) -> Model:
    """A configuration as a model; ``ConfigError`` naming the key, and the nearest there is."""
    known = list(model.model_fields)
    for key in document:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {nearest(key, known)}")
    try:
        return model.model_validate(dict(document))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = str(first["loc"][0])
        if first["type"] == "missing":
            raise ConfigError(f"{place!r} is missing from the configuration") from error
        raise ConfigError(f"{place}: {first['msg']}, got {first['input']!r}") from error


def _space(description: Any, data: Any) -> SearchSpace:
    """The space; input and classes are the data's where the configuration does not say."""
    given: dict[str, Any] = {}
    if data is not None:
        given = {"input": data.input, "classes": data.classes}
    space: SearchSpace = create("spaces", description, "space", given)
    return space


def _staged(description: Any) -> Any:
    if isinstance(description, list):
        if not description:
            raise ConfigError("evaluator: the list is empty")
        return (
            description[0] if len(description) == 1 else {"name": "staged", "stages": description}
        )
    return description


def _budget(document: Mapping[str, Any]) -> Budget:
    known = [field.name for field in fields(Budget)]
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"budget: unknown key {key!r}: {nearest(key, known)}")
        whole = key == "trials"
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int if whole else int | float)
        ):
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"budget.{key} must be {kind}, got {value!r}")
    return Budget(**document)

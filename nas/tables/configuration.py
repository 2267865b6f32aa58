"""What a configuration file says of a table that is to be made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from nas.components import create
from nas.config import checked
from nas.data import Data
from nas.space import SearchSpace
from nas.tables.making import Part, timing, training


class TableConfig(pydantic.BaseModel):
    """What the file holds; components are a registered name, or a mapping with ``name``.

    Attributes:
        training: arguments of ``nas.tables.making.LearningCurves``.
        runs: how often each architecture is trained; the seeds count on from ``seed``.
        latency: arguments of ``nas.tables.making.Latency``, and ``rounds``.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    space: str | dict[str, Any]
    data: str | dict[str, Any]
    training: dict[str, Any] = pydantic.Field(default_factory=dict)
    runs: int = pydantic.Field(default=3, ge=1)
    seed: int = pydantic.Field(default=0, ge=0)
    latency: dict[str, Any] = pydantic.Field(default_factory=dict)
    executor: str | dict[str, Any] = "serial"


def parts(document: Mapping[str, Any], folder: Path) -> tuple[Part, Part]:
    """The trainings and the timings that a configuration asks for.

    Raises:
        ConfigError: an unknown key or name (the nearest valid one is named), a value of the
            wrong type or out of range.
        DataError: the data cannot be read or do not fit the space.
    """
    config = checked(TableConfig, document)
    data: Data = create("datasets", config.data, "data")
    shape = {"input": data.input, "classes": data.classes}
    space: SearchSpace = create("spaces", config.space, "space", shape)
    given = {"space": space, "data": data}
    making = "nas.tables.making"
    rounds = {key: value for key, value in config.latency.items() if key == "rounds"}
    runs = {key: value for key, value in config.latency.items() if key != "rounds"}
    curves = create(
        "evaluators", {**config.training, "name": f"{making}:LearningCurves"}, "training", given
    )
    latency = create("evaluators", {**runs, "name": f"{making}:Latency"}, "latency", given)
    return training(folder, curves, config.runs, config.seed), timing(folder, latency, **rounds)

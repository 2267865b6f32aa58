"""Where a sweep's searches run: on a Ray cluster, or one after the other in this process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from nas.errors import ConfigError, nearest

Kind = Literal["ray", "serial"]
Code = Literal["auto", "none"]


@dataclass(frozen=True)
class Place:
    """Where the searches of a sweep run.

    Attributes:
        name: ``ray``; or ``serial``, one after the other in this process.
        address: of a Ray cluster, as ``ray.init`` takes it; else ``RAY_ADDRESS`` is looked at,
            and where there is neither a cluster on this machine is started.
        cpus: CPU cores for each search whose own executor is serial.
        gpus: GPUs for each of those; a fraction shares one.
        retries: how often in a row a search whose process died is gone on with, without a trial
            having been finished in between.
        code: whether the machines of an address are sent what is not installed: ``auto`` or
            ``none``.

    Raises:
        ConfigError: an unknown name, or a number out of range.
    """

    name: Kind = "ray"
    address: str | None = None
    cpus: float = 1
    gpus: float = 0
    retries: int = 3
    code: Code = "auto"

    def __post_init__(self) -> None:
        if self.name not in get_args(Kind):
            known = nearest(self.name, get_args(Kind))
            raise ConfigError(f"a sweep runs nowhere named {self.name!r}: {known}")
        if self.code not in get_args(Code):
            raise ConfigError(f"code: {nearest(self.code, get_args(Code))}; got {self.code!r}")
        if self.address is not None and not isinstance(self.address, str):
            raise ConfigError(f"address must be a text, got {self.address!r}")
        if self.address is not None and self.name == "serial":
            raise ConfigError(
                f"address {self.address} is of a Ray cluster, and this sweep runs one search "
                "after the other in this process: set its executor to ray"
            )
        for key in ("cpus", "gpus", "retries"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{key} must be a number, got {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{key} must be zero or more, got {value}")
        if self.cpus == self.gpus == 0:
            raise ConfigError("a search needs cpus or gpus above zero, got 0 of both")
        if self.retries != int(self.retries):
            raise ConfigError(f"retries must be a whole number, got {self.retries}")


def place_from(description: str | Mapping[str, Any]) -> Place:
    """The place that ``executor`` of a sweep's file means; raises ``ConfigError``."""
    if isinstance(description, str):
        description = {"name": description}
    known = [field.name for field in fields(Place)]
    for key in description:
        if key not in known:
            raise ConfigError(f"executor: unknown key {key!r}: {nearest(key, known)}")
    try:
        return Place(**description)
    except ConfigError as error:
        raise ConfigError(f"executor: {error}") from error

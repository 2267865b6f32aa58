"""Energy of one inference, from figures that the user gives.

Figures of one of two kinds, in a JSON file:

* what arithmetic and memory cost: ``mac_pj``, picojoules of a multiply-accumulate (a number, or
  one for each kind of layer: ``{"depthwise": 2.0, "Linear": 1.0, "default": 1.0}``), and
  ``sram_byte_pj`` and ``dram_byte_pj`` of a byte moved. Weights come from DRAM once; what a layer
  with multiply-accumulates puts out is written to SRAM and read once. ``value_bytes`` is the size
  of a number (4, or 1 for 8 bits). Norms, activations and pools are taken to be fused.
* what was measured: ``operations``, millijoules by the keys of ``nas latency``'s operations.

``fixed_mj`` is added to either. Nothing is measured here: it is as good as its figures.
``HOROWITZ_45NM`` has those of M. Horowitz, "Computing's energy problem", ISSCC 2014, for 45 nm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from nas.architecture import Architecture
from nas.cost.architecture import architecture_breakdown, architecture_cost
from nas.cost.breakdown import LayerCost
from nas.errors import ConfigError, DataError, UnsupportedRequest, nearest
from nas.space import SearchSpace

DEFAULT = "default"
DEPTHWISE = "depthwise"
"""The kind of a convolution with as many groups as output channels, whatever its class."""

_PJ_IN_MJ = 1e-9


@dataclass(frozen=True)
class EnergyFigures:
    """What a user knows of a device; see the module."""

    mac_pj: float | Mapping[str, float] = 0.0
    sram_byte_pj: float = 0.0
    dram_byte_pj: float = 0.0
    value_bytes: int = 4
    fixed_mj: float = 0.0
    operations: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        macs = self.mac_pj if isinstance(self.mac_pj, Mapping) else {DEFAULT: self.mac_pj}
        named = {f"mac_pj[{kind}]": value for kind, value in macs.items()}
        named |= {
            name: getattr(self, name) for name in ("sram_byte_pj", "dram_byte_pj", "fixed_mj")
        }
        named |= {f"operations[{key}]": value for key, value in self.operations.items()}
        for name, value in named.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise ConfigError(f"energy: {name} must be a number, 0 or more, got {value!r}")
        if isinstance(self.mac_pj, Mapping) and DEFAULT not in self.mac_pj:
            raise ConfigError(
                f"energy: mac_pj by kind of layer needs {DEFAULT!r}, for all other kinds; it has "
                f"{', '.join(self.mac_pj)}"
            )
        if self.value_bytes not in (1, 2, 4):
            raise ConfigError(f"energy: value_bytes must be 1, 2 or 4, got {self.value_bytes!r}")
        by_layer = any(macs.values()) or self.sram_byte_pj or self.dram_byte_pj
        if bool(by_layer) == bool(self.operations):
            raise ConfigError(
                "energy: expected figures of arithmetic and memory (mac_pj, sram_byte_pj, "
                "dram_byte_pj), or measured operations; "
                + ("got both, which would count twice" if by_layer else "got neither")
            )


HOROWITZ_45NM = EnergyFigures(mac_pj=4.6, sram_byte_pj=1.25, dram_byte_pj=162.5)
"""32-bit floats: a product 3.7 pJ and a sum 0.9 pJ; 8 bytes of an 8 kB SRAM 10 pJ, of DRAM at
least 1.3 nJ."""


def read_figures(path: str | Path) -> EnergyFigures:
    """The figures in a JSON file.

    Raises:
        DataError: there is no such file, or it is not JSON.
        ConfigError: a figure that is not known, or out of range.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged, or no JSON: {error}") from error
    known = [one.name for one in fields(EnergyFigures)]
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold an object with some of {', '.join(known)}")
    for name in document:
        if name not in known:
            raise ConfigError(f"{path} has {name!r}: {nearest(name, known)}")
    if not isinstance(document.get("operations", {}), dict):
        raise ConfigError(f"{path}: operations must map keys to mJ")
    try:
        return EnergyFigures(**document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def energy_mj(space: SearchSpace, arch: Architecture, figures: EnergyFigures) -> float:
    """Millijoules of one inference of one example.

    Raises:
        InvalidArchitecture: ``arch`` is not one of ``space``.
        UnsupportedRequest: measured operations lack one of its; the message names them.
    """
    if figures.operations:
        return figures.fixed_mj + _of_operations(space, arch, figures.operations)
    cost = architecture_cost(space, arch)
    layers = [row for row in architecture_breakdown(space, arch) if row.own_macs]
    arithmetic = sum(row.own_macs * _mac_pj(row, figures.mac_pj) for row in layers)
    # ``weight_bytes`` counts 4 for each number.
    weights = cost.weight_bytes / 4 * figures.value_bytes
    moved = 2 * sum(math.prod(row.output) for row in layers) * figures.value_bytes
    picojoules = arithmetic + weights * figures.dram_byte_pj + moved * figures.sram_byte_pj
    return figures.fixed_mj + _PJ_IN_MJ * picojoules


def _mac_pj(row: LayerCost, given: float | Mapping[str, float]) -> float:
    if not isinstance(given, Mapping):
        return given
    kind = row.type.partition("(")[0]
    if (
        len(row.output) > 1
        and kind.startswith("Conv")
        and f"groups={row.output[1]}" in row.type.rstrip(")").split(", ")
    ):
        kind = DEPTHWISE if DEPTHWISE in given else kind
    return given.get(kind, given[DEFAULT])


def _of_operations(
    space: SearchSpace, arch: Architecture, operations: Mapping[str, float]
) -> float:
    from nas.latency.units import units

    found = units(space, arch)
    missing = list(dict.fromkeys(one.key for one in found if one.key not in operations))
    if missing:
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UnsupportedRequest(
            f"the energy figures lack {len(missing)} operations of {arch}: "
            f"{'; '.join(missing[:3])}{more}. Measure them and add them by these keys"
        )
    return sum(operations[one.key] for one in found)

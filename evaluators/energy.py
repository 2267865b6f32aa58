"""Energy of an inference by figures that the user gives: ``nas.cost.energy`` as an evaluator.

Energy as arithmetic plus data moved is the model of Yang, Chen & Sze, "Designing Energy-Efficient
Convolutional Neural Networks Using Energy-Aware Pruning", CVPR 2017. What differs: they model the
levels of memory between chip and arithmetic; here a byte is either on the chip or not, and figures
measured by operation may take the place of the model.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.architecture import Architecture
from nas.cost.energy import HOROWITZ_45NM, energy_mj, read_figures
from nas.objective import Metric
from nas.space import SearchSpace
from nas.trial import Fidelity, Measured, Proposal


class EnergyEvaluator:
    """Millijoules of one inference, ``energy_mj`` (minimised); nothing is trained or measured.

    Args:
        table: a JSON file of figures; those of a 45 nm chip and 32-bit floats if not given.

    Raises:
        DataError: there is no such file, or it is not JSON.
        ConfigError: a figure that is not known, or out of range.
    """

    metrics = (Metric("energy_mj", "mJ", "minimize"),)

    def __init__(self, space: SearchSpace, table: str | None = None) -> None:
        self.space = space
        self.table = table
        self._figures = HOROWITZ_45NM if table is None else read_figures(table)

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        return {"energy_mj": energy_mj(self.space, arch, self._figures)}

    def evaluate(self, proposal: Proposal) -> Measured:
        return Measured(self.preview(proposal.arch))

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

"""What a Q-learner is rewarded with: how a reward falls on the steps, and BlockQNN's correction.

Zhong, Yan, Wu, Shao & Liu, "Practical Block-wise Neural Network Architecture Generation"
(BlockQNN), CVPR 2018, for the shaped reward and for accuracy less the logarithms of FLOPs and
density.

What differs from the paper: every step has the T-th part of the reward, the last one too, so that
they sum to it; as the paper writes it the last step has the whole besides. FLOPs are
multiply-accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nas.architecture import Architecture
from nas.encoding.graphs import CellGraph, HasGraphs
from nas.errors import UnsupportedRequest
from nas.space import SearchSpace


def final(reward: float, steps: int) -> list[float]:
    """Nothing until the last step, which has all of it: MetaQNN's."""
    return [0.0] * (steps - 1) + [reward]


def spread(reward: float, steps: int) -> list[float]:
    """An equal part for every step: BlockQNN's shaping."""
    return [reward / steps] * steps


SHAPES: Mapping[str, Callable[[float, int], list[float]]] = {"final": final, "spread": spread}
"""By name: from the reward of an architecture and its number of picks, those of its steps."""


def density(graphs: Mapping[str, CellGraph]) -> float:
    """Links by vertices, of all cells together.

    What is ``"none"`` is neither a vertex nor has links. A cell without links counts one, so that
    the logarithm is finite.
    """
    links = vertices = 0
    for graph in graphs.values():
        there = [operation != "none" for operation in graph.operations]
        vertices += sum(there)
        links += max(1, sum(there[source] and there[target] for source, target in graph.links))
    return links / vertices


def check_density(space: SearchSpace) -> HasGraphs:
    """The space, if its architectures have a density.

    Raises:
        UnsupportedRequest: it is not made of cells.
    """
    if not isinstance(space, HasGraphs):
        raise UnsupportedRequest(
            f"{space.name!r} is not made of cells (it has no graphs), so its architectures have no "
            "density: set density_weight to 0"
        )
    return space


def density_of(space: SearchSpace, arch: Architecture) -> float:
    """The density of an architecture's cells; raises as ``check_density``."""
    return density(check_density(space).graphs(arch))


def macs_of(space: SearchSpace, arch: Architecture, values: Mapping[str, float]) -> float:
    """Multiply-accumulates: those measured where there are, else of the stand-alone network."""
    if "macs" in values:
        return values["macs"]
    from nas.cost import parameters_and_macs  # here, because it needs torch

    return float(parameters_and_macs(space, arch)[1])


def corrected(
    accuracy: float, flops: float, density: float, flops_weight: float, density_weight: float
) -> float:
    """BlockQNN's reward: accuracy − μ log(FLOPs) − ρ log(density), natural logarithms.

    Fewer than one FLOP are one.
    """
    return accuracy - flops_weight * math.log(max(flops, 1.0)) - density_weight * math.log(density)

"""PC-DARTS: DARTS on a part of the channels, with weights of edges beside those of operations.

Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search",
ICLR 2020. Of each edge 1/K of the channels go through the mixture and the rest past it; the
channels are then shuffled. A softmax over the edges into a node weighs each of them (edge
normalisation). An operation's strength is the product of both and ``none`` is never taken, as in
the official code: past the operations most of a state flows on whatever they do, so ``none`` costs
the supernet little where it would cut a network in two.

What differs from the paper: any space whose slots are edges and whose operations can be made for
fewer channels is searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nas.supernet import EdgeGate, Gates, Supernet, nodes, partial_channels, search_form
from strategies.differentiable import DifferentiableStrategy
from strategies.gradient import GradientSearch, GradientSettings
from strategies.relaxation import OptionRelaxation

SETTINGS = GradientSettings(
    batch_size=256, weight_lr=0.1, weight_lr_min=0.0, arch_lr=6e-4, warmup_epochs=15
)
"""The paper's."""

EDGES = "edges into "
"""Before a node's name: the label of its edges' parameters."""

NONE = "none"
"""The operation that is no connection."""


class EdgeRelaxation:
    """A softmax over the options of every edge, and one over the edges into every node."""

    def __init__(self, scale: float = 1e-3) -> None:
        self.scale = scale
        self._options = OptionRelaxation(scale=scale)
        self._none: dict[str, int] = {}

    def parameters(self, supernet: Supernet) -> dict[str, nn.Parameter]:
        options = self._options.parameters(supernet)
        self._none = {
            label: names.index(NONE)
            for label, names in supernet.open_gates().items()
            if NONE in names
        }
        edges = {
            EDGES + node: nn.Parameter(self.scale * torch.randn(len(labels)))
            for node, labels in nodes(options, f"PC-DARTS on {supernet.space.name!r}").items()
        }
        return options | edges

    def gates(self, parameters: Mapping[str, torch.Tensor], progress: float) -> Gates:
        options = {k: v for k, v in parameters.items() if not k.startswith(EDGES)}
        gates: dict[str, EdgeGate] = {}
        for node, labels in nodes(options, "PC-DARTS").items():
            weights = parameters[EDGES + node].softmax(0)
            for label, weight in zip(labels, weights.unbind(), strict=True):
                gates[label] = EdgeGate(options[label].softmax(0), weight)
        return gates

    def mean_gates(self, parameters: Mapping[str, torch.Tensor]) -> Gates:
        return self.gates(parameters, 1.0)

    def loss(
        self, loss: torch.Tensor, parameters: Mapping[str, torch.Tensor], progress: float
    ) -> torch.Tensor:
        return loss

    def weights(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        with torch.no_grad():
            gates = self.gates(parameters, 1.0)
        strengths = {
            label: (gate.weight * gate.gate).tolist()
            for label, gate in gates.items()
            if isinstance(gate, EdgeGate) and isinstance(gate.gate, torch.Tensor)
        }
        for label, position in self._none.items():
            strengths[label][position] = 0.0
        return strengths


@dataclass(eq=False, repr=False)
class PcDarts(DifferentiableStrategy):
    """PC-DARTS: partial channels and edge normalisation; first order.

    Args:
        parts: K, of which one part of the channels goes through the operations.
    """

    settings: GradientSettings = SETTINGS
    parts: int = 4

    def search(self) -> GradientSearch:
        form = search_form(self.space, partial_channels(self.parts))
        return self.gradient_search(EdgeRelaxation(), form=form)

"""Guards against the collapse of differentiable searches into skip connections.

Three, each of which can be put around any of the strategies:

- a limit on the skip connections of what is proposed (Chen et al., P-DARTS, ICCV 2019): while
  there are too many, the weakest of them gives way to the next best;
- an early stop when skip connections become too many (Liang et al., DARTS+, 2019);
- an early stop when the dominant eigenvalue of the Hessian of the validation loss with respect
  to the architecture parameters grows (Zela et al., "Understanding and Robustifying
  Differentiable Architecture Search", ICLR 2020): by ``growth`` from the mean of a window of
  epochs to the mean of the window ``delta`` epochs later. The architecture is then that of
  before it grew.

The Hessian is that at the mean gates, on one fixed batch, with batch statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn import functional as F

from nas.architecture import Architecture
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.space import SearchSpace
from nas.supernet import Gates, discretize
from strategies.gradient import GradientSearch

ITERATIONS = 30
SETTLED = 1e-4
"""The power method ends after so many products, or when its value changes by less than this."""


@dataclass(frozen=True)
class Guards:
    """Which guards there are; all off by default. The other defaults are those of the papers.

    Attributes:
        max_skips: skip connections that what is proposed may have.
        stop_skips: the search stops when it would propose so many; 2 in DARTS+.
        skip: the option that is a skip connection.
        cell: skip connections are counted in slots whose label begins so; ``"normal/"`` in the
            papers. Where it is empty, what lies before the ``/`` of a label is a cell, and each
            cell is held to the limit by itself.
        growth: the search stops when the eigenvalue grows by this factor; 1.3 in the paper.
        window, delta: epochs that are averaged over, and epochs between two averages.
        start: epoch before which the eigenvalue stops nothing.
    """

    max_skips: int | None = None
    stop_skips: int | None = None
    skip: str = "skip_connect"
    cell: str = ""
    growth: float | None = None
    window: int = 5
    delta: int = 4
    start: int = 10

    def __post_init__(self) -> None:
        if self.max_skips is not None and self.max_skips < 0:
            raise ConfigError(f"guards: max_skips must be 0 or more, got {self.max_skips}")
        if self.stop_skips is not None and self.stop_skips < 1:
            raise ConfigError(f"guards: stop_skips must be at least 1, got {self.stop_skips}")
        if self.growth is not None and not (math.isfinite(self.growth) and self.growth > 1):
            raise ConfigError(f"guards: growth must be above 1, got {self.growth}")
        for name, least in (("window", 1), ("delta", 1), ("start", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"guards: {name} must be at least {least}, got {getattr(self, name)}"
                )

    @property
    def count_skips(self) -> bool:
        return self.max_skips is not None or self.stop_skips is not None


@runtime_checkable
class HasMeanGates(Protocol):
    """A relaxation that knows the gates it stands for on average, without drawing any."""

    def mean_gates(self, parameters: Mapping[str, torch.Tensor]) -> Gates: ...


# ------------------------------------------------------------------------ skip connections


def skips(space: SearchSpace, arch: Architecture, guards: Guards) -> dict[str, list[str]]:
    """The slots that hold a skip connection, by cell."""
    found: dict[str, list[str]] = {}
    for label, option in space.slots(arch).items():
        if option == guards.skip and label.startswith(guards.cell):
            cell = guards.cell or (label.partition("/")[0] if "/" in label else "")
            found.setdefault(cell, []).append(label)
    return found


def most_skips(space: SearchSpace, arch: Architecture, guards: Guards) -> int:
    """How many skip connections the cell with the most of them has."""
    return max((len(labels) for labels in skips(space, arch, guards).values()), default=0)


def limit_skips(
    space: SearchSpace,
    weights: Mapping[str, Sequence[float]],
    slots: Mapping[str, Sequence[str]],
    guards: Guards,
) -> Architecture:
    """The architecture of these weights with no more skip connections a cell than allowed.

    Raises:
        UnsupportedRequest: what remains of the options does not do with fewer.
    """
    arch = discretize(space, weights)
    if guards.max_skips is None:
        return arch
    left = {label: list(values) for label, values in weights.items()}
    while most_skips(space, arch, guards) > guards.max_skips:
        for labels in skips(space, arch, guards).values():
            if len(labels) > guards.max_skips:
                position = {label: slots[label].index(guards.skip) for label in labels}
                weakest = min(labels, key=lambda label: left[label][position[label]])
                if left[weakest][position[weakest]] == -math.inf:
                    raise UnsupportedRequest(
                        f"{space.name!r}: a cell cannot do with {guards.max_skips} "
                        f"{guards.skip!r}: {weakest!r} has nothing else"
                    )
                left[weakest][position[weakest]] = -math.inf
        arch = discretize(space, left)
    return arch


# ---------------------------------------------------------------------------- eigenvalues


def dominant_eigenvalue(search: GradientSearch) -> float:
    """The largest eigenvalue of the Hessian of the validation loss in the architecture parameters.

    By the power method on exact Hessian-vector products; where the eigenvalue of the largest
    magnitude is negative, again with the spectrum shifted by it. The search is left as it was but
    for its account of examples.

    Raises:
        UnsupportedRequest: the relaxation does not know its mean gates.
    """
    if not isinstance(search.relaxation, HasMeanGates):
        raise UnsupportedRequest(
            f"{type(search.relaxation).__name__} has no mean_gates, at which the Hessian would be"
        )
    parameters = list(search.parameters.values())
    buffers = [(buffer, buffer.clone()) for buffer in search.supernet.buffers()]
    try:
        with search.frozen_weights():
            batch = search.validation_batch()
            gates = search.relaxation.mean_gates(search.parameters)
            loss = F.cross_entropy(search.supernet(batch.images, gates), batch.labels)
            gradient = flat(
                torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True),
                parameters,
            )

            def product(vector: torch.Tensor) -> torch.Tensor:
                search.examples += len(batch.labels)
                found = torch.autograd.grad(
                    gradient, parameters, vector, retain_graph=True, allow_unused=True
                )
                return flat(found, parameters)

            largest = _power(product, gradient)
            if largest >= 0:
                return largest
            shift = -largest
            return _power(lambda vector: product(vector) + shift * vector, gradient) - shift
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _power(product: Any, like: torch.Tensor) -> float:
    # A fixed start: the search draws no random numbers for being watched.
    vector = torch.cos(torch.arange(1, len(like) + 1, device=like.device)).to(like)
    value = math.inf
    for _ in range(ITERATIONS):
        vector = vector / vector.norm().clamp_min(1e-30)
        after = product(vector)
        before, value = value, float(vector @ after)
        if abs(value - before) <= SETTLED * abs(value):
            break
        vector = after
    return value


def flat(
    gradients: Sequence[torch.Tensor | None], parameters: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Gradients as one vector, zero where there are none."""
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
            for gradient, parameter in zip(gradients, parameters, strict=True)
        ]
    )


# -------------------------------------------------------------------------------- stopping


class Watch:
    """What the guards saw, epoch by epoch, and whether they stopped the search.

    Attributes:
        stopped: why; empty while the search goes on.
        kept: the epoch, from 1, whose architecture is the last to be proposed.
    """

    def __init__(self, guards: Guards, space: SearchSpace, slots: Mapping[str, Sequence[str]]):
        if guards.count_skips:
            counted = {label: os for label, os in slots.items() if label.startswith(guards.cell)}
            options = {option for os in counted.values() for option in os}
            if guards.skip not in options:
                raise ConfigError(
                    f"guards: no slot of {space.name!r} that begins with {guards.cell!r} has the "
                    f"option {guards.skip!r}: {nearest(guards.skip, sorted(options))}"
                )
        self.guards = guards
        self.space = space
        self.skips: list[int] = []
        self.eigenvalues: list[float] = []
        self.stopped = ""
        self.kept = 0

    def look(self, search: GradientSearch) -> None:
        """Takes in the epoch that has just ended."""
        epoch = search.epoch
        self.kept = epoch
        warming_up = epoch <= search.settings.warmup_epochs
        if self.guards.stop_skips is not None:
            found = most_skips(self.space, search.architecture(), self.guards)
            self.skips.append(found)
            if found >= self.guards.stop_skips and not warming_up:
                self.stopped = (
                    f"epoch {epoch}: a cell has {found} {self.guards.skip!r}, stop_skips is "
                    f"{self.guards.stop_skips}"
                )
                self.kept = max(1, epoch - 1)
        if self.guards.growth is not None and not self.stopped:
            self.eigenvalues.append(0.0 if warming_up else dominant_eigenvalue(search))
            grown = self._growth(search.settings.warmup_epochs)
            if epoch > self.guards.start and grown is not None and grown > self.guards.growth:
                self.stopped = (
                    f"epoch {epoch}: the dominant eigenvalue grew by {grown:.3f} in "
                    f"{self.guards.delta} epochs, growth is {self.guards.growth}"
                )
                self.kept = epoch - self.guards.delta

    def _growth(self, warmup: int) -> float | None:
        """The mean of the last window over that of the window before, where both are there."""
        window, delta = self.guards.window, self.guards.delta
        seen = self.eigenvalues[warmup:]
        if len(seen) < window + delta:
            return None
        now = sum(seen[-window:]) / window
        before = sum(seen[-window - delta : -delta]) / window
        return now / before if before > 0 else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "skips": list(self.skips),
            "eigenvalues": list(self.eigenvalues),
            "stopped": self.stopped,
            "kept": self.kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.skips = [int(value) for value in state["skips"]]
        self.eigenvalues = [float(value) for value in state["eigenvalues"]]
        self.stopped = str(state["stopped"])
        self.kept = int(state["kept"])

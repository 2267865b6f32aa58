"""A fitted surrogate as an evaluator: what training would have found, in milliseconds.

Alone it stands for the training in a search; before a training stage it is what a limit is
decided by beforehand. How sure it is is measured too, and said in the trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from nas.architecture import Architecture
from nas.errors import ConfigError
from nas.objective import Metric
from nas.predictor import Judgement, load_surrogate
from nas.space import SearchSpace
from nas.trial import Fidelity, Measured, Proposal


class Surrogate:
    """Predicts a metric of an architecture, and the deviation of a measurement from that.

    Metrics, of a surrogate of ``accuracy``: ``predicted_accuracy``, with the unit and direction of
    what is predicted, and ``predicted_accuracy_std``, minimised. A stage that trains measures
    ``accuracy`` beside them.

    The trial's note of the first metric's name holds the interval of 95 %, how far from the
    fitted architectures this one is, which of its options none of them has, and whether that is
    extrapolation; the deviation is widened where it is (``nas.predictor.Judgement``).

    Args:
        space: the space that the surrogate was fitted on, with the same arguments.
        surrogate: a file of ``nas surrogate fit`` or ``nas.predictor.save_surrogate``.
        prefix: of the metrics' names; empty where the surrogate stands for the training and the
            objectives are those of a training.

    Raises:
        ConfigError: there is no such file, or it is a surrogate of another space.
        DataError: the file is damaged, or of another version.
    """

    def __init__(self, space: SearchSpace, surrogate: str, prefix: str = "predicted_") -> None:
        if not isinstance(prefix, str):
            raise ConfigError(f"prefix must be text, got {prefix!r}")
        self.space = space
        self.surrogate = str(surrogate)
        self.prefix = prefix
        self._fitted = load_surrogate(self.surrogate, space)
        predicted = self._fitted.metric
        self._name = prefix + predicted.name
        self.metrics = (
            Metric(self._name, predicted.unit, predicted.direction),
            Metric(f"{self._name}_std", predicted.unit, "minimize"),
        )

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        return self._values(self._fitted.judge([arch])[0])

    def evaluate(self, proposal: Proposal) -> Measured:
        """Predicts; whatever the fidelity asked for, the value is that of what was fitted.

        Raises:
            InvalidArchitecture: it is not one of the space.
        """
        judged = self._fitted.judge([proposal.arch])[0]
        said = asdict(judged)
        notes = {key: said[key] for key in ("low", "high", "distance", "extrapolates")}
        notes["unseen"] = list(judged.unseen)
        return Measured(self._values(judged), notes={self._name: notes})

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

    def _values(self, judged: Judgement) -> dict[str, float]:
        return {self._name: judged.mean, f"{self._name}_std": judged.std}

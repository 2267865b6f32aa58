"""Surrogate models: what is an architecture worth, judged by those that were measured.

Model-based strategies and surrogate evaluators share them. All have two methods
(``Predictor``) and give a mean and a standard deviation:

* ``BayesianRidge``: a linear model whose features come in blocks; the marginal likelihood sets
  the share of each block and the noise. Takes one more row at a time.
* ``GaussianProcess``: kernels on picks (Hamming) or on any features (squared exponential).
* ``Bagged``: ridges on bootstrap samples.
* ``MlpEnsemble`` and ``SequenceEnsemble``: networks; they need torch.

``Inputs`` makes rows of numbers out of architectures, ``normal_scores`` targets of measurements.
"""

from typing import TYPE_CHECKING, Any

from nas.predictor.bagged import Bagged as Bagged
from nas.predictor.gaussian import GaussianProcess as GaussianProcess
from nas.predictor.inputs import Inputs as Inputs
from nas.predictor.protocol import Prediction as Prediction
from nas.predictor.protocol import Predictor as Predictor
from nas.predictor.ridge import BayesianRidge as BayesianRidge
from nas.predictor.targets import NormalScores as NormalScores
from nas.predictor.targets import normal_scores as normal_scores
from nas.predictor.targets import rank_correlation as rank_correlation

if TYPE_CHECKING:
    from nas.predictor.networks import MlpEnsemble as MlpEnsemble
    from nas.predictor.networks import SequenceEnsemble as SequenceEnsemble


def __getattr__(name: str) -> Any:
    """The models made of torch are imported when they are asked for."""
    if name in ("MlpEnsemble", "SequenceEnsemble"):
        from nas.predictor import networks

        return getattr(networks, name)
    raise AttributeError(f"module 'nas.predictor' has no attribute {name!r}")

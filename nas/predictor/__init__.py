"""Surrogate models: what is an architecture worth, judged by those that were measured.

Model-based strategies and surrogate evaluators share them. All have two methods
(``Predictor``) and give a mean and a standard deviation:

* ``BayesianRidge``: a linear model whose features come in blocks; the marginal likelihood sets
  the share of each block and the noise. Takes one more row at a time.
* ``GaussianProcess``: kernels on picks (Hamming) or on any features (squared exponential).
* ``Bagged``: ridges on bootstrap samples.
* ``RandomForest`` and ``GradientBoosting``: scikit-learn's trees, kept as arrays.
* ``MlpEnsemble``, ``SequenceEnsemble`` and ``GraphEnsemble``: networks; they need torch.

``Inputs`` and ``GraphInputs`` make rows of numbers out of architectures, ``normal_scores``
targets of measurements. ``nas.predictor.models`` names models with the rows they read.

``fit_surrogate`` makes a ``FittedSurrogate`` of measurements (``from_history``, ``from_table``,
``from_pairs``), cross-validated; ``save_surrogate`` and ``load_surrogate`` put it into a file.
"""

from typing import TYPE_CHECKING, Any

from nas.predictor.bagged import Bagged as Bagged
from nas.predictor.files import load_surrogate as load_surrogate
from nas.predictor.files import save_surrogate as save_surrogate
from nas.predictor.gaussian import GaussianProcess as GaussianProcess
from nas.predictor.graph_inputs import GraphInputs as GraphInputs
from nas.predictor.inputs import Inputs as Inputs
from nas.predictor.protocol import Prediction as Prediction
from nas.predictor.protocol import Predictor as Predictor
from nas.predictor.protocol import Storable as Storable
from nas.predictor.ridge import BayesianRidge as BayesianRidge
from nas.predictor.sources import Measurements as Measurements
from nas.predictor.sources import from_history as from_history
from nas.predictor.sources import from_pairs as from_pairs
from nas.predictor.sources import from_table as from_table
from nas.predictor.surrogate import FittedSurrogate as FittedSurrogate
from nas.predictor.surrogate import Judgement as Judgement
from nas.predictor.surrogate import fit_surrogate as fit_surrogate
from nas.predictor.targets import NormalScores as NormalScores
from nas.predictor.targets import normal_scores as normal_scores
from nas.predictor.targets import rank_correlation as rank_correlation
from nas.predictor.trees import GradientBoosting as GradientBoosting
from nas.predictor.trees import RandomForest as RandomForest

if TYPE_CHECKING:
    from nas.predictor.graph_networks import GraphEnsemble as GraphEnsemble
    from nas.predictor.networks import MlpEnsemble as MlpEnsemble
    from nas.predictor.networks import SequenceEnsemble as SequenceEnsemble


def __getattr__(name: str) -> Any:
    """The models made of torch are imported when they are asked for."""
    if name in ("MlpEnsemble", "SequenceEnsemble"):
        from nas.predictor import networks

        return getattr(networks, name)
    if name == "GraphEnsemble":
        from nas.predictor import graph_networks

        return graph_networks.GraphEnsemble
    raise AttributeError(f"module 'nas.predictor' has no attribute {name!r}")

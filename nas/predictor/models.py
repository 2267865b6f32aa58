"""The surrogate models by name, each with the rows it reads.

Settings are those of papers and libraries; none was chosen on a table of trained architectures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.encoding import HasPaths
from nas.errors import ConfigError, UnsupportedRequest, nearest
from nas.predictor.gaussian import GaussianProcess
from nas.predictor.graph_inputs import GraphInputs
from nas.predictor.inputs import Inputs, Rows
from nas.predictor.profiles import profiles_of
from nas.predictor.protocol import Storable
from nas.predictor.ridge import BayesianRidge
from nas.predictor.trees import GradientBoosting, RandomForest
from nas.space import SearchSpace


class RowMaker(Protocol):
    """Makes rows of numbers of architectures, and can be put where it was."""

    def __call__(self, archs: Sequence[Architecture]) -> Rows: ...

    def state_dict(self) -> dict[str, NDArray[Any]]: ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None: ...


@dataclass(frozen=True)
class Model:
    """A kind of surrogate.

    Attributes:
        summary: what it is, in a line.
        blocks: of features that it reads (``nas.predictor.Inputs``); none: whole graphs.
        load: gives its class, which may import what is heavy.
        from_inputs: arguments that follow from the rows, in place of a user's.
        most_rows: so many at most are fitted in reasonable time.
    """

    summary: str
    blocks: tuple[str, ...]
    load: Callable[[], type[Any]]
    from_inputs: Callable[[Any], dict[str, Any]] = field(default=lambda inputs: {})
    most_rows: int = 20_000


def _mlp() -> type[Any]:
    from nas.predictor.networks import MlpEnsemble

    return MlpEnsemble


def _graph() -> type[Any]:
    from nas.predictor.graph_networks import GraphEnsemble

    return GraphEnsemble


_ALL = ("options", "numbers", "paths")

MODELS: dict[str, Model] = {
    "ridge": Model(
        "Bayesian ridge on blocks of features, as bananas has it",
        ("options", "counts", "numbers", "paths", "pairs"),
        lambda: BayesianRidge,
        lambda inputs: {"widths": inputs.widths, "profiles": profiles_of(inputs.names)},
    ),
    "gp_hamming": Model(
        "Gaussian process, the exponential of the Hamming distance of picks",
        ("options",),
        lambda: GaussianProcess,
        most_rows=2_000,
    ),
    "gp_path": Model(
        "Gaussian process, the exponential of the distance in paths through the cells",
        ("paths",),
        lambda: GaussianProcess,
        most_rows=2_000,
    ),
    "forest": Model("random forest, scikit-learn's defaults", _ALL, lambda: RandomForest),
    "boosting": Model("gradient boosting, five times", _ALL, lambda: GradientBoosting),
    "mlp": Model("five networks of ten layers, BANANAS'", _ALL, _mlp),
    "graph": Model(
        "three graph convolutional networks on the cells",
        (),
        _graph,
        lambda inputs: {"cells": inputs.cells, "operations": inputs.operations},
    ),
}


def kind_of(name: str) -> Model:
    """The model of that name; ``ConfigError`` naming the nearest where there is none."""
    if name not in MODELS:
        raise ConfigError(f"there is no surrogate model {name!r}: {nearest(name, MODELS)}")
    return MODELS[name]


def make_inputs(name: str, space: SearchSpace) -> RowMaker:
    """What makes rows for a model of this name.

    Raises:
        ConfigError: there is no such model.
        UnsupportedRequest: the space has nothing that it reads.
    """
    blocks = kind_of(name).blocks
    if not blocks:
        return GraphInputs(space)
    if blocks == ("paths",) and not isinstance(space, HasPaths):
        raise UnsupportedRequest(
            f"{space.name!r} has no paths through cells (longest_path) for {name!r}: use "
            "gp_hamming, which needs picks alone"
        )
    inputs = Inputs(space, blocks)
    if not inputs.widths:
        raise UnsupportedRequest(f"{space.name!r}: no feature tells two architectures apart")
    return inputs


def make_model(
    name: str, inputs: RowMaker, seed: int = 0, settings: Mapping[str, Any] | None = None
) -> Storable:
    """A model of this name, not fitted yet.

    Args:
        inputs: of ``make_inputs`` with the same name.
        settings: arguments of its class, over the defaults.

    Raises:
        ConfigError: an unknown name, setting, or a value out of range.
    """
    kind = kind_of(name)
    factory = kind.load()
    fixed = kind.from_inputs(inputs)
    known = [key for key in inspect.signature(factory).parameters if key not in fixed]
    given = dict(settings or {})
    for key in given:
        if key not in known:
            raise ConfigError(f"the model {name!r} has no setting {key!r}: {nearest(key, known)}")
    if "seed" in known:
        given.setdefault("seed", seed)
    try:
        model: Storable = factory(**fixed, **given)
    except TypeError as error:
        raise ConfigError(f"the model {name!r}: settings {given} do not fit: {error}") from error
    return model


def settings_of(name: str, inputs: RowMaker, model: Storable) -> dict[str, Any]:
    """All that a model was made with and that does not follow from its rows, as JSON values."""
    fixed = kind_of(name).from_inputs(inputs)
    names = inspect.signature(type(model)).parameters
    found = {key: getattr(model, key) for key in names if key not in fixed}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def restored(
    name: str,
    space: SearchSpace,
    settings: Mapping[str, Any],
    inputs_state: Mapping[str, NDArray[Any]],
    model_state: Mapping[str, NDArray[Any]],
) -> tuple[RowMaker, Storable]:
    """The rows and the fitted model that were stored (``settings_of``, ``state_dict``)."""
    inputs: RowMaker = GraphInputs(space) if not kind_of(name).blocks else Inputs(space, (), ())
    inputs.load_state_dict(inputs_state)
    model = make_model(name, inputs, settings=settings)
    model.load_state_dict(model_state)
    return inputs, model

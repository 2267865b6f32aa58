"""Latency learnt from whole networks: for devices where no single operation can be timed.

Some architectures and what each took on a device are enough. A few recipes (which features, which
model, milliseconds or their logarithm, with or without a guard against outliers) are compared by
cross-validation among those measurements, and the best is fitted to all of them.

The models are those of ``nas.predictor``. Phones stall now and then, and one such measurement
moves a least-squares fit far; the guard fits again to measurements that are drawn in to two
standard deviations (robustly estimated) of the fit before: Huber's pseudo-values, P. J. Huber,
"Robust Statistics", 1981, §7.

A fit is kept as what it was made from: the measurements, and the recipe that was chosen. Reading
one fits again, which takes a moment; nothing of a model is unpickled.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.architecture import Architecture
from nas.components import describe
from nas.encoding import from_ordinal, ordinal
from nas.errors import ConfigError, DataError, UnsupportedRequest
from nas.history import write_file
from nas.latency.rows import LatencyRows
from nas.predictor import BayesianRidge, GaussianProcess, Predictor, rank_correlation
from nas.space import SearchSpace, validate

Floats = NDArray[np.float64]

FORMAT = "nasforge latency fit"
VERSION = 1
LEAST = 20
"""Fewer networks are refused: they cannot say how good a fit is."""
MOST_FOR_PROCESS = 400
"""A Gaussian process is not tried on more: its time grows with their cube."""

Model = Literal["ridge", "gaussian_process"]
Scale = Literal["ms", "log"]

_PROFILES = (1.0, 0.1, 0.01)
_RIDGE_NOISES = (1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_PROCESS_NOISES = (1e-5, 1e-3, 0.03, 0.1, 0.5)
_PROCESS_LENGTHS = (1.0, 2.0, 4.0, 8.0)
_DRAWN_IN = 2.0
_ROUNDS = 5


@dataclass(frozen=True)
class Recipe:
    """How latency is learnt.

    Attributes:
        blocks: of features (``nas.latency.rows``).
        model: of ``nas.predictor``.
        scale: what is predicted: milliseconds, or their logarithm.
        robust: whether outliers are drawn in.
    """

    blocks: tuple[str, ...]
    model: Model = "ridge"
    scale: Scale = "ms"
    robust: bool = True

    def __str__(self) -> str:
        guard = ", robust" if self.robust else ""
        return f"{self.model} on {'+'.join(self.blocks)}, {self.scale}{guard}"


FEATURES = (
    ("options",),
    ("options", "counts", "numbers", "work"),
    ("options", "counts", "numbers", "work", "pairs"),
    ("options", "counts", "numbers", "work", "interactions"),
)
"""What is tried; blocks that a space has not are left out."""


@dataclass(frozen=True)
class Errors:
    """How predictions compare with measurements.

    Attributes:
        count: of networks.
        mape: mean absolute error, in per cent of the measurement.
        rmse: root of the mean squared error, ms.
        spearman: rank correlation; ``None`` where either is constant.
        within_10: share within ±10 % of the measurement.
        within_deviation: share within one predicted standard deviation, which normal errors and
            right deviations make 0.68.
    """

    count: int
    mape: float
    rmse: float
    spearman: float | None
    within_10: float
    within_deviation: float

    def __str__(self) -> str:
        rho = "none" if self.spearman is None else f"{self.spearman:.3f}"
        return (
            f"MAPE {self.mape:.2f} %, RMSE {self.rmse:.3g} ms, Spearman ρ {rho}, "
            f"{self.within_10:.1%} within ±10 %, {self.within_deviation:.0%} within one deviation "
            f"({self.count} networks)"
        )


def errors(predicted: ArrayLike, deviations: ArrayLike, measured: ArrayLike) -> Errors:
    """Compares predictions, and their standard deviations, with positive measurements."""
    p, s, y = (np.asarray(values, dtype=np.float64) for values in (predicted, deviations, measured))
    off = np.abs(p - y)
    return Errors(
        len(y),
        float(100 * (off / y).mean()),
        float(np.sqrt((off**2).mean())),
        rank_correlation(p, y),
        float((off <= 0.1 * y).mean()),
        float((off <= s).mean()),
    )


class WholeNetworkFit:
    """Predicts the latency of a space's architectures from measured whole networks.

    ``fitted`` and ``read_fit`` make one.

    Args:
        space: whose architectures were measured.
        archs, latency_ms: the measurements.
        recipe: how they are learnt from.
        validation: what cross-validation found of this recipe.
        spread: the standard deviation of its errors there, in ms.
        device: what was measured on, for people.
        rows: of the space's features, where several fits of one space share them.

    Raises:
        DataError: too few measurements, or one that is not above 0 and finite.
    """

    def __init__(
        self,
        space: SearchSpace,
        archs: Sequence[Architecture],
        latency_ms: ArrayLike,
        recipe: Recipe,
        validation: Errors,
        spread: float,
        device: str = "",
        rows: LatencyRows | None = None,
    ) -> None:
        self.space = space
        self.archs = tuple(archs)
        self.latency_ms = _checked(archs, latency_ms)
        self.recipe = recipe
        self.validation = validation
        self.spread = float(spread)
        if not (math.isfinite(self.spread) and self.spread >= 0):
            raise DataError(f"the errors' spread must be 0 ms or more, got {spread}")
        self.device = device
        self._rows = rows or LatencyRows(space)
        self._model = _Fitted(recipe, self._rows(self.archs), self.latency_ms)
        # What the fit cannot explain in cross-validation, over what it knows it does not know.
        known = np.median(self._model(self._rows(self.archs))[1])
        self._noise = math.sqrt(max(0.0, self.spread**2 - float(known) ** 2))

    def predict(self, space: SearchSpace, arch: Architecture) -> float:
        """The latency expected of an architecture, in ms; never below 0.

        Raises:
            UnsupportedRequest: the fit is of another space, or of one with other settings.
            InvalidArchitecture: ``arch`` is not one of it.
        """
        return float(self.predict_many(space, [arch])[0][0])

    def deviation(self, space: SearchSpace, arch: Architecture) -> float:
        """The standard deviation of a measurement around ``predict``, in ms; raises likewise."""
        return float(self.predict_many(space, [arch])[1][0])

    def predict_many(
        self, space: SearchSpace, archs: Sequence[Architecture]
    ) -> tuple[Floats, Floats]:
        """Both of each architecture; raises likewise."""
        self.check_space(space)
        for arch in archs:
            validate(space, arch)
        mean, std = self._model(self._rows(archs))
        return np.maximum(mean, 0.0), np.hypot(std, self._noise)

    def check_space(self, space: SearchSpace) -> None:
        """Raises ``UnsupportedRequest`` unless it is the space that was measured."""
        _check_space(describe(space), describe(self.space), self.device)

    def save(self, path: str | Path) -> None:
        """Writes the measurements and the recipe as JSON, whole or not at all."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "space": describe(self.space),
            "device": self.device,
            "recipe": asdict(self.recipe),
            "validation": asdict(self.validation),
            "spread_ms": self.spread,
            "architectures": [ordinal(self.space, arch).tolist() for arch in self.archs],
            "latency_ms": self.latency_ms.tolist(),
        }
        write_file(Path(path), json.dumps(document).encode())


def read_fit(path: str | Path, space: SearchSpace) -> WholeNetworkFit:
    """The fit in a file that ``save`` wrote.

    Raises:
        DataError: there is no such file, or it is damaged or of another kind.
        UnsupportedRequest: it is of another space, or of one with other settings.
    """
    try:
        document = json.loads(Path(path).read_text())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged, or no fit of latency: {error}") from error
    kind = document.get("format") if isinstance(document, dict) else None
    if kind != FORMAT:
        raise DataError(f"{path} is no fit of latency: its format is {kind!r}, not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise DataError(
            f"{path} is of version {document.get('version')!r}, which this release does not read "
            f"(it reads {VERSION}): fit again"
        )
    try:
        _check_space(describe(space), document["space"], str(document["device"]))
        recipe = dict(document["recipe"])
        if recipe["model"] not in get_args(Model) or recipe["scale"] not in get_args(Scale):
            raise ValueError(f"recipe {recipe}")
        return WholeNetworkFit(
            space,
            [from_ordinal(space, row) for row in document["architectures"]],
            document["latency_ms"],
            Recipe(**{**recipe, "blocks": tuple(recipe["blocks"])}),
            Errors(**document["validation"]),
            document["spread_ms"],
            str(document["device"]),
        )
    except UnsupportedRequest:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error!r:.200}") from error


def fitted(
    space: SearchSpace,
    archs: Sequence[Architecture],
    latency_ms: ArrayLike,
    device: str = "",
    folds: int = 5,
    seed: int = 0,
    rows: LatencyRows | None = None,
) -> WholeNetworkFit:
    """Fits whole-network measurements by the recipe of the least error in cross-validation.

    First the features and the model are chosen, with the guard and in milliseconds, then whether
    the logarithm, or going without the guard, is better. The fit's ``validation`` has the errors
    of held-out parts; that of the best of several is a little flattered.

    Args:
        archs, latency_ms: what was measured, ``LEAST`` networks at least.
        folds: of the cross-validation.
        seed: of its parts.
        rows: as in ``WholeNetworkFit``.

    Raises:
        DataError: as ``WholeNetworkFit``.
        InvalidArchitecture: an architecture that is not of the space.
        ConfigError: fewer than 2 folds.
    """
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, got {folds}")
    y = _checked(archs, latency_ms)
    for arch in archs:
        validate(space, arch)
    rows = rows or LatencyRows(space)
    blocks = rows(archs)
    order = np.random.default_rng(seed).permutation(len(y))
    parts = [order[number::folds] for number in range(folds)]
    found: dict[Recipe, tuple[Errors, float]] = {}

    def best(recipes: Sequence[Recipe]) -> Recipe:
        for recipe in recipes:
            if recipe not in found:
                found[recipe] = _cross_validated(recipe, blocks, y, parts)
        return min(found, key=lambda recipe: found[recipe][0].mape)

    sets = dict.fromkeys(tuple(name for name in names if name in blocks) for names in FEATURES)
    tried = [Recipe(names) for names in sets if names]
    if len(y) <= MOST_FOR_PROCESS:
        tried += [Recipe(recipe.blocks, "gaussian_process") for recipe in tried[:2]]
    chosen = best(tried)
    chosen = best([Recipe(chosen.blocks, chosen.model, scale="log")])
    chosen = best([Recipe(chosen.blocks, chosen.model, chosen.scale, robust=False)])
    return WholeNetworkFit(space, archs, y, chosen, *found[chosen], device, rows)


def _cross_validated(
    recipe: Recipe, blocks: dict[str, Floats], y: Floats, parts: Sequence[NDArray[np.intp]]
) -> tuple[Errors, float]:
    """The errors of each part, predicted from the others, and their spread in ms."""
    mean = np.empty(len(y))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(y)), part)
        model = _Fitted(recipe, {name: rows[rest] for name, rows in blocks.items()}, y[rest])
        mean[part], _ = model({name: rows[part] for name, rows in blocks.items()})
    # Half of the errors are within 0.67 standard deviations; outliers do not count for more.
    spread = float(np.median(np.abs(mean - y))) / 0.6745
    return errors(mean, np.full(len(y), spread), y), spread


class _Fitted:
    """A model of milliseconds: standardised targets, their logarithm or not, outliers drawn in."""

    def __init__(self, recipe: Recipe, blocks: dict[str, Floats], y: Floats) -> None:
        self._recipe = recipe
        targets = np.log(y) if recipe.scale == "log" else y
        self._mean = float(np.median(targets))
        self._scale = float(targets.std()) or 1.0
        targets = (targets - self._mean) / self._scale
        rows = self._chosen(blocks)
        self._model: Predictor = self._made(blocks)
        self._model.fit(rows, targets)
        if recipe.robust:
            drawn = targets
            for _ in range(_ROUNDS):
                predicted = self._model.predict(rows).mean
                residual = targets - predicted
                bound = _DRAWN_IN * float(np.median(np.abs(residual))) / 0.6745
                before, drawn = drawn, predicted + np.clip(residual, -bound, bound)
                if np.abs(drawn - before).max() <= 1e-3 * bound:
                    break
                if isinstance(self._model, BayesianRidge):
                    # The noise is another without the outliers; the blocks' shares are not.
                    widths, shares = self._model.widths, (self._model.profile,)
                    self._model = BayesianRidge(widths, shares, _RIDGE_NOISES)
                self._model.fit(rows, drawn)

    def __call__(self, blocks: dict[str, Floats]) -> tuple[Floats, Floats]:
        """The mean and the standard deviation of the function, in ms."""
        mean, std = self._model.predict(self._chosen(blocks))
        mean, std = mean * self._scale + self._mean, std * self._scale
        if self._recipe.scale == "log":
            mean = np.exp(mean)
            std = mean * std
        return mean, std

    def _chosen(self, blocks: dict[str, Floats]) -> Floats:
        return np.concatenate([blocks[name] for name in self._recipe.blocks], axis=1)

    def _made(self, blocks: dict[str, Floats]) -> Predictor:
        if self._recipe.model == "gaussian_process":
            return GaussianProcess(_PROCESS_LENGTHS, _PROCESS_NOISES)
        widths = [blocks[name].shape[1] for name in self._recipe.blocks]
        # One block in full, and the others at equal smaller shares: few profiles say most.
        profiles = {
            tuple(1.0 if number == first else share for number in range(len(widths)))
            for first, share in itertools.product(range(len(widths)), _PROFILES)
        }
        return BayesianRidge(widths, sorted(profiles), _RIDGE_NOISES)


def _checked(archs: Sequence[Architecture], latency_ms: ArrayLike) -> Floats:
    y = np.asarray(latency_ms, dtype=np.float64)
    if y.shape != (len(archs),):
        raise DataError(f"{len(archs)} architectures were given {y.shape} latencies")
    if len(y) < LEAST:
        raise DataError(f"{len(y)} measured networks are too few to fit: {LEAST} at least")
    wrong = np.flatnonzero(~(np.isfinite(y) & (y > 0)))
    if len(wrong):
        raise DataError(
            f"the latency of network {wrong[0]} is {y[wrong[0]]} ms, expected a number above 0"
        )
    return y


def _check_space(given: Any, known: Any, device: str) -> None:
    """Raises unless two descriptions of spaces are the same."""
    if given == known:
        return
    fit = f"the fit{f' for {device}' if device else ''}"
    for document in (given, known):
        if not isinstance(document, dict):
            raise UnsupportedRequest(f"{fit} is of {known!r:.100}, not of {given!r:.100}")
    if given.get("name") != known.get("name"):
        raise UnsupportedRequest(f"{fit} is of {known.get('name')!r}, not of {given.get('name')!r}")
    for key in sorted({*given, *known}):
        if given.get(key) != known.get(key):
            raise UnsupportedRequest(
                f"{fit} is of {known['name']!r} with {key} {known.get(key)!r:.100}, not with "
                f"{given.get(key)!r:.100}: build the space likewise, or measure and fit anew"
            )

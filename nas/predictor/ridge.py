"""Bayesian ridge regression whose features come in blocks.

The function is a sum over blocks, f(x) = b + Σ_g √v_g · w_g·x_g, with independent standard normal
weights; the shares v_g sum to one. Of some given profiles of shares and levels of noise the one of
the largest marginal likelihood is taken, the scale of everything being integrated out (MacKay,
"Bayesian interpolation", Neural Computation 1992; Bishop, "Pattern Recognition and Machine
Learning", 2006, ch. 3.5). It is the Gaussian process with the kernel Σ_g v_g x_g·x_g′.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.errors import ConfigError
from nas.predictor.protocol import Floats, Prediction, checked, not_fitted

NOISES = (0.03, 0.1, 0.3, 1.0)
_SELECTED_ON = 128
"""Shares and noise are settled long before: selection looks at the first so many rows."""
_CHUNK = 4096


class BayesianRidge:
    """Linear regression with uncertainty; prior and noise by the marginal likelihood.

    Args:
        widths: how many columns each block of features has; empty for one block of all.
        profiles: the shares of the blocks to choose among, each scaled to a sum of 1; empty for
            equal shares.
        noises: the variances of the noise to choose among, as multiples of the function's.
        bias: the prior variance of the bias, likewise.

    The overall scale has an inverse gamma prior worth one observation of variance 1: targets
    are meant to be standardised, or normal scores.

    Raises:
        ConfigError: numbers that are negative or not finite, or profiles of the wrong length.
    """

    def __init__(
        self,
        widths: Sequence[int] = (),
        profiles: Sequence[Sequence[float]] = (),
        noises: Sequence[float] = NOISES,
        bias: float = 1.0,
    ) -> None:
        if any(width < 1 for width in widths):
            raise ConfigError(f"ridge: widths must be at least 1, got {tuple(widths)}")
        if not noises or not all(0 < noise < math.inf for noise in noises):
            raise ConfigError(f"ridge: noises must be above 0 and finite, got {tuple(noises)}")
        if not 0 < bias < math.inf:
            raise ConfigError(f"ridge: bias must be above 0 and finite, got {bias}")
        for profile in profiles:
            fits = len(profile) == max(1, len(widths))
            if not (fits and all(0 <= share < math.inf for share in profile) and sum(profile) > 0):
                raise ConfigError(
                    f"ridge: a profile has a share, zero or more, of each of the "
                    f"{max(1, len(widths))} blocks, got {tuple(profile)}"
                )
        self.widths = tuple(widths)
        self.profiles = tuple(tuple(profile) for profile in profiles)
        self.noises = tuple(noises)
        self.bias = bias
        self._fitted = False

    # ------------------------------------------------------------------------------ fitting

    def fit(self, inputs: ArrayLike, targets: ArrayLike) -> None:
        rows, values = checked(inputs, targets)
        if self.widths and sum(self.widths) != rows.shape[1]:
            raise ConfigError(
                f"ridge: rows have {rows.shape[1]} features, expected {sum(self.widths)}, the sum "
                f"of the blocks' widths {self.widths}"
            )
        self._select(rows[:_SELECTED_ON], values[:_SELECTED_ON])
        self._scales = np.append(self._column_scales(rows.shape[1]), math.sqrt(self.bias))
        self._factorise(self._scaled(rows), values)
        self._fitted = True

    def _select(self, rows: Floats, values: Floats) -> None:
        best = -math.inf
        n = len(rows)
        grams = [block @ block.T for block in self._blocks(rows)]
        for profile in self._profiles():
            kernel = np.full((n, n), self.bias)
            for share, gram in zip(profile, grams, strict=True):
                if share > 0:
                    kernel += share * gram
            spectrum, vectors = np.linalg.eigh(kernel)
            spectrum = np.maximum(spectrum, 0.0)
            along = (vectors.T @ values) ** 2
            for noise in self.noises:
                widened = spectrum + noise
                scale = (float((along / widened).sum()) + 1.0) / (n + 1.0)
                evidence = -0.5 * float(np.log(widened).sum()) - 0.5 * (n + 1.0) * math.log(scale)
                if evidence > best:
                    best = evidence
                    self.profile, self.noise, self.scale = profile, noise, scale

    def _factorise(self, scaled: NDArray[Any], values: Floats) -> None:
        """The posterior of the weights; what predictions need is kept in the smaller form."""
        n, d = scaled.shape
        if n < d:
            kernel = scaled @ scaled.T
            kernel[np.diag_indices(n)] += self.noise
            lower = np.linalg.cholesky(kernel)
            self._known = np.linalg.solve(lower, scaled)
            self._weights = self._known.T @ np.linalg.solve(lower, values)
            self._dual = True
        else:
            precision = scaled.T @ scaled / self.noise
            precision[np.diag_indices(d)] += 1.0
            lower = np.linalg.cholesky(precision)
            self._known = np.linalg.solve(lower, np.eye(d))
            self._weights = self._known.T @ (self._known @ (scaled.T @ values)) / self.noise
            self._dual = False
        self._covariance: Floats | None = None
        self._updated = False

    # --------------------------------------------------------------------------- predicting

    def predict(self, inputs: ArrayLike) -> Prediction:
        """The mean and the standard deviation of the function at each row."""
        rows = self._checked_rows(inputs)
        mean = np.empty(len(rows))
        std = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            scaled = self._scaled(rows[part])
            mean[part] = scaled @ self._weights.astype(scaled.dtype)
            std[part] = np.sqrt(self.scale * np.maximum(self._variance(scaled), 1e-12))
        return Prediction(mean, std)

    def _variance(self, scaled: NDArray[Any]) -> Floats:
        if self._updated and self._covariance is not None:
            product = scaled @ self._covariance.astype(scaled.dtype)
            return _dots(product, scaled)
        known = scaled @ self._known.T.astype(scaled.dtype)
        explained = _dots(known, known)
        if not self._dual:
            return explained
        return _dots(scaled, scaled) - explained

    # -------------------------------------------------------------------------- one row more

    def covariance(self, inputs: ArrayLike, row: ArrayLike) -> tuple[Floats, float]:
        """How the function at each row goes with the function at one row, given what is known.

        Returns:
            The posterior covariances, and the variance of a measurement at that row, noise
            included. Measuring it moves the mean at the rows by covariance / variance times the
            surprise, and takes covariance² / variance off their variances.
        """
        rows = self._checked_rows(inputs)
        point = self._scaled(np.asarray(row, dtype=np.float64)[None])[0]
        along = self._full() @ point
        moved = self._scaled(rows) @ along.astype(rows.dtype)
        variance = float(point @ along) + self.noise
        return self.scale * moved.astype(np.float64), self.scale * variance

    def update(self, row: ArrayLike, target: float) -> None:
        """One row and its target more: the same as a fit with them, hyperparameters as they are."""
        point = self._scaled(np.asarray(row, dtype=np.float64)[None])[0]
        full = self._full()
        along = full @ point
        variance = float(point @ along) + self.noise
        surprise = target - float(point @ self._weights)
        self._weights = self._weights + along * (surprise / variance)
        full -= np.outer(along, along / variance)
        self._updated = True

    def std_after(self, inputs: ArrayLike, std: Floats, pending: ArrayLike) -> Floats:
        """What is left of the deviations at some rows once others have been measured.

        Deviations do not depend on what a measurement says: so a batch can be chosen that does
        not ask the same thing twice (the kriging believer, Ginsbourger et al. 2010).

        Args:
            std: the deviations at ``inputs`` now.
            pending: the rows whose measurements are to come.
        """
        rows = self._checked_rows(inputs)
        others = self._scaled(np.asarray(pending, dtype=np.float64))
        along = others @ self._full()
        cross = self._scaled(rows).astype(np.float64) @ along.T
        joint = along @ others.T
        joint[np.diag_indices(len(joint))] += self.noise
        explained = _dots(cross, np.linalg.solve(joint, cross.T).T)
        left: Floats = np.sqrt(np.maximum(std**2 - self.scale * explained, 1e-12))
        return left

    def _full(self) -> Floats:
        """The covariance of the weights, made when it is first asked for."""
        if not self._fitted:
            raise not_fitted(self)
        if self._covariance is None:
            product = self._known.T @ self._known
            self._covariance = np.eye(len(product)) - product if self._dual else product
        return self._covariance

    # -------------------------------------------------------------------------------- storing

    def state_dict(self) -> dict[str, NDArray[Any]]:
        if not self._fitted:
            raise not_fitted(self)
        updated = self._updated
        return {
            # Copies of what one row more changes in place.
            "known": self._full().copy() if updated else self._known,
            "weights": self._weights,
            "scales": self._scales,
            "profile": np.array(self.profile),
            "numbers": np.array([self.noise, self.scale, float(self._dual), float(updated)]),
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._known, self._weights, self._scales = state["known"], state["weights"], state["scales"]
        self.noise, self.scale, dual, updated = state["numbers"].tolist()
        self.profile = tuple(state["profile"].tolist())
        self._dual, self._updated = bool(dual), bool(updated)
        self._covariance = self._known.copy() if updated else None
        self._fitted = True

    # ------------------------------------------------------------------------------- helpers

    def _checked_rows(self, inputs: ArrayLike) -> NDArray[Any]:
        if not self._fitted:
            raise not_fitted(self)
        rows = np.asarray(inputs)
        if rows.dtype != np.float32:  # single precision is kept: whole spaces come in it
            rows = rows.astype(np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._scales) - 1:
            raise ConfigError(
                f"ridge: fitted to rows of {len(self._scales) - 1} features, got {rows.shape}"
            )
        return rows

    def _blocks(self, rows: Floats) -> list[Floats]:
        ends = list(itertools.accumulate(self.widths or (rows.shape[1],), initial=0))
        return [rows[:, start:end] for start, end in itertools.pairwise(ends)]

    def _profiles(self) -> list[tuple[float, ...]]:
        given = self.profiles or ((1.0,) * max(1, len(self.widths)),)
        return [tuple(share / sum(profile) for share in profile) for profile in given]

    def _column_scales(self, columns: int) -> Floats:
        widths = self.widths or (columns,)
        return np.repeat(np.sqrt(np.array(self.profile)), widths)

    def _scaled(self, rows: NDArray[Any]) -> NDArray[Any]:
        scaled = np.empty((len(rows), rows.shape[1] + 1), dtype=rows.dtype)
        np.multiply(rows, self._scales[:-1].astype(rows.dtype), out=scaled[:, :-1])
        scaled[:, -1] = self._scales[-1]
        return scaled


def _dots(one: NDArray[Any], other: NDArray[Any]) -> Floats:
    """The inner product of each row with the row beside it."""
    dots: Floats = np.einsum("ij,ij->i", one, other).astype(np.float64)
    return dots

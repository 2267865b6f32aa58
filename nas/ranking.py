"""How well scores rank architectures: correlation with the truth, and what is found among the best.

A search that trusts shared weights is as good as their ranking. ``rank_agreement`` compares two
lists of numbers; ``paired`` makes them, of random architectures; ``ranking_png`` draws them.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.errors import ConfigError, DataError, NasError, nearest
from nas.evaluator import Evaluator
from nas.space import SearchSpace, parse, sample
from nas.strategy import proposal_seed
from nas.trial import Fidelity, Measured, Proposal

Floats = NDArray[np.float64]
Valuation = Callable[[Architecture], float]
"""What an architecture is worth; higher is better."""

TOP = (5, 10, 20)


# -------------------------------------------------------------------------------- agreement


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of a sample, and its confidence interval by the bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} … {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two rankings of the same things agree.

    Attributes:
        count: how many things.
        kendall: τ-b.
        spearman: ρ.
        recall: for each k, the share of the truly k best that are among the k of highest score.
        confidence: of the intervals.
    """

    count: int
    kendall: Estimate
    spearman: Estimate
    recall: Mapping[int, Estimate]
    confidence: float


def rank_agreement(
    scores: Sequence[float],
    truths: Sequence[float],
    *,
    top: Sequence[int] = TOP,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """How scores rank what has these true values; higher is better in both.

    Intervals are percentiles of statistics of samples drawn anew with replacement.

    Args:
        top: the k's of recall; those that are not smaller than the number of pairs are left out.

    Raises:
        ConfigError: the lists differ in length or have fewer than three entries, an entry is not
            finite, or an argument is out of range.
        NasError: all scores are the same, or all truths: nothing is ranked.
    """
    pairs = np.array([scores, truths], dtype=float) if len(scores) == len(truths) else None
    if pairs is None or pairs.shape[1] < 3:
        raise ConfigError(
            f"ranking needs a truth for each score and three pairs at least, got {len(scores)} "
            f"scores and {len(truths)} truths"
        )
    if not np.isfinite(pairs).all():
        raise ConfigError(f"pair {int(np.argmin(np.isfinite(pairs).all(0)))} is not finite")
    if resamples < 1 or not 0 < confidence < 1 or any(k < 1 for k in top):
        raise ConfigError(
            "ranking: resamples and each k must be at least 1 and confidence between 0 and 1, got "
            f"{resamples}, {tuple(top)} and {confidence}"
        )
    for name, values in zip(("scores", "truths"), pairs, strict=True):
        if (values == values[0]).all():
            raise NasError(f"all {len(values)} {name} are {values[0]:g}: nothing is ranked")
    count = pairs.shape[1]
    kept = [k for k in top if k < count]
    rng = np.random.default_rng(seed)
    drawn = [_statistics(pairs[:, rng.integers(count, size=count)], kept) for _ in range(resamples)]
    spread = np.array(drawn)
    # A resample in which all are equal ranks nothing.
    spread = spread[np.isfinite(spread).all(axis=1)]
    tail = (1 - confidence) / 2
    found = [
        Estimate(value, float(low), float(high))
        for value, low, high in zip(
            _statistics(pairs, kept), *np.quantile(spread, (tail, 1 - tail), axis=0), strict=True
        )
    ]
    return Agreement(count, found[0], found[1], dict(zip(kept, found[2:], strict=True)), confidence)


def _statistics(pairs: Floats, top: Sequence[int]) -> list[float]:
    from scipy import stats  # type: ignore[import-untyped]  # it ships no types

    scores, truths = pairs
    if (scores == scores[0]).all() or (truths == truths[0]).all():
        return [math.nan] * (2 + len(top))
    return [
        float(stats.kendalltau(scores, truths).statistic),
        float(stats.spearmanr(scores, truths).statistic),
        *(top_recall(scores, truths, k) for k in top),
    ]


def top_recall(scores: Sequence[float] | Floats, truths: Sequence[float] | Floats, k: int) -> float:
    """The share of the truly k best that are among the k of highest score.

    Where several are equal at either border it is the mean over all ways to choose among them.
    """
    return float((_among_best(scores, k) * _among_best(truths, k)).sum() / k)


def _among_best(values: Sequence[float] | Floats, k: int) -> Floats:
    """For each the probability of being among the k highest, equals being drawn at random."""
    array: Floats = np.asarray(values, dtype=float)
    border = np.sort(array)[-k]
    above, equal = array > border, array == border
    shares: Floats = above + equal * (k - above.sum()) / equal.sum()
    return shares


# -------------------------------------------------------------------------------- valuations


def by_evaluator(
    evaluator: Evaluator, metric: str | None = None, fidelity: Fidelity | None = None
) -> Valuation:
    """An evaluator's measurement of a metric; its first if none is named.

    A metric that is minimised is negated.

    Raises:
        ConfigError: it has no such metric.
    """
    names = [known.name for known in evaluator.metrics]
    name = names[0] if metric is None else metric
    if name not in names:
        raise ConfigError(f"the evaluator has no metric {name!r}: {nearest(name, names)}")
    sign = 1.0 if evaluator.metrics[names.index(name)].direction == "maximize" else -1.0

    def value(arch: Architecture) -> float:
        seed = proposal_seed(int(arch.digest()[:8], 16), 0)
        outcome = evaluator.evaluate(Proposal(0, arch, seed, fidelity or Fidelity()))
        if not isinstance(outcome, Measured):
            raise NasError(f"{arch} is infeasible: {outcome.reason}")
        return sign * outcome.values[name]

    return value


def by_table(
    path: str | Path, space: SearchSpace, column: str = "test_acc_200", dataset: str = "cifar10"
) -> Valuation:
    """The values of a file.

    Args:
        path: ``.json``, an object from architectures in any text that ``nas.space.parse`` reads
            to numbers; or ``.npz``, NAS-Bench-201's table: ``ops`` (N, 6) positions in
            ``op_names``, in the order of the space's choices, and columns of N values, or of N
            rows with a value for each of ``datasets``.
        column, dataset: of an ``.npz``.

    Raises:
        DataError: the file cannot be read, or has no such column or data set.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            document = json.loads(path.read_text())
            values = {
                space.canonical(parse(space, text)): float(value)
                for text, value in document.items()
            }
        else:
            return _by_npz(path, column, dataset)
    except DataError:
        raise
    except (OSError, EOFError, BadZipFile, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no table of {space.name!r}: {error}") from error

    def value(arch: Architecture) -> float:
        form = space.canonical(arch)
        if form not in values:
            raise DataError(f"{path} does not hold {arch}")
        return values[form]

    return value


def _by_npz(path: Path, column: str, dataset: str) -> Valuation:
    with np.load(path) as table:
        for name in ("ops", "op_names", "datasets", column):
            if name not in table:
                raise DataError(f"{path} has no {name!r}: {nearest(name, table.files)}")
        names, datasets = table["op_names"].tolist(), table["datasets"].tolist()
        if dataset not in datasets:
            raise DataError(f"{path} has no data set {dataset!r}: {nearest(dataset, datasets)}")
        rows = {tuple(names[i] for i in row): index for index, row in enumerate(table["ops"])}
        values = table[column]
    if values.ndim == 2 and values.shape[1] == len(datasets):
        values = values[:, datasets.index(dataset)]
    if values.shape != (len(rows),):
        raise DataError(f"{path}: {column!r} has shape {values.shape}, not one value a row")

    def value(arch: Architecture) -> float:
        key = tuple(str(option) for _, option in arch.picks)
        if key not in rows:
            raise DataError(f"{path} does not hold {arch}")
        return float(values[rows[key]])

    return value


# ------------------------------------------------------------------------------------ pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """An architecture, what it was scored and what it is worth."""

    arch: Architecture
    score: float
    truth: float


def paired(
    space: SearchSpace, score: Valuation, truth: Valuation, count: int, seed: int = 0
) -> Iterator[Pair]:
    """Scores and truths of random architectures, no two of which are the same network.

    Raises:
        ConfigError: the space seems to have fewer.
    """
    for arch in distinct_architectures(space, count, seed):
        yield Pair(arch, score(arch), truth(arch))


def distinct_architectures(space: SearchSpace, count: int, seed: int = 0) -> Iterator[Architecture]:
    """Random architectures, no two of which are the same network.

    Raises:
        ConfigError: the space seems to have fewer.
    """
    rng = np.random.default_rng([seed, 17])
    seen: set[str] = set()
    while len(seen) < count:
        for _ in range(1000):
            arch = sample(space, rng)
            digest = space.canonical(arch).digest()
            if digest not in seen:
                break
        else:
            raise ConfigError(
                f"{space.name!r} has hardly more than {len(seen)} architectures, asked for {count}"
            )
        seen.add(digest)
        yield arch


# ----------------------------------------------------------------------------------- report


def ranking_document(
    pairs: Sequence[Pair], agreement: Agreement, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything as JSON values.

    Args:
        facts: what scores and truths are.
    """

    def estimate(found: Estimate) -> dict[str, float]:
        return {"value": found.value, "low": found.low, "high": found.high}

    return {
        **facts,
        "count": agreement.count,
        "confidence": agreement.confidence,
        "kendall_tau": estimate(agreement.kendall),
        "spearman_rho": estimate(agreement.spearman),
        "top_recall": {str(k): estimate(found) for k, found in agreement.recall.items()},
        "pairs": [
            {"arch": str(pair.arch), "score": pair.score, "truth": pair.truth} for pair in pairs
        ],
    }


def ranking_png(pairs: Sequence[Pair], agreement: Agreement, x: str, y: str) -> bytes:
    """Scores against truths as a PNG, the axes named ``x`` (the scores) and ``y``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    draw_pairs(axes, pairs, x, y)
    axes.set_title(f"{agreement.count} architectures: Kendall τ {agreement.kendall}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_pairs(axes: Any, pairs: Sequence[Pair], x: str, y: str) -> None:
    """Scores against truths on matplotlib axes, named ``x`` (the scores) and ``y``."""
    axes.plot([pair.score for pair in pairs], [pair.truth for pair in pairs], ".", color="#30638e")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

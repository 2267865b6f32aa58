"""Scores of random sub-networks, kept as they come, and the accuracy predictor fitted to them.

The file is lines of JSON: the first says what was scored (``format``, the supernet's digest, its
space, the data, seed and recalibration), each of the others is an architecture with its
``accuracy``, ``loss`` and ``macs``.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.components import describe
from nas.cost import parameters_and_macs
from nas.errors import ConfigError, DataError, JournalError, NasError, WorkerError
from nas.execution import Executor
from nas.objective import Metric
from nas.predictor import FittedSurrogate, fit_surrogate, from_pairs, load_surrogate
from nas.space import SearchSpace, format_architecture, parse
from nas.specialize.drawing import spread_over_costs
from nas.specialize.inherited import Inherited, Score, ScoresInherited
from nas.supernet.files import SharedSupernet
from nas.trial import Measured, Proposal

FORMAT = "nasforge-subnetwork-scores/1"
ACCURACY = Metric("accuracy", "fraction", "maximize")
MODEL = "ridge"
"""The kind of predictor, of ``nas.predictor.models``."""
_SOURCE = "sub-networks of supernet "


@dataclass(frozen=True)
class Row:
    """A sub-network with inherited weights, on the held-out examples."""

    arch: Architecture
    accuracy: float
    loss: float
    macs: int


def score(
    inherited: Inherited,
    path: str | Path,
    rows: int = 300,
    seed: int = 0,
    on_row: Callable[[int, Row], None] | None = None,
    executor: Executor | None = None,
) -> list[Row]:
    """Scores random sub-networks, their costs spread over the range (``spread_over_costs``).

    Every row is on disk when it is found, and rows that are there already are not scored again;
    more rows can be asked for later.

    Args:
        on_row: told each new row, and how many there are with it.
        executor: where they are scored, several at a time as it has room (a ``RayExecutor``, whose
            workers on a machine share one copy of the weights); in this process if not given. The
            rows are the same. It is closed by whoever made it.

    Returns:
        So many rows, or as many as the space has.

    Raises:
        ConfigError: the file is of another supernet, data or seed.
        DataError: the file is damaged.
        JournalError: the disk does not take it.
        WorkerError: a sub-network could not be scored by the executor; the message says why.
    """
    if rows < 1:
        raise ConfigError(f"rows must be at least 1, got {rows}")
    path = Path(path)
    shared = inherited.shared
    header = {
        "format": FORMAT,
        "supernet": shared.digest,
        "space": shared.space.name,
        "data": json.loads(json.dumps(describe(inherited.data))),
        "seed": seed,
        "recalibration_batches": inherited.recalibration_batches,
    }
    found = _continued(path, header, shared.space)
    drawn = list(itertools.islice(spread_over_costs(shared.space, seed), rows))
    for number, (row, arch) in enumerate(zip(found, drawn, strict=False)):
        if row.arch != arch:
            raise DataError(f"{path}, line {number + 2}: {row.arch} was not drawn")
    left = drawn[len(found) :]
    for arch, (accuracy, loss) in zip(left, _scores(inherited, left, executor), strict=True):
        row = Row(arch, accuracy, loss, parameters_and_macs(shared.space, arch)[1])
        text = format_architecture(shared.space, arch)
        values = {"accuracy": accuracy, "loss": loss, "macs": row.macs}
        _append(path, {"architecture": text, **values})
        found.append(row)
        if on_row is not None:
            on_row(len(found), row)
    return found[:rows]


def _scores(
    inherited: Inherited, archs: Sequence[Architecture], executor: Executor | None
) -> Iterator[Score]:
    """The scores of architectures, in their order."""
    if executor is None:
        yield from map(inherited.score, archs)
        return
    evaluator, done = ScoresInherited(inherited), dict[int, Score]()
    sent = 0
    for number in range(len(archs)):
        while number not in done:
            while sent < len(archs) and executor.free:
                executor.submit(evaluator, Proposal(sent, archs[sent], 0))
                sent += 1
            trial = executor.next()
            if not isinstance(trial.outcome, Measured):
                raise WorkerError(f"{archs[trial.number]} was not scored: {trial.outcome}")
            values = trial.outcome.values
            done[trial.number] = values["accuracy"], values["loss"]
        yield done.pop(number)


def fit_predictor(
    shared: SharedSupernet, rows: Sequence[Row], model: str = MODEL, seed: int = 0
) -> FittedSurrogate:
    """An accuracy predictor of scored sub-networks, cross-validated.

    Raises:
        ConfigError: too few rows, or there is no such model.
        NasError: all are equally accurate.
    """
    pairs = [(row.arch, row.accuracy) for row in rows]
    measured = from_pairs(shared.space, pairs, ACCURACY, _SOURCE + shared.digest)
    return fit_surrogate(measured, model, seed=seed)


def predictor_path(supernet: str | Path) -> Path:
    """Where a supernet's predictor is: ``supernet.surrogate.npz`` beside its file."""
    path = Path(supernet)
    return path.with_name(f"{path.stem}.surrogate.npz")


def scores_path(supernet: str | Path) -> Path:
    """Where its scores are: ``supernet.scores.jsonl``."""
    path = Path(supernet)
    return path.with_name(f"{path.stem}.scores.jsonl")


def load_predictor(path: str | Path, shared: SharedSupernet) -> FittedSurrogate:
    """Reads a predictor that is to be used for a supernet.

    One that was fitted to anything but sub-networks (to trainings, say) is taken as it is.

    Raises:
        ConfigError: there is no such file, it is of another space, or was fitted to sub-networks
            of another supernet.
        DataError: it is damaged.
    """
    found = load_surrogate(path, shared.space)
    if found.source.startswith(_SOURCE) and found.source != _SOURCE + shared.digest:
        raise ConfigError(
            f"{path} predicts {found.source}, this is supernet {shared.digest}: score this one's"
        )
    return found


# ------------------------------------------------------------------------------------ the file


def _continued(path: Path, header: Mapping[str, Any], space: SearchSpace) -> list[Row]:
    """The rows that are there; a file with none is begun. A last line cut short is cut off."""
    if not path.exists() or not path.stat().st_size:
        _append(path, header)
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    rows: list[Row] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            document = json.loads(line)
            if number == 1:
                _check_header(path, document, header)
                continue
            arch = parse(space, document["architecture"])
            values = float(document["accuracy"]), float(document["loss"])
            rows.append(Row(arch, *values, int(document["macs"])))
        except (ConfigError, DataError):
            raise
        except (NasError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number} is damaged: {error}") from error
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    if not whole:
        _append(path, header)
    return rows


def _check_header(path: Path, found: Any, expected: Mapping[str, Any]) -> None:
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise DataError(f"{path} holds no scores of sub-networks: its first line is {found!r:.80}")
    for key, value in expected.items():
        if found.get(key) != value:
            raise ConfigError(
                f"{path} holds other scores: {key} is {found.get(key)!r} there and {value!r} here; "
                "give another file (--out)"
            )


def _append(path: Path, document: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise JournalError(f"{path}: cannot be written: {error.strerror}") from error

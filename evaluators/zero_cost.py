"""Scores of untrained networks as metrics: ``nas.zero_cost`` as an evaluator.

Each proxy is a metric of its own; together they are ``rank_score``, the place an architecture's
scores take among those of a reference population: random architectures of the space, scored once
(``fit``). By default that is AZ-NAS (Lee & Ham, CVPR 2024): its four proxies, the geometric mean of
relative ranks, which orders as the paper's Σ ln(rank / m). What differs from the paper: the
population is fixed where the paper ranks whatever it has found so far.

Weights and batches are drawn from ``seed``, not from the proposal's: a score belongs to an
architecture, and two architectures are compared under the same draw.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost
from nas.components import create, describe
from nas.cost import parameters_and_macs
from nas.data import Data, check_fits
from nas.errors import ConfigError, DataError, ResumeError, nearest
from nas.evaluator import OnEpoch
from nas.history import write_file
from nas.objective import Metric
from nas.space import SearchSpace, network, sample, validate
from nas.training import reproducible
from nas.trial import Fidelity, Measured, NotFinite, Proposal
from nas.zero_cost import (
    AZ_NAS,
    COMBINATIONS,
    PROXIES,
    Batch,
    Combination,
    Scored,
    check_names,
    measured,
    merge,
    relative_rank,
)

REFERENCE = "zero_cost.json"
"""The file in a run's folder that holds the reference population's scores."""

FORMAT = 1
COUNTS = ("params", "macs")
RANKED = "rank_score"
SAVED_EVERY = 20


class ZeroCost:
    """Scores an architecture by zero-cost proxies, without training.

    Metrics, all maximised: ``NAME_score`` for each proxy, as the proxy gives it, and
    ``rank_score`` in [0, 1]. A network whose output does not depend on its input scores
    ``nas.zero_cost.LOWEST`` in every proxy that runs it, and 0 in ``rank_score``. The trial's notes
    (``zero_cost``) say whether it is connected and what each proxy took, in milliseconds.

    Args:
        data: what images and labels come from; not needed where no proxy needs any.
        proxies: names of ``nas.zero_cost.PROXIES``.
        batch_size: examples a pass.
        combination: how ranks are joined: ``"geometric"`` or ``"mean"``.
        network: arguments of the space to change for the networks that are scored (``channels``,
            ``cells``, ``input``): smaller ones are scored sooner. Counts are of the space's own.
        reference: architectures in the reference population.
        seed: of weights, batches, noise and the reference population.
        threads: of the CPU; more than one is not reproducible to the bit.

    Raises:
        ConfigError: an unknown proxy, a space that cannot be changed so, an argument out of range.
        DataError: the data do not fit, or a proxy needs some and there are none.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Data | None = None,
        proxies: Sequence[str] = AZ_NAS,
        batch_size: int = 16,
        combination: Combination = "geometric",
        network: Mapping[str, Any] | None = None,
        reference: int = 100,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if combination not in COMBINATIONS:
            raise ConfigError(
                f"there is no combination {combination!r}: {nearest(combination, COMBINATIONS)}"
            )
        for name, value, least in (
            ("batch_size", batch_size, 4 if "zico" in proxies else 2),
            ("reference", reference, 2),
            ("seed", seed, 0),
            ("threads", threads, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        self.space = space
        self.data = data
        self.proxies = check_names(proxies)
        self.batch_size = batch_size
        self.combination = combination
        self.network = dict(network or {})
        self.reference = reference
        self.seed = seed
        self.threads = threads
        needing = [name for name in self.proxies if PROXIES[name].needs != "nothing"]
        if needing and data is None:
            raise DataError(f"zero_cost: {', '.join(needing)} need data, and there are none")
        if data is not None:
            check_fits(data, space)
        self._scored_space = _changed(space, self.network)
        shape = tuple(self._scored_space.input)
        if data is None:
            self._batch = Batch.noise(shape, batch_size, seed)
        else:
            self._batch = Batch.of(data, batch_size, seed, shape)
        self._population: dict[str, list[float]] | None = None
        self._seconds = 0.0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        own = [Metric(f"{name}_score", "", "maximize") for name in self.proxies]
        return (*own, Metric(RANKED, "", "maximize"))

    def fit(self, folder: Path | None = None, on_epoch: OnEpoch | None = None) -> Cost:
        """Scores the reference population, unless that is done; the seconds it took in all.

        Architectures whose scores are not finite are left out of it.

        Args:
            folder: where ``zero_cost.json`` is kept, from which a run that was killed goes on.

        Raises:
            DataError: the file there is damaged.
            ResumeError: it is of other settings.
            NotFinite: as many architectures as it needs could not be scored.
        """
        if self._population is None:
            path = None if folder is None else folder / REFERENCE
            population, tried, self._seconds = self._read(path)
            start, before = time.perf_counter(), self._seconds
            rng = np.random.default_rng([self.seed, 23])
            # A run that goes on draws what it has scored again, and passes over it.
            for number in itertools.count():
                if len(population[self.proxies[0]]) >= self.reference:
                    break
                arch = sample(self.space, rng)
                if number < tried:
                    continue
                try:
                    values = self._scored(arch).values
                except NotFinite as error:
                    if number - len(population[self.proxies[0]]) >= self.reference:
                        raise NotFinite(
                            f"zero_cost: too few architectures can be scored: {error}"
                        ) from error
                    values = {}
                for name, value in values.items():
                    population[name].append(value)
                done = len(population[self.proxies[0]]) >= self.reference
                self._seconds = before + time.perf_counter() - start
                if path is not None and (number % SAVED_EVERY == SAVED_EVERY - 1 or done):
                    self._write(path, population, number + 1)
            self._population = population
        return Cost(seconds=self._seconds)

    def evaluate(self, proposal: Proposal) -> Measured:
        """Scores an architecture; raises ``NotFinite`` where a score is not finite.

        The reference population is scored first if ``fit`` was never called. A fidelity is for
        what trains, and ignored.
        """
        found = self._scored(proposal.arch)
        notes = {
            "zero_cost": {
                "connected": found.connected,
                "milliseconds": {name: round(ms, 3) for name, ms in found.milliseconds.items()},
            }
        }
        return Measured({**_named(found.values), RANKED: self._rank(found)}, notes=notes)

    def preview(self, arch: Architecture) -> Mapping[str, float]:
        """The scores that need no data; with ``rank_score`` where none does and ``fit`` is done."""
        free = tuple(name for name in self.proxies if PROXIES[name].needs == "nothing")
        if not free:
            return {}
        found = self._scored(arch, free)
        # Not before: what is scored here would not be kept in the run's folder.
        known = free == self.proxies and self._population is not None
        ranked = {RANKED: self._rank(found)} if known else {}
        return {**_named(found.values), **ranked}

    def planned_epochs(self, fidelity: Fidelity) -> float:
        return 0.0

    # ------------------------------------------------------------------------------ scores

    def _scored(self, arch: Architecture, wanted: Sequence[str] | None = None) -> Scored:
        names = self.proxies if wanted is None else tuple(wanted)
        validate(self.space, arch)
        values: dict[str, float] = {}
        start = time.perf_counter()
        if any(name in COUNTS for name in names):
            counts = parameters_and_macs(self.space, arch)
            values.update(zip(COUNTS, map(float, counts), strict=True))
        milliseconds = {"counts": 1000 * (time.perf_counter() - start)}
        running = [name for name in names if name not in COUNTS]
        connected = True
        if running:
            start = time.perf_counter()
            with reproducible(self.seed, self.threads):
                built = network(self._scored_space, arch)
                milliseconds["build"] = 1000 * (time.perf_counter() - start)
                where = f"{self.space.name} {arch}"
                found = measured(running, built, self._batch, self.seed, where)
            values.update(found.values)
            milliseconds.update(found.milliseconds)
            connected = found.connected
        return Scored({name: values[name] for name in names}, connected, milliseconds)

    def _rank(self, found: Scored) -> float:
        self.fit()
        assert self._population is not None
        if not found.connected:
            return 0.0
        ranks = [
            relative_rank(value, self._population[name]) for name, value in found.values.items()
        ]
        return float(merge(np.array(ranks), self.combination))

    # ----------------------------------------------------------------------------- the file

    def _facts(self) -> dict[str, Any]:
        """What the reference population's scores depend on."""
        names = ("space", "data", "proxies", "batch_size", "network", "reference", "seed")
        facts = {name: describe(getattr(self, name)) for name in names}
        return dict(json.loads(json.dumps(facts)))

    def _write(self, path: Path, population: Mapping[str, Sequence[float]], tried: int) -> None:
        document = {
            "format": FORMAT,
            "facts": self._facts(),
            "tried": tried,
            "seconds": self._seconds,
            "scores": population,
        }
        write_file(path, json.dumps(document).encode())

    def _read(self, path: Path | None) -> tuple[dict[str, list[float]], int, float]:
        """The scores so far, how many architectures were tried for them, and the seconds."""
        if path is None or not path.exists():
            return {name: [] for name in self.proxies}, 0, 0.0
        try:
            document = json.loads(path.read_text())
            if document["format"] != FORMAT:
                raise DataError(f"{path} has the format {document['format']}, expected {FORMAT}")
            facts = document["facts"]
            scores = {
                name: [float(v) for v in document["scores"][name]] for name in facts["proxies"]
            }
            tried, seconds = int(document["tried"]), float(document["seconds"])
        except (KeyError, TypeError, ValueError, OSError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{path} is damaged or no reference population of zero_cost ({error!r}); "
                "delete it to score one anew"
            ) from error
        mine = self._facts()
        for name, value in mine.items():
            if facts.get(name) != value:
                raise ResumeError(
                    f"{path} is of {name} {facts.get(name)!r}, but the evaluator has {value!r}"
                )
        counts = {len(values) for values in scores.values()}
        if len(counts) != 1 or not np.isfinite(list(scores.values())).all():
            raise DataError(f"{path} is damaged: its proxies have {sorted(counts)} finite scores")
        return scores, tried, seconds


def _named(values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_score": value for name, value in values.items()}


def _changed(space: SearchSpace, changes: Mapping[str, Any]) -> SearchSpace:
    """The space with some of its arguments changed, but with the same choices."""
    if not changes:
        return space
    if dataclasses.is_dataclass(space) and not isinstance(space, type):
        known = [field.name for field in dataclasses.fields(space) if field.init]
        for name in changes:
            if name not in known:
                raise ConfigError(
                    f"zero_cost.network: {space.name!r} has no argument {name!r}: "
                    f"{nearest(name, known)}"
                )
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
        changed: SearchSpace = dataclasses.replace(space, **tuples)
    else:
        changed = create("spaces", {**describe(space), **changes}, "zero_cost.network")
    if changed.name != space.name or tuple(changed.choices) != tuple(space.choices):
        raise ConfigError(
            f"zero_cost.network: with {dict(changes)} {space.name!r} has other choices: change "
            "sizes only"
        )
    return changed

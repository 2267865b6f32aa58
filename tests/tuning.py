"""Sweeps of Ray Tune for its tests: what they measure, and a driver that is to be killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from clusters import start
from ray import tune
from workloads import Score, strategy

from nas.execution.tune import TuneSearcher, proposal_from
from nas.execution.tune_trainable import tune_trainable
from nas.testing.toys import Continues
from nas.trial import Infeasible, Measured, Proposal, Trial


class Picky(Score):
    """Raises in its second trial, breaks a limit in the third."""

    def evaluate(self, proposal: Proposal) -> Measured | Infeasible:
        if proposal.number == 1:
            raise LookupError("the cable is loose")
        if proposal.number == 2:
            return Infeasible("too large by far")
        return super().evaluate(proposal)


@dataclass(frozen=True)
class Steps(Continues):
    """The sum of the picks and the rate, an epoch; notes from which epoch it went on."""

    rate: float = 0.0

    def _trained(self, proposal: Proposal, done: int) -> Measured:
        trained = super()._trained(proposal, done)
        speed = self.rate + sum(int(pick) for _, pick in proposal.arch.picks)
        values = {"score": trained.values["score"] * speed, "before": float(done)}
        return replace(trained, values=values)


def at_rate(evaluator: Steps, config: dict[str, Any]) -> Steps:
    return replace(evaluator, rate=config["rate"])


def own(config: dict[str, Any]) -> None:
    """Somebody's own trainable, of two objectives."""
    proposal = proposal_from(config)
    cost = int(proposal.arch["c0"])
    if proposal.number == 1:
        tune.report({"score": float("nan"), "cost": cost, "infeasible": "too large by far"})
    else:
        tune.report({"score": Score().evaluate(proposal).values["score"], "cost": cost})


class Told:
    """A strategy that keeps what it is told; ``most`` proposals, unless more is told."""

    def __init__(self, inner: Any, most: int | None = None) -> None:
        self.inner = inner
        self.most = most
        self.trials: list[Trial] = []
        self.space = inner.space
        self.objectives = inner.objectives
        self.seed = inner.seed
        self.asked = 0

    def ask(self, n: int) -> list[Proposal]:
        if self.most is not None and self.asked - len(self.trials) >= self.most:
            return []
        proposals = list(self.inner.ask(n))
        self.asked += len(proposals)
        return proposals

    def tell(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.inner.tell(trial)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.inner.load_state_dict(state)


def tuner(
    trainable: Any,
    folder: Path | str,
    searcher: TuneSearcher | None,
    samples: int,
    run: dict[str, Any] | None = None,
    param_space: dict[str, Any] | None = None,
    **settings: Any,
) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=samples, reuse_actors=True, **settings
        ),
        run_config=tune.RunConfig(name="sweep", storage_path=str(folder), verbose=0, **(run or {})),
    )


SAMPLES = 14


def main() -> None:
    """``new|restored FOLDER``: a sweep of evolution whose trials take a while; one at a time."""
    how, folder = sys.argv[1:]
    start()
    trainable = tune_trainable(Score(0.4))
    if how == "new":
        searcher = TuneSearcher(strategy("evolution"))
        made = tuner(trainable, folder, searcher, SAMPLES, max_concurrent_trials=1)
    else:
        resources = tune.with_resources(trainable, {"cpu": 1})
        made = tune.Tuner.restore(f"{folder}/sweep", resources)
    print("ready", flush=True)
    results = made.fit()
    found = [proposal_from(result.config).number for result in results]
    assert all("score" in result.metrics for result in results)
    print("done", sorted(found), flush=True)
    for result in sorted(results, key=lambda result: proposal_from(result.config).number):
        print("arch", proposal_from(result.config).arch, flush=True)
    ray.shutdown()

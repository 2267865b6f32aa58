"""A search whose children inherit, for processes that are to be killed."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from evaluators.inherited import InheritedTraining
from nas import Budget, History, Serial, maximize
from nas.data import digits
from nas.morphism import morphisms
from nas.search import search
from nas.strategy import proposal_rng
from nas.testing.toys import Uniform
from search_spaces.chain import Chain

FRACTION = 0.2
TRIALS = 7


def space():
    return Chain(
        input=(1, 8, 8), depths=(1, 2, 3), kernels=(1, 3), widths=(4, 6), dense=(0,), strides=(1, 2)
    )


class Growing(Uniform):
    """Two random architectures; then each is a morphism of the one two before it."""

    def __init__(self, space, objectives, seed=0):
        super().__init__(space, objectives, seed)
        self._archs = []

    def _propose(self, number):
        proposal = super()._propose(number)
        if number >= 2:
            parent = self._archs[number - 2]
            steps = morphisms(self.space, parent)
            arch = parent
            if steps:
                rng = proposal_rng(self.seed, number)
                arch = steps[int(rng.integers(len(steps)))].child
            proposal = replace(proposal, arch=arch, parent=number - 2)
        self._archs.append(proposal.arch)
        return proposal

    def ask(self, n):
        # A parent has to be measured before its child is asked for.
        return super().ask(1) if self._number == self._told else []

    _told = 0

    def tell(self, trial):
        self._told = trial.number + 1

    def state_dict(self):
        return {"number": self._number, "told": self._told}

    def load_state_dict(self, state):
        self._number, self._told = 0, state["told"]
        for number in range(state["number"]):
            self._propose(number)
        self._number = state["number"]


class DiesOnce(InheritedTraining):
    """Trains, but the worker that is first to train a child dies of it.

    Args:
        folder: where it notes that it happened; ``None`` for never.
    """

    def __init__(self, folder=None):
        super().__init__(
            space(), digits(), epochs=1, first_epochs=2, data_fraction=FRACTION, device="cpu"
        )
        self.folder = folder

    def evaluate_child(self, proposal, parent):
        if self.folder is not None:
            died = Path(self.folder) / "died"
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate_child(proposal, parent)


def run(executor, history, evaluator=None):
    """A search; all its trials."""
    evaluator = DiesOnce() if evaluator is None else evaluator
    strategy = Growing(space(), (maximize("accuracy"),), 3)
    for _ in search(strategy, evaluator, executor, Budget(trials=TRIALS), history):
        pass
    return history.trials


def main():
    run(Serial(), History(sys.argv[1]))
    print("done", flush=True)

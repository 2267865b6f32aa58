"""The fidelity layers save what they are there to save, where short trainings tell of long ones."""

from __future__ import annotations

import numpy as np
import pytest
from workloads import Line

from nas.budget import Cost
from nas.objective import maximize
from nas.trial import Measured, Trial
from strategies.asha import Asha
from strategies.hyperband import Hyperband
from strategies.regularized_evolution import RegularizedEvolution

EPOCHS = 27
SPACE = Line()


def made_up_table():
    """Fully trained accuracies of all 7,776 architectures: places matter, and pairs of them."""
    rng = np.random.default_rng(4)
    places = np.indices((6,) * 5)
    total = sum(rng.normal(size=6)[places[i]] for i in range(5))
    for i in range(4):
        total = total + 0.5 * rng.normal(size=(6, 6))[places[i], places[i + 1]]
    return (total - total.min()) / (total.max() - total.min())


FINAL = made_up_table()


def accuracy(arch, seed, epochs):
    """Learning curves that rise to what is final, with a noise that falls with the epochs."""
    final = FINAL[tuple(pick for _, pick in arch.picks)]
    noise = np.random.default_rng([seed, epochs]).normal()
    return final - 0.5 * epochs**-0.5 + 0.1 * (1 / epochs - 1 / EPOCHS) * noise


def regret(strategy, budget):
    """That of the best of those trained longest, when so many epochs were trained."""
    spent, epochs_of, best = 0, {}, (0, 0.0)
    while spent < budget:
        (proposal,) = strategy.ask(1)
        epochs = proposal.fidelity.epochs or EPOCHS
        spent += epochs - epochs_of.get(proposal.continues, 0)
        epochs_of[proposal.number] = epochs
        value = accuracy(proposal.arch, proposal.seed, epochs)
        strategy.tell(Trial(proposal, Measured({"accuracy": value}), Cost(trials=1)))
        best = max(best, (epochs, FINAL[tuple(pick for _, pick in proposal.arch.picks)]))
    return 1.0 - best[1]


@pytest.mark.parametrize("layer", [Asha, Hyperband])
def test_a_third_of_the_epochs_is_enough(layer):
    def evolution(seed):
        return RegularizedEvolution(SPACE, (maximize("accuracy"),), seed, 20, 5)

    whole = 100 * EPOCHS
    full = [regret(evolution(seed), whole) for seed in range(20)]
    alone = [regret(evolution(seed), whole / 3) for seed in range(20)]
    layered = [regret(layer(evolution(seed), max_epochs=EPOCHS), whole / 3) for seed in range(20)]
    # Measured: 0.00 in the median, as with all of it; 0.20 without the layer.
    assert np.median(layered) <= np.median(full)
    assert np.median(layered) < 0.5 * np.median(alone)

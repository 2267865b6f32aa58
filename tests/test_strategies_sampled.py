"""GDAS, SNAS, DrNAS and β-DARTS hold the strategy contract; a killed search goes on."""

from __future__ import annotations

import signal
import sys

from gradient_workloads import Edges, GradientContract, described, quick
from workloads import driver, wait_until

from nas.budget import Budget
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.objective import maximize
from nas.search import search
from nas.testing.compare import first_difference
from nas.testing.toys import ToyEvaluator
from strategies.beta_darts import BetaDarts
from strategies.darts import SETTINGS, Darts
from strategies.drnas import DrNas
from strategies.gdas import Gdas
from strategies.snas import Snas


class TestGdas(GradientContract):
    kind = Gdas


class TestSnas(GradientContract):
    kind = Snas


class TestDrNas(GradientContract):
    kind = DrNas


class TestBetaDarts(GradientContract):
    kind = BetaDarts


# -------------------------------------------------------------------------------- the kill


def second_order_search(folder=None):
    strategy = Darts(
        Edges(),
        (maximize("score"),),
        described(examples=60),
        seed=2,
        settings=quick(SETTINGS, epochs=8, batch_size=4),
        order=2,
    )
    history = History(folder, snapshot_every_s=0.0)
    return search(strategy, ToyEvaluator(Edges()), Serial(), Budget(trials=8), history)


def main() -> None:
    """Runs the search in a folder, saying when a trial is done."""
    print("ready", flush=True)
    for trial in second_order_search(sys.argv[1]):
        print(trial.number, flush=True)


def test_a_search_killed_in_an_epoch_ends_where_the_uninterrupted_one_ends(tmp_path):
    whole = list(second_order_search())
    assert len(whole) == 8
    with driver("import test_strategies_sampled as t; t.main()", str(tmp_path)) as process:
        for line in process.stdout:
            if line.strip() == "3":
                break
        # The next epoch runs now: a trial itself takes next to no time.
        process.send_signal(signal.SIGKILL)
        assert wait_until(lambda: process.poll() is not None)
    done = (tmp_path / JOURNAL).read_text().count('"event":"trial"')
    assert 4 <= done < 8
    rest = list(second_order_search(tmp_path))
    assert len(rest) == 8 - done
    trials = History(tmp_path).trials
    assert not first_difference(
        [(t.proposal, t.outcome) for t in trials], [(t.proposal, t.outcome) for t in whole]
    )

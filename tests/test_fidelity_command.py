"""``nas fidelity``: the same architectures at each fidelity, resumed, compared, drawn."""

from __future__ import annotations

import functools
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluators.tabular import TabularEvaluator
from evaluators.training import TrainingEvaluator
from nas import cli
from nas.budget import Budget
from nas.components import create, describe
from nas.data import digits
from nas.errors import ConfigError, NasError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.fidelity import at_size, filled, format_fidelity, parse_fidelity
from nas.fidelity_study import OTHER_SEEDS, FidelitySweep, compare
from nas.history import History
from nas.journal import proposal_from_document, proposal_to_document
from nas.objective import maximize, minimize
from nas.ranking import rank_agreement
from nas.search import search
from nas.space import network, sample
from nas.testing.toys import FlatSpace
from nas.trial import STOPPED, Fidelity, Proposal
from search_spaces.chain import Chain
from search_spaces.darts import Darts
from search_spaces.nasbench201 import NasBench201

THREE = ("none", "skip_connect", "nor_conv_3x3")
SPACE = NasBench201(channels=4, cells=1, input=(1, 8, 8), operations=THREE)
CONFIG = """
space: {name: nasbench201, channels: 4, cells: 1, operations: [none, skip_connect, nor_conv_3x3]}
strategy: random
evaluator: {name: tabular, table: digits, runs: seed}
objectives: [minimize loss, maximize accuracy]
budget: {trials: 3}
"""

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results" / "fidelity.md").read_text()


def sweep(**others):
    common = {"low": ("epochs=1", "epochs=8"), "full": "epochs=16", "count": 12, "seeds": 2}
    return FidelitySweep(SPACE, (maximize("accuracy"),), **{**common, **others})


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals as wide as they are: a thousand resamples take seconds."""
    quick = functools.partial(rank_agreement, resamples=20)
    monkeypatch.setattr("nas.fidelity_study.rank_agreement", quick)


def run(strategy, folder=None, stop_after=None):
    evaluator = TabularEvaluator(SPACE, "digits", runs="seed")
    history = History(folder)
    budget = Budget(trials=strategy.trials)
    for done, _ in enumerate(search(strategy, evaluator, Serial(), budget, history), start=1):
        if done == stop_after:
            break
    return history


# ---------------------------------------------------------------------------------- fidelities


@pytest.mark.parametrize(
    ("text", "fidelity"),
    [
        ("epochs=3", Fidelity(3)),
        ("epochs=3,data_fraction=0.5,resolution=14", Fidelity(3, 0.5, 14)),
        ("channels=8,cells=2", Fidelity(channels=8, cells=2)),
    ],
)
def test_fidelities_are_read_as_they_are_written(text, fidelity):
    assert parse_fidelity(text) == fidelity
    assert format_fidelity(fidelity) == text
    document = json.loads(json.dumps(proposal_to_document(Proposal(0, ARCH, 0, fidelity))))
    assert proposal_from_document(document).fidelity == fidelity


ARCH = sample(SPACE, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "expected NAME=VALUE"),
        ("epoch=3", "has no 'epoch': did you mean 'epochs'"),
        ("epochs=3,epochs=4", "gives epochs twice"),
        ("epochs=1.5", "epochs must be a whole number"),
        ("data_fraction=half", "data_fraction must be a number"),
        ("channels=0", "channels must be at least 1, got 0"),
    ],
)
def test_fidelities_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_fidelity(text)


def test_what_is_left_open_is_filled():
    assert filled(Fidelity(2), Fidelity(9, 0.5)) == Fidelity(2, 0.5)
    assert format_fidelity(Fidelity()) == "default"


def test_a_space_is_rebuilt_at_the_size_asked_for():
    assert at_size(SPACE, Fidelity(epochs=1)) is SPACE
    small = at_size(SPACE, Fidelity(channels=2, cells=3))
    assert small == NasBench201(channels=2, cells=3, input=(1, 8, 8), operations=THREE)
    darts = Darts(channels=8, cells=4, input=(1, 8, 8))
    arch = sample(darts, np.random.default_rng(1))

    def parameters(space):
        return sum(p.numel() for p in network(space, arch).parameters())

    assert parameters(at_size(darts, Fidelity(cells=2))) < parameters(darts)


def test_a_space_that_has_no_such_size_is_refused_by_name():
    with pytest.raises(UnsupportedRequest, match=r"space '.*' has no argument 'channels'"):
        at_size(FlatSpace(), Fidelity(channels=4))
    with pytest.raises(UnsupportedRequest, match=r"'chain.* has no argument 'cells'.* kernels"):
        at_size(Chain(input=(1, 8, 8)), Fidelity(cells=4))
    with pytest.raises(ConfigError, match="channels must be at least 2"):
        at_size(Darts(channels=8, cells=4), Fidelity(channels=1))


def test_smaller_networks_are_trained_and_keep_no_weights():
    evaluator = TrainingEvaluator(SPACE, digits(), epochs=1, data_fraction=0.1)
    small = evaluator.evaluate(Proposal(0, ARCH, 1, Fidelity(channels=2, cells=2)))
    alone = TrainingEvaluator(
        at_size(SPACE, Fidelity(channels=2, cells=2)), digits(), epochs=1, data_fraction=0.1
    )
    assert small.values == alone.evaluate(Proposal(0, ARCH, 1)).values
    assert small.artifacts == {}
    assert evaluator.evaluate(Proposal(0, ARCH, 1, Fidelity(channels=4))).artifacts


def test_a_table_knows_no_smaller_networks():
    with pytest.raises(UnsupportedRequest, match="of one size"):
        TabularEvaluator(SPACE, "digits").evaluate(Proposal(0, ARCH, 0, Fidelity(cells=2)))


# --------------------------------------------------------------------------------- the sweep


def test_each_architecture_is_measured_at_each_fidelity_under_seeds_of_its_own():
    asked = list(sweep().ask(5))
    strategy = sweep()
    asked = [p for n in (1, 7, 100) for p in strategy.ask(n)]
    assert len(asked) == strategy.trials == 12 * 2 * 3
    assert [p.number for p in asked] == list(range(72))
    assert len({p.seed for p in asked}) == 72
    by_arch = {}
    for proposal in asked:
        by_arch.setdefault(SPACE.canonical(proposal.arch), []).append(proposal.fidelity.epochs)
    assert len(by_arch) == 12
    assert {tuple(sorted(epochs)) for epochs in by_arch.values()} == {(1, 1, 8, 8, 16, 16)}
    assert not strategy.ask(3)


def test_a_sweep_that_was_killed_goes_on_where_it_was(tmp_path):
    whole = run(sweep())
    run(sweep(), tmp_path / "cut", stop_after=31)
    cut = run(sweep(), tmp_path / "cut")
    assert [t.values for t in cut.trials] == [t.values for t in whole.trials]
    again = create("strategies", json.loads(json.dumps(describe(sweep()))), "strategy")
    assert again.ask(72) == sweep().ask(72)


def test_comparisons_are_those_of_the_table():
    strategy = sweep(count=20)
    history = run(strategy)
    rows = compare(strategy, history.trials)
    assert [row.fidelity for row in rows] == ["epochs=1", "epochs=8", OTHER_SEEDS]
    truth, low, halves = {}, {}, {}
    for trial in history.trials:
        epochs, value = trial.proposal.fidelity.epochs, trial.values["accuracy"]
        if epochs == 16:
            truth.setdefault(trial.arch, []).append(value)
            halves.setdefault(trial.arch, []).append(value)
        elif epochs == 8:
            low.setdefault(trial.arch, []).append(value)
    scores, truths = ([np.mean(of[arch]) for arch in truth] for of in (low, truth))
    expected = rank_agreement(scores, truths, resamples=20)
    assert rows[1].agreement == expected
    one, other = ([values[k] for values in halves.values()] for k in (1, 0))
    ceiling = rank_agreement(one, other, resamples=20)
    assert rows[2].agreement == ceiling
    assert [row.epochs for row in rows] == [1 / 16, 8 / 16, 1.0]
    assert rows[1].seconds == pytest.approx(0.5, rel=0.2)
    assert {row.left_out for row in rows} == {0}
    # What is minimised ranks the other way round.
    turned = FidelitySweep(SPACE, (minimize("accuracy"),), ("epochs=1", "epochs=8"), "epochs=16",
                           20, 2)  # fmt: skip
    assert compare(turned, history.trials)[1].agreement.kendall.value == expected.kendall.value
    assert compare(turned, history.trials)[1].pairs[0].truth == -rows[1].pairs[0].truth


def test_failures_are_left_out_and_too_many_are_said():
    strategy = sweep(low=("epochs=8", "epochs=9999"))
    with pytest.raises(NasError, match=r"epochs=9999: only 0 of 12 .*the first failure: .*9999"):
        compare(strategy, run(strategy).trials)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": ("epochs=16",)}, "one is there twice among epochs=16, epochs=16"),
        ({"low": ()}, "no low fidelity"),
        ({"count": 2}, "count must be at least 3"),
        ({"seeds": 0}, "seeds at least 1"),
        ({"full": "16"}, "expected NAME=VALUE"),
    ],
)
def test_bad_sweeps_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        sweep(**settings)


# --------------------------------------------------------------------------------- the command


@pytest.fixture
def nas(tmp_path, monkeypatch, capfd):
    """Runs ``nas fidelity`` in a folder with a configuration; gives code, output and errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tab.yaml").write_text(CONFIG)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nas", "fidelity", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


LOW = ("--low", "epochs=1", "--low", "epochs=8", "--full", "epochs=16")


def test_the_command_prints_draws_and_goes_on(nas, tmp_path):
    code, out, err = nas("tab.yaml", *LOW, "--count", "8", "--metric", "accuracy", "--seeds", "2")
    assert (code, err.count("error")) == (0, 0)
    assert "8 random architectures, 2 × each, accuracy against epochs=16" in out
    assert OTHER_SEEDS in out
    folder = tmp_path / "runs" / "tab-fidelity"
    assert (folder / "fidelity.png").read_bytes()[:4] == b"\x89PNG"
    whole = (folder / "journal.jsonl").read_bytes()
    (folder / "journal.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:9]))
    again = ("tab.yaml", *LOW, "--count", "8", "--metric", "accuracy", "--seeds", "2", "--json")
    code, out, err = nas(*again)
    assert code == 0, err
    document = json.loads(out)
    assert document["metric"] == "accuracy"
    assert [row["fidelity"] for row in document["fidelities"]] == ["epochs=1", "epochs=8",
                                                                   OTHER_SEEDS]  # fmt: skip
    assert document["fidelities"][0]["cost_epochs"] == 1 / 16
    stored = json.loads((folder / "fidelity.json").read_text())
    assert len(stored["fidelities"][0]["pairs"]) == 8


def test_full_trainings_are_not_given_up(nas, tmp_path):
    """What a fidelity is judged by is full, also where the search would give up."""
    (tmp_path / "stops.yaml").write_text(
        CONFIG.replace(
            "{name: tabular, table: digits, runs: seed}",
            "{name: training, data_fraction: 0.5, early_stop: {probability: 0.99}}",
        ).replace("space:", "data: digits\nspace:", 1)
    )
    words = ("--low", "epochs=1", "--full", "epochs=6", "--count", "4", "--metric", "accuracy")
    code, _, err = nas("stops.yaml", *words, "--out", "found")
    assert code == 0, err
    trials = History(tmp_path / "found").trials
    assert len(trials) == 8
    assert not any(STOPPED in trial.notes for trial in trials)
    assert {trial.cost.epochs for trial in trials} == {0.5, 3.0}


def test_the_command_takes_a_run_and_its_first_objective(nas, tmp_path):
    strategy = create(
        "strategies", "random", "s", {"space": SPACE, "objectives": (minimize("loss"),)}
    )
    evaluator = TabularEvaluator(SPACE, "digits")
    list(search(strategy, evaluator, Serial(), Budget(trials=1), History(tmp_path / "run")))
    code, out, err = nas("run", *LOW, "--count", "5")
    assert code == 0, err
    assert "loss against epochs=16" in out
    assert (tmp_path / "run" / "fidelity" / "fidelity.json").exists()


def test_the_command_refuses_what_makes_no_sense(nas):
    for arguments, message in (
        (("--metric", "acuracy"), "did you mean 'accuracy'"),
        (("--low", "epoch=1"), "did you mean 'epochs'"),
    ):
        code, _, err = nas("tab.yaml", *LOW, "--count", "5", *arguments)
        assert code == 2
        assert message in err


@pytest.mark.parametrize("command", re.findall(r"^nas fidelity .*", PAGE, flags=re.MULTILINE))
def test_the_commands_of_the_results_run(nas, command):
    """As they stand, but for fewer and shorter trainings."""
    words = shlex.split(command)[2:]
    words[0] = str(ROOT / words[0])
    words[words.index("--count") + 1] = "3"
    if "table" not in words[0]:
        low = [word for word in words if word.startswith("epochs=")]
        for word in low[:-1]:  # the last is full training
            del words[words.index(word) - 1 : words.index(word) + 1]
        words = [word.replace("epochs=16", "epochs=1") for word in words]
        words += ["--set", "evaluator.data_fraction=0.1"]
    code, out, err = nas(*words, "--out", "found")
    assert code == 0, err
    assert "3 random architectures" in out

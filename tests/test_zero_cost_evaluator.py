"""Zero-cost proxies as an evaluator: contract, reference population, stages, the command."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import nn
from typer.testing import CliRunner

from evaluators.staged import Staged
from evaluators.zero_cost import REFERENCE, ZeroCost
from nas.budget import Budget
from nas.cli import app
from nas.config import build
from nas.cost import parameters_and_macs
from nas.data import digits
from nas.described import described
from nas.errors import ConfigError, DataError, NasError, ResumeError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.history import History
from nas.layers import GlobalAveragePool
from nas.objective import maximize, minimize
from nas.search import search
from nas.space import parse, sample
from nas.testing import EvaluatorContract
from nas.testing.toys import ToyEvaluator, toy_proposals
from nas.trial import Infeasible, Measured
from nas.zero_cost import LOWEST, PROXIES
from nas.zero_cost.recipe import NASBENCH201
from search_spaces.chain import Chain
from search_spaces.nasbench201 import NasBench201
from strategies.random_search import RandomSearch

DIGITS = functools.cache(digits)
DISCONNECTED = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def space():
    return NasBench201(channels=4, cells=1, input=(1, 8, 8))


class TestZeroCost(EvaluatorContract):
    def space(self):
        return space()

    def evaluator(self):
        return ZeroCost(self.space(), reference=4, batch_size=4)


class TestZeroCostWithData(EvaluatorContract):
    def space(self):
        return space()

    def evaluator(self):
        proxies = ("naswot", "macs", "synflow", "snip")
        return ZeroCost(
            self.space(), DIGITS(), proxies, 4, "mean", {"channels": 2, "input": [1, 6, 6]}, 3
        )

    def test_what_needs_data_is_not_previewed(self):
        preview = self.evaluator().preview(self.proposals()[0].arch)
        assert set(preview) == {"macs_score", "synflow_score"}


class TestZeroCostOfChains(EvaluatorContract):
    def space(self):
        return Chain(input=(1, 8, 8), widths=(4,), dense_widths=(8,))

    def evaluator(self):
        return ZeroCost(self.space(), DIGITS(), ("params", "grad_norm"), reference=2)


def evaluate(evaluator, text):
    return evaluator.evaluate(
        replace(toy_proposals(evaluator.space, 1)[0], arch=parse(evaluator.space, text))
    )


def test_counts_are_those_of_the_space_and_not_of_the_small_network():
    evaluator = ZeroCost(space(), network={"channels": 2}, reference=2, batch_size=4)
    proposal = toy_proposals(space(), 1)[0]
    macs = evaluator.evaluate(proposal).values["macs_score"]
    assert macs == parameters_and_macs(space(), proposal.arch)[1]


def test_a_disconnected_architecture_scores_lowest():
    evaluator = ZeroCost(space(), reference=3, batch_size=4)
    outcome = evaluate(evaluator, DISCONNECTED)
    assert isinstance(outcome, Measured)
    assert outcome.values["expressivity_score"] == LOWEST
    assert outcome.values["rank_score"] == 0
    assert outcome.notes["zero_cost"]["connected"] is False
    assert all(
        evaluator.evaluate(proposal).values["rank_score"] > 0
        for proposal in toy_proposals(space(), 6)
        if evaluator.evaluate(proposal).notes["zero_cost"]["connected"]
    )


def test_scores_do_not_depend_on_the_proposal_but_on_the_seed():
    proposal = toy_proposals(space(), 1)[0]
    one = ZeroCost(space(), proxies=("zen",), reference=2, batch_size=4)
    other = ZeroCost(space(), proxies=("zen",), reference=2, batch_size=4, seed=1)
    value = one.evaluate(proposal).values["zen_score"]
    assert one.evaluate(replace(proposal, seed=99)).values["zen_score"] == value
    assert other.evaluate(proposal).values["zen_score"] != value


def test_a_limit_on_a_score_stops_before_the_next_stage():
    scored = ZeroCost(space(), proxies=("synflow",), reference=8, batch_size=4)
    objectives = (maximize("score"), maximize("synflow_score", limit=14.0))
    staged = Staged((scored, ToyEvaluator(space())), objectives)
    outcomes = [staged.evaluate(proposal) for proposal in toy_proposals(space(), 12)]
    assert {type(outcome) for outcome in outcomes} == {Measured, Infeasible}
    for outcome in outcomes:
        assert isinstance(outcome, Infeasible) == (outcome.values["synflow_score"] < 14.0)
        assert ("score" in outcome.values) == isinstance(outcome, Measured)


@pytest.mark.parametrize("limit", [None, 0.0])
def test_a_search_by_rank_score_keeps_the_reference_in_its_folder(tmp_path, limit):
    """Also where a limit is looked at before there is a folder."""
    evaluator = ZeroCost(space(), reference=5, batch_size=4)
    objectives = (maximize("rank_score", limit=limit), minimize("macs_score"))
    strategy = RandomSearch(space(), objectives, seed=0)
    history = History(tmp_path / "run")
    trials = list(search(strategy, evaluator, Serial(), Budget(trials=4), history))
    assert all(0 <= trial.values["rank_score"] <= 1 for trial in trials)
    assert (tmp_path / "run" / REFERENCE).exists()


# -------------------------------------------------------------------- reference population


def settings(**changes):
    return ZeroCost(space(), **{"reference": 25, "batch_size": 4, **changes})


def test_a_killed_fit_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = settings()
    whole.fit()
    killed = settings()
    scored, calls = killed._scored, []

    def once(arch, wanted=None):
        calls.append(arch)
        if len(calls) > 23:
            raise KeyboardInterrupt
        return scored(arch, wanted)

    monkeypatch.setattr(killed, "_scored", once)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(tmp_path)
    again = settings()
    calls.clear()
    counted = again._scored
    monkeypatch.setattr(
        again, "_scored", lambda arch, wanted=None: calls.append(arch) or counted(arch, wanted)
    )
    cost = again.fit(tmp_path)
    assert len(calls) == 5
    assert cost.seconds > 0
    assert again._population == whole._population
    calls.clear()
    assert settings().fit(tmp_path).seconds == pytest.approx(cost.seconds)
    assert not calls


def test_a_file_of_other_settings_is_refused(tmp_path):
    settings(reference=2).fit(tmp_path)
    with pytest.raises(ResumeError, match=r"zero_cost\.json is of seed 0, but the evaluator has 1"):
        settings(reference=2, seed=1).fit(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "facts": {"proxies": ["a"]}}']
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / REFERENCE).write_text(content)
    with pytest.raises(DataError, match=r"zero_cost\.json"):
        settings().fit(tmp_path)


def test_a_file_with_a_score_that_is_not_finite_is_refused(tmp_path):
    settings(reference=2).fit(tmp_path)
    document = json.loads((tmp_path / REFERENCE).read_text())
    document["scores"]["macs"][0] = math.inf
    (tmp_path / REFERENCE).write_text(json.dumps(document))
    with pytest.raises(DataError, match="is damaged"):
        settings(reference=2).fit(tmp_path)


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proxies": ("macs", "synflaw")}, "did you mean 'synflow'"),
        ({"proxies": ()}, "there are no proxies"),
        ({"proxies": ("naswot",)}, "naswot need data"),
        ({"combination": "sum"}, "there is no combination 'sum'"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"reference": 1}, "reference must be at least 2"),
        ({"network": {"chanels": 2}}, "did you mean 'channels'"),
        ({"network": {"operations": ("none", "skip_connect")}}, "other choices"),
        ({"network": {"channels": 0}}, "channels must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(NasError, match=message):
        ZeroCost(space(), **arguments)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(DataError):
        ZeroCost(NasBench201(channels=2, cells=1), DIGITS(), ("naswot",))
    with pytest.raises(ConfigError, match="batch_size must be at least 4, got 3"):
        ZeroCost(space(), DIGITS(), ("zico",), batch_size=3)


def linear(builder):
    width = builder.number("width", (4, 8))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))


def users(builder):
    width = builder.number("width", (4, 8))
    layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Hardswish()]
    layers += [nn.Conv2d(width, width, builder.number("kernel", (1, 3))), GlobalAveragePool()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def test_a_users_space_is_scored_by_every_proxy():
    own = described(users, input=(1, 8, 8), classes=10)
    evaluator = ZeroCost(own, DIGITS(), tuple(PROXIES), 8, reference=2)
    rng = np.random.default_rng(0)
    proposal = replace(toy_proposals(own, 1)[0], arch=sample(own, rng))
    assert len(evaluator.evaluate(proposal).values) == len(PROXIES) + 1


def test_a_space_without_what_a_proxy_needs_is_named():
    own = described(linear, input=(1, 8, 8), classes=10)
    evaluator = ZeroCost(own, DIGITS(), ("naswot",), 4)
    with pytest.raises(UnsupportedRequest, match=rf"naswot of {own.name}.*width=.*activations"):
        evaluator.evaluate(toy_proposals(own, 1)[0])


# ----------------------------------------------------------------------------- command line


def test_the_command_scores_an_architecture():
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
    arguments = [
        "zero-cost",
        "nasbench201",
        "--arch",
        text,
        "--set",
        "channels=2",
        "--set",
        "cells=1",
    ]
    done = CliRunner().invoke(app, [*arguments, "--data", "digits", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["connected"] is True
    assert "naswot" in document["scores"]
    free = CliRunner().invoke(app, [*arguments, "--proxies", "synflow,zen", "--set", "input=3x8x8"])
    assert free.output.split()[0] == "synflow"
    refused = CliRunner().invoke(app, [*arguments, "--proxies", "naswot"])
    assert isinstance(refused.exception, ConfigError)
    assert "naswot needs data" in str(refused.exception)


LINEAR = """
from torch import nn
from nas.described import described


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu())


def net(builder):
    return Net(builder.number("width", (8, 256)))


def space():
    return described(net, input=(1, 8, 8), classes=10)
"""


def test_the_command_leaves_out_what_a_network_has_no_layers_for(tmp_path, monkeypatch):
    (tmp_path / "linear_net.py").write_text(LINEAR)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["zero-cost", "linear_net:space", "--arch", "width=256", "--data", "digits"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.exception
    document = json.loads(done.output)
    assert {"params", "naswot", "snip", "synflow"} <= set(document["scores"])
    assert "zen" not in document["scores"]
    assert any("zen of" in why and "batch norms" in why for why in document["left_out"])
    asked = CliRunner().invoke(app, [*arguments, "--proxies", "zen"])
    assert isinstance(asked.exception, UnsupportedRequest)
    arguments[3] = "width=8"
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert any("the same code" in why for why in json.loads(done.output)["left_out"])


# ------------------------------------------------------------------------------------ docs

DOCS = (Path(__file__).parents[1] / "docs" / "zero_cost.md").read_text()


@pytest.mark.parametrize("index", [0, 1])
def test_configurations_of_the_page_run(index):
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert len(blocks) == 2
    changed = re.sub(r"epochs: \d+", "epochs: 1", blocks[index]).replace(
        "channels: 8", "channels: 2"
    )
    changed = re.sub(r"trials: \d+", "trials: 3", changed)
    changed = re.sub(
        r"zero_cost(, reference: \d+)?", "zero_cost, batch_size: 4, reference: 5", changed
    )
    run = build(yaml.safe_load(changed))
    trials = list(search(run.strategy, run.evaluator, run.executor, run.budget, History()))
    measured = [trial for trial in trials if isinstance(trial.outcome, Measured)]
    assert len(measured) == 3
    assert all(trial.values["rank_score"] >= (0.5, 0)[index] for trial in measured)


def test_every_proxy_is_in_the_pages_table():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", DOCS, flags=re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(PROXIES)


def test_the_recipe_is_what_the_page_says():
    shown = re.search(r"`network: (\{.*?\})`", DOCS).group(1)
    changes = {**yaml.safe_load(shown)}
    changes["input"] = tuple(changes["input"])
    assert changes == NASBENCH201.network
    assert f"batch_size: int = {NASBENCH201.batch_size}," in inspect.getsource(ZeroCost)

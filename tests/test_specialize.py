"""Specialisation: the search under hard limits, and the family that it delivers."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from elastic import DIGITS, elastic, everything, made_up
from exporting import isolated
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from nas.cost import count, parameters_and_macs
from nas.data import split
from nas.errors import ConfigError, InfeasibleLimit, UnsupportedRequest
from nas.space import network, parse, sample
from nas.specialize import (
    Costs,
    Limits,
    UnmetLimits,
    candidates,
    specialize,
)
from nas.specialize.limits import COUNTED
from nas.training import evaluate, fetch

SPACE = elastic()


# -------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency=3", "no limit on 'latency': did you mean 'latency_ms'"),
        ("macs", "expected METRIC=NUMBER"),
        ("macs=many", "expected METRIC=NUMBER"),
        ("macs=0", "above 0 and finite"),
        ("macs=inf", "above 0 and finite"),
        ("macs=1,macs=2", "macs is given twice"),
        ("", "expected METRIC=NUMBER"),
    ],
)
def test_limits_that_are_none_are_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        Limits.parse(text)


def test_limits_have_names_for_folders():
    assert Limits.parse("latency_ms=3").name == "latency_ms_3"
    assert (
        Limits.parse("latency_ms=0.5, parameters=2e6").name == "latency_ms_0.5_parameters_2000000"
    )
    assert str(Limits.parse("macs=1.5e8")) == "macs=150000000"


# -------------------------------------------------------------------------------------- search


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_candidates_keep_every_limit_by_an_independent_count(data):
    metrics = data.draw(st.lists(st.sampled_from(COUNTED), min_size=1, max_size=2, unique=True))
    keeper = sample(SPACE, np.random.default_rng(data.draw(st.integers(0, 99))))
    of = count(network(SPACE, keeper), SPACE.input)
    limits = Limits(tuple((metric, float(getattr(of, metric))) for metric in metrics))
    strategy = data.draw(st.sampled_from(["nsga2", "random", "local_search"]))
    found = candidates(SPACE, limits, made_up(), Costs(SPACE), strategy, trials=30)
    assert found
    for candidate in found[:8]:
        counted = count(network(SPACE, candidate.arch), SPACE.input)
        for metric, limit in limits.values:
            assert getattr(counted, metric) == candidate.costs[metric] <= limit
    predicted = [candidate.predicted for candidate in found]
    assert predicted == sorted(predicted, reverse=True)
    assert predicted == pytest.approx(made_up().predict([c.arch for c in found]).mean.tolist())


@pytest.mark.parametrize("limit", [70_000, 120_000, 300_000])
def test_what_is_found_is_the_best_there_is_or_nearly(limit):
    archs, macs = everything()
    feasible = [arch for arch, cost in zip(archs, macs, strict=True) if cost <= limit]
    best = np.sort(made_up().predict(feasible).mean)[::-1]
    found = candidates(SPACE, Limits.parse(f"macs={limit}"), made_up(), Costs(SPACE), trials=400)
    assert found[0].predicted >= best[min(2, len(best) - 1)]
    assert len({c.arch for c in found}) == len(found)


def test_every_limit_is_decided_before_anything_is_predicted(monkeypatch):
    asked = []
    predictor = made_up()
    predict = type(predictor).predict
    monkeypatch.setattr(
        type(predictor), "predict", lambda self, archs: asked.append(archs) or predict(self, archs)
    )
    limits = Limits.parse("macs=100000")
    candidates(SPACE, limits, predictor, Costs(SPACE), trials=200)
    assert max(parameters_and_macs(SPACE, a)[1] for archs in asked for a in archs) <= 100_000
    assert len(asked) <= 40  # batches
    every = [arch for archs in asked for arch in archs]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    "strategy", ["random", "regularized_evolution", "tournament", {"name": "nsga2"}]
)
def test_any_strategy_will_do(strategy):
    limits = Limits.parse("macs=90000")
    found = candidates(SPACE, limits, made_up(), Costs(SPACE), strategy, trials=40)
    again = candidates(SPACE, limits, made_up(), Costs(SPACE), strategy, trials=40)
    assert found == again
    assert all(candidate.costs["macs"] <= 90_000 for candidate in found)
    other = candidates(SPACE, limits, made_up(), Costs(SPACE), strategy, trials=40, seed=1)
    assert {c.arch for c in other} != {c.arch for c in found}


def test_strategies_that_cannot_are_refused_by_name():
    limits = Limits.parse("macs=90000")
    with pytest.raises(ConfigError, match="did you mean 'nsga2'"):
        candidates(SPACE, limits, made_up(), Costs(SPACE), "nsga_2")
    with pytest.raises((ConfigError, UnsupportedRequest), match="darts"):
        candidates(SPACE, limits, made_up(), Costs(SPACE), "darts")


def test_an_impossible_limit_is_told_with_the_smallest_there_is():
    _, macs = everything()
    with pytest.raises(InfeasibleLimit, match=f"at most 1000 and .* is {macs.min():g} "):
        candidates(SPACE, Limits.parse("macs=1000"), made_up(), Costs(SPACE))
    with pytest.raises(InfeasibleLimit, match=r"all at once: macs must be .*, parameters must be"):
        candidates(SPACE, Limits.parse("macs=1e9,parameters=10"), made_up(), Costs(SPACE))


def test_a_limit_that_a_single_network_keeps_is_found():
    archs, macs = everything()
    found = candidates(
        SPACE, Limits.parse(f"macs={macs.min()}"), made_up(), Costs(SPACE), trials=20
    )
    assert archs[macs.argmin()] in [candidate.arch for candidate in found]
    assert {candidate.costs["macs"] for candidate in found} == {macs.min()}


class Table:
    """Milliseconds by the MACs."""

    def predict(self, space, arch):
        return parameters_and_macs(space, arch)[1] / 1e5


def test_a_limit_on_latency_needs_a_table():
    limits = Limits.parse("latency_ms=1")
    costs = Costs(SPACE)
    with pytest.raises(ConfigError, match="latency_ms needs a latency table of 'mbconv/v1'"):
        costs.check(limits)
    costs = Costs(SPACE, Table())
    costs.check(limits)
    found = candidates(SPACE, limits, made_up(), costs, trials=30)
    assert all(parameters_and_macs(SPACE, c.arch)[1] <= 1e5 for c in found)


# -------------------------------------------------------------------------------------- family


def recalibrated(shared, arch):
    """Written out: a plain average over two batches of the training part."""
    built = shared.supernet.extract(arch)
    part, _ = split(DIGITS(), 0.2)
    norms = [m for m in built.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    built.train()
    with torch.no_grad():
        for start in (0, 128):
            built(fetch(part, torch.arange(start, start + 128))[0])
    return built.eval()


def test_a_family_in_one_go(inherited, tmp_path):
    shared = inherited.shared
    asked = ["macs=80000", "latency_ms=2,parameters=8000", "macs=10"]
    said = []
    with pytest.raises(UnmetLimits, match=r"macs=10: .* smallest found is") as caught:
        specialize(
            shared,
            asked,
            tmp_path,
            data=DIGITS(),
            predictor=made_up(),
            table=Table(),
            trials=40,
            check=3,
            recalibration_batches=2,
            on_progress=said.append,
        )
    found = caught.value.met
    assert [str(limits) for limits in caught.value.unmet] == ["macs=10"]
    assert any("40 of 40 predicted" in text for text in said)
    document = json.loads((tmp_path / "family.json").read_text())
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG")
    assert document["supernet"] == shared.digest
    assert "smallest found" in document["unmet"][0]["reason"]
    assert len(found) == len(document["networks"]) == 2
    for one, told, limits in zip(found, document["networks"], asked, strict=False):
        assert one.folder == tmp_path / Limits.parse(limits).name
        assert parse(SPACE, told["architecture"]) == one.arch
        # Hard limits, counted on the network that was written.
        counted = count(network(SPACE, one.arch), SPACE.input)
        values = {"latency_ms": counted.macs / 1e5} | {m: getattr(counted, m) for m in COUNTED}
        assert told["costs"] == one.costs == values
        assert all(values[metric] <= limit for metric, limit in one.limits.values)
        # To the bit what is extracted and recalibrated, scored and tested as it says.
        own = recalibrated(shared, one.arch)
        written = load_file(one.folder / "model.safetensors")
        assert written.keys() == own.state_dict().keys()
        for name, tensor in own.state_dict().items():
            assert torch.equal(written[name], tensor), name
        assert one.accuracy == evaluate(own, split(DIGITS(), 0.2)[1])[0]
        assert told["test_accuracy"] == one.test_accuracy == evaluate(own, DIGITS().test)[0]
        assert one.fine_tuned is None
        facts = json.loads((one.folder / "architecture.json").read_text())
        assert str(one.test_accuracy) in json.dumps(facts)
    done = isolated(str(found[1].folder / "model.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_of_the_best_predictions_the_truly_best_is_taken(inherited):
    arguments = {"data": DIGITS(), "predictor": made_up(), "trials": 40}
    (one,) = specialize(
        inherited.shared, ["macs=2e5"], check=6, recalibration_batches=2, **arguments
    )
    assert one.folder is None
    first = candidates(SPACE, one.limits, made_up(), Costs(SPACE), trials=40)[:6]
    scores = [inherited.score(candidate.arch) for candidate in first]
    assert one.accuracy == max(accuracy for accuracy, _ in scores)
    assert one.arch in [candidate.arch for candidate in first]
    assert inherited.score(one.arch) == max(scores, key=lambda score: (score[0], -score[1]))


def test_fine_tuning_reports_its_gain(inherited, tmp_path):
    (one,) = specialize(
        inherited.shared,
        ["macs=2e5"],
        tmp_path,
        data=DIGITS(),
        predictor=made_up(),
        trials=40,
        check=1,
        finetune=2,
        recalibration_batches=2,
    )
    assert one.test_accuracy == evaluate(recalibrated(inherited.shared, one.arch), DIGITS().test)[0]
    tuned = network(SPACE, one.arch)
    tuned.load_state_dict(load_file(one.folder / "model.safetensors"))
    assert one.fine_tuned == evaluate(tuned.eval(), DIGITS().test)[0]
    assert one.fine_tuned > one.test_accuracy + 0.01  # the supernet had two epochs
    assert one.seconds["fine_tune"] > 0
    facts = (one.folder / "architecture.json").read_text()
    assert re.search(r'"test_accuracy": ([\d.]+)', facts).group(1) == str(one.fine_tuned)
    assert "test_accuracy_before_fine_tuning" in facts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"limits": []}, "there is no limit"),
        ({"limits": ["macs=1e5", "macs=100000"]}, "given twice"),
        ({"limits": ["latency_ms=1"]}, "needs a latency table"),
        ({"check": 0}, "check must be at least 1"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"finetune": -1}, "finetune must be at least 0"),
        ({"recalibration_batches": -1}, "recalibration_batches must be at least 0"),
    ],
)
def test_nonsense_is_refused_before_any_work(inherited, arguments, says):
    arguments = {"limits": ["macs=1e5"], "data": DIGITS(), "predictor": made_up(), **arguments}
    with pytest.raises(ConfigError, match=says):
        specialize(inherited.shared, **arguments)
    with pytest.raises(UnsupportedRequest, match="'onnxx': did you mean 'onnx'"):
        specialize(
            inherited.shared,
            ["macs=1e5"],
            data=DIGITS(),
            predictor=made_up(),
            formats=["onnxx"],
        )

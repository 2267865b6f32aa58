"""The guards against collapse: what they count, when they stop, and that the trial says so."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gradient_workloads import EDGES, OPTIONS, Edges, described, patterns, quick
from small_spaces import SMALL

from nas.architecture import Architecture
from nas.budget import Budget
from nas.errors import ConfigError, UnsupportedRequest
from nas.execution.serial import Serial
from nas.history import History
from nas.objective import maximize
from nas.search import search
from nas.space import sample, validate
from nas.supernet import Supernet, discretize
from nas.supernet.discretize import one_hot_weights
from nas.testing.toys import ToyEvaluator
from strategies import drnas
from strategies.darts import SETTINGS, Darts
from strategies.gradient import GradientSearch, GradientSettings, first_order
from strategies.guards import Guards, Watch, dominant_eigenvalue, limit_skips, most_skips, skips
from strategies.relaxation import OptionRelaxation

SCORE = (maximize("score"),)
SLOTS = dict.fromkeys(EDGES, OPTIONS)


def edges(*options):
    return Architecture("edges/v1", tuple(zip(EDGES, options, strict=True)))


def guarded(guards, **changes):
    settings = quick(SETTINGS, **changes)
    return Darts(Edges(), SCORE, described(), seed=1, settings=settings, guards=guards)


# ------------------------------------------------------------------------ skip connections


def test_skips_are_counted_cell_by_cell():
    space = SMALL["darts"]()
    arch = space.parse(
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
        "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
        "reduce_concat=[2, 3, 4, 5])"
    )
    found = skips(space, arch, Guards())
    assert {cell: len(labels) for cell, labels in found.items()} == {"normal": 5, "reduce": 3}
    assert most_skips(space, arch, Guards()) == 5
    assert most_skips(space, arch, Guards(cell="reduce/")) == 3
    assert most_skips(space, arch, Guards(skip="max_pool_3x3")) == 5
    assert most_skips(Edges(), edges("skip_connect", "none", "skip_connect"), Guards()) == 2


@pytest.mark.parametrize("name", ["darts", "nasbench201", "enas_micro"])
@pytest.mark.parametrize("most", [0, 1, 2])
def test_what_is_proposed_keeps_the_limit_and_all_else(name, most):
    space = SMALL[name]()
    slots = Supernet(space).slots
    skip = "skip_connect"
    guards = Guards(max_skips=most)
    rng = np.random.default_rng(most)
    changed = 0
    for _ in range(20):
        weights = {k: rng.random(len(os)).tolist() for k, os in slots.items()}
        for label, options in slots.items():
            if skip in options and rng.random() < 0.7:
                weights[label][options.index(skip)] += 0.5
        arch = limit_skips(space, weights, slots, guards)
        validate(space, arch)
        assert most_skips(space, arch, guards) <= most
        free = discretize(space, weights)
        if most_skips(space, free, guards) <= most:
            assert arch == free
        else:
            changed += arch != free
    assert changed > 5


def test_the_weakest_skip_connection_gives_way_to_the_next_best():
    weights = {
        "0->1": [0.0, 0.6, 0.1, 0.2, 0.1],
        "0->2": [0.0, 0.4, 0.1, 0.2, 0.3],
        "1->2": [0.0, 0.5, 0.3, 0.1, 0.1],
    }
    for most, expected in (
        (3, ("skip_connect", "skip_connect", "skip_connect")),
        (2, ("skip_connect", "conv_3x3", "skip_connect")),
        (1, ("skip_connect", "conv_3x3", "pool")),
        (0, ("conv_1x1", "conv_3x3", "pool")),
    ):
        assert limit_skips(Edges(), weights, SLOTS, Guards(max_skips=most)) == edges(*expected)


def test_one_hot_weights_within_the_limit_are_discretised_back():
    space = SMALL["darts"]()
    slots = Supernet(space).slots
    guards = Guards(max_skips=8)
    for seed in range(20):
        arch = sample(space, np.random.default_rng(seed))
        assert limit_skips(space, one_hot_weights(space, arch, slots), slots, guards) == arch


# ---------------------------------------------------------------------------- eigenvalues


def small_search(relaxation=None, **changes):
    relaxation = OptionRelaxation(scale=0.5) if relaxation is None else relaxation
    settings = quick(GradientSettings(), batch_size=24, **changes)
    return GradientSearch(Edges(), patterns(), relaxation, first_order, settings, seed=4)


def exact_hessian(search):
    """By differentiating the gradient entry by entry."""
    batch = search.validation_batch()
    labels = list(search.parameters)

    def loss(vector):
        parts = dict(zip(labels, vector.split(len(OPTIONS)), strict=True))
        gates = search.relaxation.mean_gates(parts)
        return torch.nn.functional.cross_entropy(search.supernet(batch.images, gates), batch.labels)

    start = torch.cat([p.detach() for p in search.parameters.values()])
    return torch.autograd.functional.hessian(loss, start)


@pytest.mark.parametrize("relaxation", [None, OptionRelaxation(drnas.draw, drnas.mean, scale=0.5)])
@pytest.mark.parametrize("epochs", [0, 3])
def test_the_eigenvalue_is_that_of_the_exact_hessian(relaxation, epochs):
    search = small_search(relaxation)
    for _ in range(epochs):
        search.advance()
    largest = float(torch.linalg.eigvalsh(exact_hessian(search)).max())
    found = dominant_eigenvalue(search)
    assert found == pytest.approx(largest, rel=0.05, abs=1e-4)
    assert largest > 1e-3


def test_looking_changes_nothing_but_the_account():
    watched, free = small_search(), small_search()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for search_ in (watched, free):
        for _ in range(2):
            search_.advance()
            if search_ is watched:
                dominant_eigenvalue(search_)
    assert torch.equal(state, torch.get_rng_state())
    mine, theirs = watched.state_dict(), free.state_dict()
    assert all(torch.equal(mine["supernet"][k], v) for k, v in theirs["supernet"].items())
    assert all(p.grad is None or p.requires_grad for p in watched.supernet.parameters())
    assert watched.curve == free.curve
    assert watched.examples > free.examples


def test_a_relaxation_without_mean_gates_has_no_eigenvalue():
    search_ = small_search()
    search_.relaxation = SimpleNamespace(weights=None)
    with pytest.raises(UnsupportedRequest, match="SimpleNamespace has no mean_gates"):
        dominant_eigenvalue(search_)


# ------------------------------------------------------------------------------- stopping


def watched(monkeypatch, values, guards, warmup=0):
    """The watch at the end of each epoch of a search with these eigenvalues, until it stops."""
    monkeypatch.setattr("strategies.guards.dominant_eigenvalue", lambda s: values[s.epoch - 1])
    watch = Watch(guards, Edges(), SLOTS)
    for epoch in range(1, len(values) + 1):
        watch.look(SimpleNamespace(epoch=epoch, settings=SimpleNamespace(warmup_epochs=warmup)))
        if watch.stopped:
            break
    return watch


def test_a_growing_eigenvalue_stops_the_search_at_what_was_before(monkeypatch):
    guards = Guards(growth=1.3)
    assert (guards.window, guards.delta, guards.start) == (5, 4, 10)
    values = [1.0] * 12 + [2.0] * 8
    watch = watched(monkeypatch, values, guards)
    # Means of five epochs: 1.2 after one doubled epoch, 1.4 after two.
    assert watch.stopped.startswith("epoch 14: the dominant eigenvalue grew by 1.400 in 4 epochs")
    assert watch.kept == 10
    assert not watched(monkeypatch, [1.0] * 20, guards).stopped
    slow = [1.05 ** (epoch / 4) for epoch in range(40)]
    assert not watched(monkeypatch, slow, guards).stopped


def test_nothing_stops_before_the_start_or_in_the_warm_up(monkeypatch):
    values = [float(2**epoch) for epoch in range(12)]
    guards = Guards(growth=1.3, window=1, delta=1, start=10)
    assert watched(monkeypatch, values, guards).stopped.startswith("epoch 11")
    guards = Guards(growth=1.3, window=1, delta=1, start=0)
    assert watched(monkeypatch, values, guards).stopped.startswith("epoch 2:")
    assert watched(monkeypatch, values, guards, warmup=5).stopped.startswith("epoch 7:")
    falling = [-1.0, -2.0, 3.0]
    assert not watched(monkeypatch, falling, guards).stopped


def test_too_many_skips_stop_the_search_and_the_trial_says_so(tmp_path):
    strategy = guarded(Guards(stop_skips=2), epochs=8)

    def lean(epoch):
        # The parameters are moved by hand: two skip connections from epoch 3 on.
        with torch.no_grad():
            for label in EDGES[: 1 if epoch < 3 else 2]:
                strategy._run.search.parameters[label][1] = 9.0

    advance = strategy._run.search.advance

    def leaning():
        advance()
        lean(strategy._run.search.epoch)

    strategy._run.search.advance = leaning
    trials = list(
        search(strategy, ToyEvaluator(Edges()), Serial(), Budget(trials=20), History(tmp_path))
    )
    assert len(trials) == 3
    assert [bool(trial.notes) for trial in trials] == [False, False, True]
    assert trials[2].notes["guard_stop"] == (
        "epoch 3: a cell has 2 'skip_connect', stop_skips is 2; proposed is epoch 2"
    )
    assert trials[2].arch == trials[1].arch
    assert strategy.ask(1) == []
    read = History(tmp_path).trials
    assert [trial.notes for trial in read] == [trial.notes for trial in trials]


def test_a_limit_that_changes_what_is_proposed_is_noted():
    strategy = guarded(Guards(max_skips=0))
    with torch.no_grad():
        strategy._run.search.parameters["0->1"][1] = 9.0
    (proposal,) = strategy.ask(1)
    assert "skip_connect" not in proposal.arch.as_dict().values()
    assert "max_skips 0" in proposal.notes["guard_skips"]
    assert "skip_connect" in proposal.notes["guard_skips"]
    json.dumps(dict(proposal.notes))


@pytest.mark.parametrize(
    ("guards", "says"),
    [
        ({"max_skips": -1}, "max_skips must be 0 or more, got -1"),
        ({"stop_skips": 0}, "stop_skips must be at least 1, got 0"),
        ({"growth": 1.0}, "growth must be above 1, got 1.0"),
        ({"growth": math.inf}, "growth must be above 1"),
        ({"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_guards_out_of_range_are_refused(guards, says):
    with pytest.raises(ConfigError, match=says):
        Guards(**guards)


def test_a_skip_connection_that_is_no_option_is_refused_by_name():
    with pytest.raises(ConfigError, match="'skip_conect': did you mean 'skip_connect'"):
        guarded(Guards(max_skips=1, skip="skip_conect"))
    with pytest.raises(ConfigError, match="begins with 'normal/'"):
        guarded(Guards(max_skips=1, cell="normal/"))

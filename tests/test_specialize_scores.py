"""Sub-networks drawn over the range of costs, scored with inherited weights, and predicted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from elastic import DIGITS, elastic, everything, made_up

from nas.cost import parameters_and_macs
from nas.data import from_datasets
from nas.errors import ConfigError, DataError
from nas.predictor import save_surrogate
from nas.space import enumerate_architectures, sample
from nas.specialize import (
    data_of,
    fit_predictor,
    load_predictor,
    score,
    spread_over_costs,
)
from nas.specialize.drawing import tilted
from nas.testing.toys import FlatSpace
from nas.trial import Proposal

SPACE = elastic()


# ------------------------------------------------------------------------------------- drawing


def test_draws_are_spread_over_the_costs():
    archs = list(itertools.islice(spread_over_costs(SPACE), 60))
    assert len(set(archs)) == 60
    assert archs[:20] == list(itertools.islice(spread_over_costs(SPACE), 20))
    assert archs[:20] != list(itertools.islice(spread_over_costs(SPACE, seed=1), 20))
    _, all_macs = everything()
    edges = np.linspace(np.log(all_macs.min()), np.log(all_macs.max()), 7)

    def fewest(drawn):
        macs = [np.log(parameters_and_macs(SPACE, arch)[1]) for arch in drawn]
        return np.histogram(macs, edges)[0].min()

    rng = np.random.default_rng(0)
    assert fewest(archs) >= 6  # of ten on average
    assert fewest([sample(SPACE, rng) for _ in range(60)]) <= 2


def test_levels_go_from_the_smallest_to_the_largest():
    rng = np.random.default_rng(0)
    archs, macs = everything()
    assert tilted(SPACE, 0, rng) == archs[macs.argmin()]
    assert tilted(SPACE, 1, rng) == archs[macs.argmax()]


def test_a_small_space_is_drawn_until_hardly_anything_is_new():
    space = FlatSpace(classes=10, input=(1, 8, 8))
    drawn, there = list(spread_over_costs(space)), set(enumerate_architectures(space))
    assert len(set(drawn)) == len(drawn) >= 0.9 * len(there)
    assert set(drawn) <= there


# -------------------------------------------------------------------------------------- scores


def test_scores_are_those_of_the_one_shot_evaluator(elastic_evaluator, inherited):
    for seed in range(3):
        arch = sample(SPACE, np.random.default_rng(seed))
        accuracy, loss = inherited.score(arch)
        values = elastic_evaluator.evaluate(Proposal(0, arch)).values
        assert values == {"accuracy": accuracy, "loss": loss}


def test_scoring_goes_on_where_it_was_killed(inherited, tmp_path):
    whole = score(inherited, tmp_path / "whole.jsonl", 12)
    path = tmp_path / "killed.jsonl"

    class Killed(Exception):
        pass

    def kill(done, row):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        score(inherited, path, 12, on_row=kill)
    first = path.read_bytes()
    assert first.count(b"\n") == 6
    path.write_bytes(first + b'{"architecture": "width=50 sta')
    new = []
    assert score(inherited, path, 12, on_row=lambda done, row: new.append(done)) == whole
    assert new == list(range(6, 13))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert score(inherited, path, 8) == whole[:8]
    assert [row.macs for row in whole] == [parameters_and_macs(SPACE, r.arch)[1] for r in whole]


def test_scores_of_something_else_are_refused(inherited, tmp_path):
    path = tmp_path / "scores.jsonl"
    score(inherited, path, 2)
    with pytest.raises(ConfigError, match="seed is 0 there and 1 here"):
        score(inherited, path, 2, seed=1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", lines[2], ""]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        score(inherited, path, 2)
    path.write_text("\n".join([lines[0], lines[2], ""]))
    with pytest.raises(DataError, match=r"line 2: .* was not drawn"):
        score(inherited, path, 2)
    path.write_text('{"format": "else"}\n')
    with pytest.raises(DataError, match="no scores of sub-networks"):
        score(inherited, path, 2)


def test_a_predictor_of_another_supernet_is_refused(inherited, tmp_path):
    shared = inherited.shared
    rows = score(inherited, tmp_path / "scores.jsonl", 12)
    save_surrogate(fit_predictor(shared, rows), tmp_path / "own.npz")
    assert load_predictor(tmp_path / "own.npz", shared).metric.name == "accuracy"
    other = replace(shared, digest="0" * 32)
    with pytest.raises(ConfigError, match=f"supernet {shared.digest}, this is supernet 0000"):
        load_predictor(tmp_path / "own.npz", other)
    save_surrogate(made_up(), tmp_path / "made_up.npz")  # not of sub-networks: the user's affair
    assert load_predictor(tmp_path / "made_up.npz", other).source == "pairs"


def test_data_that_do_not_fit_are_refused(inherited):
    shared = inherited.shared
    assert data_of(shared).name == "digits"
    assert data_of(shared, {"name": "digits"}).input == (1, 8, 8)
    images = DIGITS().train
    custom = from_datasets(torch.utils.data.Subset(images, range(50)), classes=10)
    assert data_of(shared, custom) is custom  # says nothing of how it is normalised
    with pytest.raises(DataError, match="takes"):
        data_of(shared, from_datasets([(torch.zeros(1, 9, 9), 1)], classes=10))
    other = replace(DIGITS(), preprocessing={"scale": 255.0})
    with pytest.raises(DataError, match=r"normalised by .*, but the supernet"):
        data_of(shared, other)
    unnamed = replace(shared, facts={**shared.facts, "data": {"object": "x"}})
    with pytest.raises(ConfigError, match="--data"):
        data_of(unnamed)

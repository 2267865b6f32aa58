"""Importance of choices: what is known to matter is found, and what cannot be told is not told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.errors import ConfigError, NasError
from nas.history import History
from nas.importance import LEAST_ROWS, importance, of_history
from nas.objective import Metric
from nas.predictor import from_pairs
from nas.predictor.sources import Measurements
from nas.space import sample
from nas.testing.toys import FlatSpace, NestedSpace
from nas.trial import Fidelity, Measured, Proposal, Trial
from search_spaces.nasbench201 import NasBench201

METRIC = Metric("score", "1", "maximize")
SPACE = NasBench201()


def measurements(
    worth: Callable[[Architecture], float], count: int = 120, noise: float = 0.0
) -> Measurements:
    rng = np.random.default_rng(1)
    archs = {sample(SPACE, rng) for _ in range(count)}
    ordered = sorted(archs, key=Architecture.to_json)
    return from_pairs(
        SPACE, [(arch, worth(arch) + noise * rng.normal()) for arch in ordered], METRIC
    )


LABELS = [choice.label for choice in SPACE.choices]


def test_the_choices_that_decide_come_first_and_the_others_are_worth_nothing() -> None:
    def worth(arch: Architecture) -> float:
        return 3.0 * (arch[LABELS[4]] == "none") + 1.0 * (arch[LABELS[1]] == "nor_conv_3x3")

    found = importance(measurements(worth))
    assert found.weak == ""
    assert found.quality is not None
    assert found.quality > 0.7
    assert [choice.label for choice in found.choices[:2]] == [LABELS[4], LABELS[1]]
    assert found.choices[0].importance > 2 * found.choices[1].importance > 0.5
    assert max(choice.importance for choice in found.choices[2:]) < 0.06


def test_effects_are_the_values_expected_of_each_option_in_the_metrics_unit() -> None:
    found = importance(measurements(lambda arch: 50.0 + 10.0 * (arch[LABELS[0]] == "none")))
    (first, *_) = found.choices
    assert first.label == LABELS[0]
    effects = dict(first.effects)
    assert set(effects) == set(SPACE.choices[0].options)
    assert max(effects, key=lambda option: effects[option]) == "none"
    assert effects["none"] == pytest.approx(60, abs=1)
    assert effects["skip_connect"] == pytest.approx(50, abs=1)


def test_one_that_learnt_nothing_does_not_hide_what_matters() -> None:
    archs = measurements(lambda arch: float(arch[LABELS[2]] == "none"))
    values = archs.values.copy()
    values[5] = -1e6
    spoilt = Measurements(SPACE, archs.archs, values, METRIC, "spoilt")
    assert importance(spoilt).choices[0].label == LABELS[2]


def test_noise_is_called_noise() -> None:
    found = importance(measurements(lambda _: 0.0, noise=1.0))
    assert found.quality is not None
    assert found.quality < 0.2
    assert found.choices == ()
    assert "too little" in found.weak


def test_too_few_and_nothing_to_tell_apart_are_said() -> None:
    few = importance(measurements(lambda arch: float(arch[LABELS[0]] == "none"), LEAST_ROWS - 1))
    assert few.choices == ()
    assert few.quality is None
    assert f"at least {LEAST_ROWS}" in few.weak
    assert "the same" in importance(measurements(lambda _: 1.0)).weak


def test_numbers_and_inactive_choices_are_told_apart() -> None:
    space = NestedSpace()
    rng = np.random.default_rng(0)
    archs = {sample(space, rng) for _ in range(300)}
    pairs = [(arch, float(arch["depth"])) for arch in sorted(archs, key=str)]
    found = importance(from_pairs(space, pairs, METRIC))
    assert found.choices[0].label == "depth"
    wide = next(choice for choice in found.choices if choice.label == "width1")
    assert [option for option, _ in wide.effects] == [2, 4, 6]


def test_it_does_not_depend_on_the_order_and_leaves_random_state_alone() -> None:
    given = measurements(lambda arch: float(arch[LABELS[3]] == "none"), noise=0.1)
    pairs = list(zip(given.archs, given.values.tolist(), strict=True))
    state = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]  # the legacy tuple
    one, other = importance(given), importance(from_pairs(SPACE, pairs[::-1], METRIC))
    assert one == other
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index,union-attr]  # as above
    assert importance(given, seed=1) != one


def test_of_several_fidelities_those_of_the_most_trials_are_taken() -> None:
    history = History()
    rng = np.random.default_rng(0)
    space = FlatSpace()
    archs = list(dict.fromkeys(sample(space, rng) for _ in range(300)))
    for number, arch in enumerate(archs):
        epochs = 1 if number < 40 else 4
        value = float(arch["width"]) if epochs == 1 else 99.0
        proposal = Proposal(number, arch, fidelity=Fidelity(epochs=epochs))
        history.trials.append(Trial(proposal, Measured({"score": value}), cost=history.spent))
    found = of_history(history, space, "score")
    assert found.rows == 40
    assert found.choices[0].label == "width"
    with pytest.raises(NasError, match="no trial measured 'nothing'"):
        of_history(history, space, "nothing")


def test_a_forest_of_one_tree_is_refused() -> None:
    with pytest.raises(ConfigError, match="trees must be at least 2, got 1"):
        importance(measurements(lambda _: 1.0), trees=1)

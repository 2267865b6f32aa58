"""Spaces of independent choices are told from others, and take no part of the law away."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from nas.architecture import Choice
from nas.draws import Draws
from nas.independent import independent
from nas.space import (
    crossover,
    enumerate_architectures,
    mutate,
    neighbours,
    next_choice,
    perturb,
    sample,
    validate,
)
from nas.testing.toys import FlatSpace, NestedSpace
from search_spaces.chain import Chain
from search_spaces.metaqnn import MetaQnn
from search_spaces.nasbench101 import NasBench101
from search_spaces.nasbench201 import NasBench201
from search_spaces.pnas import Pnas


@dataclass(frozen=True)
class Sized(FlatSpace):
    """The flat toy, which knows its size and so proves its choices independent."""

    def size(self):
        return 64


@dataclass(frozen=True)
class Ordered(FlatSpace):
    """Equal options only in order: unconditional choices that are not independent."""

    choices = (Choice("a", (1, 2, 3)), Choice("b", (1, 2, 3)))

    def legal(self, prefix):
        step = next_choice(self.choices, prefix)
        if step is None or "a" not in prefix:
            return step
        return step[0], tuple(option for option in step[1] if option >= prefix["a"])

    def size(self):
        return 6


def test_independence_is_proved():
    assert independent(NasBench201())
    assert independent(Sized())
    for space in (FlatSpace(), NestedSpace(), Ordered(), Chain()):
        assert independent(space) is None
    for space in (MetaQnn(), NasBench101(), Pnas()):
        assert independent(space) is None
    for _ in range(1000):  # the memory of an earlier space at the same place is not taken for it
        assert (independent(Sized()) is None) == (independent(Ordered()) is not None)


def test_results_and_draws_are_those_of_the_walk():
    walked, known = FlatSpace(), Sized()
    archs = list(enumerate_architectures(walked))
    for number, arch in enumerate(archs):
        one, other = Draws(number), Draws(number)
        assert sample(known, one) == sample(walked, other)
        assert mutate(known, arch, one) == mutate(walked, arch, other)
        assert perturb(known, arch, 0.4, one) == perturb(walked, arch, 0.4, other)
        assert one.integers(1 << 60) == other.integers(1 << 60)
        assert list(neighbours(known, arch)) == list(neighbours(walked, arch))


@pytest.mark.parametrize("space", [FlatSpace(), Sized()], ids=["walked", "known"])
def test_crossover_is_uniform(space):
    archs = list(enumerate_architectures(space))
    draws = Draws(0)
    counts = Counter(crossover(space, archs[0], archs[-1], draws) for _ in range(3200))
    assert len(counts) == 16
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 44.3  # 15 degrees: 1e-4


@pytest.mark.parametrize("space", [Sized(), NestedSpace(), Ordered(), Chain()], ids=type)
def test_perturbation_stays_inside_and_keeps_its_rate(space):
    draws = Draws(1)
    changed = total = 0
    for _ in range(400):
        arch = sample(space, draws)
        assert perturb(space, arch, 0.0, draws) == arch
        child = perturb(space, arch, 0.25, draws)
        validate(space, child)
        validate(space, perturb(space, arch, 1.0, draws))
        changed += arch.picks[0] != child.picks[0]
        total += 1
    assert abs(changed / total - 0.25) < 4.5 * (0.25 * 0.75 / total) ** 0.5

"""Laws of the functions on spaces, over random spaces whose choices open and close each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import encoding
from nas.architecture import Architecture, Choice
from nas.errors import InvalidArchitecture, NasError, UnsupportedRequest
from nas.space import (
    check_input,
    count,
    count_choices,
    crossover,
    enumerate_architectures,
    from_picks,
    mutate,
    neighbours,
    network,
    next_choice,
    parse,
    sample,
    validate,
)
from nas.testing.toys import FlatSpace, NestedSpace


@dataclass(frozen=True)
class Generated:
    """A space of choices alone."""

    choices: tuple[Choice, ...]
    name: str = "generated/v1"

    def legal(self, prefix):
        return next_choice(self.choices, prefix)

    def canonical(self, arch):
        return arch


@dataclass(frozen=True)
class Constrained:
    """A space with a rule of its own: three digits, none below the one before it."""

    name: str = "rising/v1"
    choices: tuple[Choice, ...] = tuple(Choice(label, (0, 1, 2, 3)) for label in "abc")

    def legal(self, prefix):
        step = next_choice(self.choices, prefix)
        if step is None:
            return None
        choice, options = step
        least = max(prefix.values(), default=0)
        return choice, tuple(option for option in options if option >= least)

    def canonical(self, arch):
        return arch


@st.composite
def conditional_spaces(draw):
    choices = []
    for index in range(draw(st.integers(1, 6))):
        options = tuple(range(draw(st.integers(1, 3))))
        earlier = (
            draw(st.lists(st.sampled_from(choices), max_size=2, unique=True)) if choices else []
        )
        when = {
            other.label: tuple(
                draw(st.lists(st.sampled_from(other.options), min_size=1, unique=True))
            )
            for other in earlier
        }
        choices.append(Choice(f"c{index}", options, when))
    return Generated(tuple(choices))


seeds = st.integers(0, 2**32 - 1)


def by_force(choices):
    """Every architecture, written without ``legal``: all assignments, inactive ones left out."""
    found = set()
    for options in itertools.product(*(choice.options for choice in choices)):
        picks = {}
        for choice, option in zip(choices, options, strict=True):
            if all(picks.get(label) in values for label, values in choice.conditions()):
                picks[choice.label] = option
        found.add(tuple(picks.items()))
    return found


@given(conditional_spaces())
def test_enumeration_and_count_equal_brute_force(space):
    listed = [arch.picks for arch in enumerate_architectures(space)]
    assert len(listed) == len(set(listed))
    assert set(listed) == by_force(space.choices)
    assert count_choices(space.choices) == len(listed) == count(space)


@given(conditional_spaces())
def test_neighbours_are_the_relation_they_are_defined_by(space):
    archs = list(enumerate_architectures(space))[:60]
    everything = list(enumerate_architectures(space))
    for arch in archs[:8]:
        expected = {
            other
            for other in everything
            if sum(arch[label] != other[label] for label in set(arch) & set(other)) == 1
        }
        found = list(neighbours(space, arch))
        assert len(found) == len(set(found))
        assert set(found) == expected
        for other in found[:20]:
            assert arch in set(neighbours(space, other))


@given(conditional_spaces(), seeds)
def test_mutation_changes_something_and_stays_inside(space, seed):
    rng = np.random.default_rng(seed)
    arch = sample(space, rng)
    if count(space) == 1:
        with pytest.raises(UnsupportedRequest, match="one architecture"):
            mutate(space, arch, rng)
        return
    child = mutate(space, arch, rng)
    validate(space, child)
    assert child != arch
    assert child in set(neighbours(space, arch))


@given(conditional_spaces(), seeds)
def test_crossover_stays_inside_and_takes_from_its_parents(space, seed):
    rng = np.random.default_rng(seed)
    first, second = sample(space, rng), sample(space, rng)
    child = crossover(space, first, second, rng)
    validate(space, child)
    for label, option in child.picks:
        offered = [parent[label] for parent in (first, second) if label in parent]
        assert not offered or option in offered
    assert crossover(space, first, first, rng) == first


@given(conditional_spaces(), seeds)
def test_encodings_are_decoded_back_and_injective(space, seed):
    archs = list(itertools.islice(enumerate_architectures(space), 40))
    for encode, decode in (
        (encoding.one_hot, encoding.from_one_hot),
        (encoding.ordinal, encoding.from_ordinal),
        (encoding.tokens, encoding.from_tokens),
    ):
        codes = [encode(space, arch) for arch in archs]
        assert [decode(space, code) for code in codes] == archs
        assert len({tuple(code) for code in codes}) == len(archs)


@given(conditional_spaces(), st.data())
def test_picks_in_any_order_are_taken_and_any_change_is_judged_rightly(space, data):
    arch = sample(space, np.random.default_rng(0))
    shuffled = data.draw(st.permutations(arch.picks))
    assert from_picks(space, dict(shuffled)) == arch
    everything = by_force(space.choices)
    picks = data.draw(
        st.dictionaries(
            st.sampled_from([choice.label for choice in space.choices]), st.integers(0, 2)
        )
    )
    ordered = tuple((c.label, picks[c.label]) for c in space.choices if c.label in picks)
    if ordered in everything:
        assert from_picks(space, picks).picks == ordered
    else:
        with pytest.raises(InvalidArchitecture):
            from_picks(space, picks)


@given(seeds)
def test_functions_obey_a_rule_that_is_not_a_condition(seed):
    space, rng = Constrained(), np.random.default_rng(seed)
    first, second = sample(space, rng), sample(space, rng)
    for arch in (first, mutate(space, first, rng), crossover(space, first, second, rng)):
        validate(space, arch)
        assert list(arch.as_dict().values()) == sorted(arch.as_dict().values())
    near = list(neighbours(space, first))
    assert all(first in set(neighbours(space, other)) for other in near)


def test_a_rule_of_its_own_is_enumerated_and_checked():
    space = Constrained()
    assert count(space) == 20  # multisets of 3 out of 4
    with pytest.raises(InvalidArchitecture, match="0 is not legal for 'b' after"):
        from_picks(space, {"a": 2, "b": 0, "c": 3})


def test_count_of_a_space_too_large_to_list():
    choices = [Choice("depth", tuple(range(1, 31)))]
    for layer in range(30):
        when = {"depth": tuple(depth for depth in range(1, 31) if depth > layer)}
        choices += [Choice(f"{layer}/k", (3, 5, 7), when), Choice(f"{layer}/w", (8, 16), when)]
    assert count_choices(choices) == sum(6**depth for depth in range(1, 31))


def test_a_chain_of_conditions_is_closed_from_its_head():
    space = Generated(
        (
            Choice("a", (0, 1)),
            Choice("b", (0, 1), {"a": (1,)}),
            Choice("c", (0, 1), {"b": (1,)}),
        )
    )
    assert {arch.picks for arch in enumerate_architectures(space)} == {
        (("a", 0),),
        (("a", 1), ("b", 0)),
        (("a", 1), ("b", 1), ("c", 0)),
        (("a", 1), ("b", 1), ("c", 1)),
    }


@settings(max_examples=20)
@given(seeds)
def test_mutation_draws_every_neighbour(seed):
    # Uniform over the choices and over their other options; only what a change opens is drawn.
    space, rng = FlatSpace(), np.random.default_rng(seed)
    arch = sample(space, rng)
    children = {mutate(space, arch, rng) for _ in range(400)}
    assert children == set(neighbours(space, arch))


def test_mutation_is_uniform_over_choices():
    space, rng = FlatSpace(), np.random.default_rng(0)
    arch = sample(space, rng)
    changed = [
        next(label for label in arch if child[label] != arch[label])
        for child in (mutate(space, arch, rng) for _ in range(4000))
    ]
    for choice in space.choices:
        # A binomial count, p = 1/4 of 4,000: its standard deviation is 27.
        assert abs(changed.count(choice.label) - 1000) < 5 * 27.4


def test_crossover_takes_either_parent_by_a_fair_coin():
    space, rng = FlatSpace(), np.random.default_rng(0)
    low, high = (
        Architecture(space.name, tuple((c.label, c.options[end]) for c in space.choices))
        for end in (0, -1)
    )
    children = [crossover(space, low, high, rng) for _ in range(2000)]
    for choice in space.choices:
        from_low = sum(child[choice.label] == low[choice.label] for child in children)
        assert abs(from_low - 1000) < 5 * 22.4
    assert len(set(children)) == 16


# ------------------------------------------------------------------------------- messages

NESTED = {"depth": 2, "width0": 2, "width1": 4, "activation": "relu"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "rellu"}, "'rellu' is not an option of 'activation': did you mean 'relu'"),
        ({"width1": 4.0}, "4.0 is not an option of 'width1'"),
        ({"width1": True}, "True is not an option of 'width1'"),
        ({"depth": 1}, "'width1' is not active in this architecture, yet it is given as 4"),
        ({"depth": 3}, "no pick for 'width2'"),
        ({"widht0": 2}, "no choice 'widht0': did you mean 'width0'"),
        ({"width0": None, "widht0": 2}, "no pick for 'width0'; 'widht0' is no choice of it"),
    ],
)
def test_from_picks_names_the_place_and_the_nearest(change, says):
    picks = {label: value for label, value in (NESTED | change).items() if value is not None}
    with pytest.raises(InvalidArchitecture, match=says):
        from_picks(NestedSpace(), picks)


def test_validate_refuses_another_space_and_another_order():
    space = NestedSpace()
    arch = from_picks(space, NESTED)
    validate(space, arch)
    with pytest.raises(InvalidArchitecture, match=r"'flat/v1' given to 'nested/v1'"):
        validate(space, Architecture("flat/v1", arch.picks))
    with pytest.raises(InvalidArchitecture, match="order"):
        validate(space, Architecture(space.name, arch.picks[::-1]))
    with pytest.raises(InvalidArchitecture, match="width0"):
        network(space, Architecture(space.name, arch.picks[:1]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("depth=2 width0=2 width1=4 activation=rellu", "did you mean 'relu'"),
        ("depth=2 width0=2 width1=5 activation=relu", "'5' is not an option of 'width1'"),
        ("depth=2 width0=2", "no pick for 'width1'"),
        ("depth=2 depth=2 width0=2 width1=4 activation=relu", "'depth' is given twice"),
        ("something else", "expected JSON"),
        ("", "expected JSON"),
        ("{", "JSON"),
        ('{"space": "flat/v1", "picks": []}', "'flat/v1' given to 'nested/v1'"),
    ],
)
def test_parse_says_what_is_wrong(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        parse(NestedSpace(), text)


@pytest.mark.parametrize("value", [(), (3, 0, 4), (3, -1), (3, 4.0), (True, 3, 3)], ids=repr)
def test_input_shapes_are_checked(value):
    with pytest.raises(NasError, match="toy"):
        check_input(value, "toy")
    assert check_input([3, 4, 5], "toy") == (3, 4, 5)

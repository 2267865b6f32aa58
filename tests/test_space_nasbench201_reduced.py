"""NAS-Bench-201 with fewer operations: a space of its own that agrees with the whole one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from nas.architecture import Architecture
from nas.components import create, describe
from nas.cost import architecture_cost
from nas.encoding import from_one_hot, one_hot, paths
from nas.errors import ConfigError, InvalidArchitecture
from nas.space import count, enumerate_architectures, format_architecture, parse, validate
from nas.testing import SpaceContract
from search_spaces.nasbench201 import OPERATIONS, NasBench201

THREE = ("none", "skip_connect", "nor_conv_3x3")
REDUCED = NasBench201(channels=3, cells=1, input=(3, 8, 8), operations=THREE)
WHOLE = replace(REDUCED, operations=OPERATIONS)


class TestThreeOperations(SpaceContract):
    def space(self):
        return REDUCED

    def small(self):
        return self.space()

    def gradient_reaches(self, space, arch, parameter):
        return bool(paths(space.graphs(arch)["cell"])) or parameter.startswith(("2.", "5."))


def test_the_whole_space_keeps_its_name():
    assert WHOLE.name == NasBench201().name == "nasbench201/v1"
    assert WHOLE.choices == NasBench201.choices


def test_it_has_a_name_of_its_own_and_729_architectures():
    assert REDUCED.name == "nasbench201:none,skip_connect,nor_conv_3x3/v1"
    every = list(enumerate_architectures(REDUCED))
    assert count(REDUCED) == len(set(every)) == 729
    assert {choice.options for choice in REDUCED.choices} == {THREE}
    texts = [format_architecture(REDUCED, arch) for arch in every]
    assert [parse(REDUCED, text) for text in texts] == every


def as_whole(arch):
    return Architecture(WHOLE.name, arch.picks)


def test_architectures_of_the_two_do_not_mix():
    arch = next(enumerate_architectures(REDUCED))
    with pytest.raises(InvalidArchitecture, match="given to"):
        validate(WHOLE, arch)
    validate(WHOLE, as_whole(arch))
    text = "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    parse(WHOLE, text)
    with pytest.raises(InvalidArchitecture, match="'nor_conv_3x3'"):
        parse(REDUCED, text)


@pytest.mark.parametrize("operations", [THREE, ("none", "nor_conv_3x3"), OPERATIONS[1:4]])
def test_canonical_joins_what_the_whole_space_joins_and_stays_inside(operations):
    space = replace(REDUCED, operations=operations)
    joined: dict[Architecture, set[Architecture]] = {}
    for arch in enumerate_architectures(space):
        form = space.canonical(arch)
        validate(space, form)
        assert space.canonical(form) == form
        joined.setdefault(form, set()).add(WHOLE.canonical(as_whole(arch)))
    whole = list(itertools.chain.from_iterable(joined.values()))
    assert all(len(forms) == 1 for forms in joined.values())
    assert len(set(whole)) == len(joined)


def test_networks_and_counts_are_those_of_the_whole_space():
    for arch in itertools.islice(enumerate_architectures(REDUCED), 0, None, 61):
        cost = architecture_cost(REDUCED, arch)
        assert cost == architecture_cost(WHOLE, as_whole(arch))
        assert (cost.parameters, cost.macs) == REDUCED.parameters_and_macs(arch)


def test_one_hot_has_three_columns_an_edge():
    arch = parse(REDUCED, "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|")
    vector = one_hot(REDUCED, arch)
    assert vector.reshape(6, 3).argmax(1).tolist() == [2, 0, 1, 0, 0, 0]
    assert from_one_hot(REDUCED, vector) == arch


def test_its_description_makes_it_again():
    document = describe(REDUCED)
    assert document["operations"] == list(THREE)
    assert create("spaces", document, "space") == REDUCED


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        (("none", "skip_conect"), "'skip_connect'"),
        (("none",), "two at least"),
        ((), "two at least"),
        (("skip_connect", "none"), "in the order"),
        (("none", "none"), "each once"),
    ],
)
def test_refuses_other_operations(operations, says):
    with pytest.raises(ConfigError, match=says):
        NasBench201(operations=operations)

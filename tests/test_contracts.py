"""The contracts catch what they are there for: each way of breaking one fails the law it breaks."""

from __future__ import annotations

import functools
import os
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from nas.architecture import Choice
from nas.space import next_choice, sample
from nas.testing import EvaluatorContract, ExecutorContract, SpaceContract, StrategyContract
from nas.testing.toys import FlatSpace, NestedSpace


def refused(contract, law, *arguments):
    """The law fails for this contract, by an assertion or by whatever the broken part raises."""
    with pytest.raises((Exception, pytest.fail.Exception)) as failure:
        getattr(contract, law)(*arguments)
    assert not isinstance(failure.value, AttributeError | pytest.skip.Exception), failure.value


def test_contracts_are_abstract():
    for contract in (SpaceContract, StrategyContract, EvaluatorContract, ExecutorContract):
        with pytest.raises(TypeError, match="abstract"):
            contract()


# --------------------------------------------------------------------------------- spaces


class DeadEnd(NestedSpace):
    def legal(self, prefix):
        step = next_choice(self.choices, prefix)
        if step is not None and step[0].label == "width1" and prefix["width0"] == 4:
            return step[0], ()
        return step


class OtherOptions(FlatSpace):
    def legal(self, prefix):
        step = next_choice(self.choices, prefix)
        return step and (step[0], (*step[1], "more"))


class Forgetful(FlatSpace):
    def legal(self, prefix):
        object.__setattr__(self, "calls", getattr(self, "calls", 0) + 1)
        step = next_choice(self.choices, prefix)
        return step and (step[0], step[1][:1] if self.calls % 2 else step[1])


class Unlabelled(FlatSpace):
    choices = (*FlatSpace.choices, FlatSpace.choices[0])


class Backwards(FlatSpace):
    choices = (Choice("a", (1, 2), {"b": (1,)}), Choice("b", (1, 2)))


class Rotating(FlatSpace):
    def canonical(self, arch):
        options = self.choices[0].options
        index = (options.index(arch["width"]) + 1) % len(options)
        return replace(arch, picks=(("width", options[index]), *arch.picks[1:]))


class Miscounting(NestedSpace):
    def size(self):
        return 41


class OddText(FlatSpace):
    def format(self, arch):
        return str(arch["width"])

    def parse(self, text):
        return sample(self, np.random.default_rng(0))


class ByHash(FlatSpace):
    choices = tuple(Choice(label, (1, 2)) for label in {f"c{i}" for i in range(9)})


class Unversioned(FlatSpace):
    name = "flat"


class Built(FlatSpace):
    """A space whose networks are built by a function."""

    make = staticmethod(lambda width, classes: nn.Linear(width, classes))

    def build(self, builder):
        width = builder.number("width")
        conv = nn.Conv2d(self.input[0], width, 3, padding=1)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(conv, pool, self.make(width, self.classes))


class OneClassMore(Built):
    make = staticmethod(lambda width, classes: nn.Linear(width, classes + 1))


class Infinite(Built):
    class Log(nn.Module):
        def forward(self, x):
            return torch.log(-x.square())

    make = staticmethod(
        lambda width, classes: nn.Sequential(nn.Linear(width, classes), Infinite.Log())
    )


class Bystander(Built):
    class Idle(nn.Linear):
        def __init__(self, width, classes):
            super().__init__(width, classes)
            self.unused = nn.Parameter(torch.zeros(3))

    make = Idle


class Shared(Built):
    make = staticmethod(functools.cache(nn.Linear))


class Clocked(Built):
    def make(self, width, classes):
        layer = nn.Linear(width, classes)
        nn.init.normal_(
            layer.weight, generator=torch.Generator().manual_seed(random.getrandbits(32))
        )
        return layer


class OffMeta(Built):
    def make(self, width, classes):
        layer = nn.Linear(width, classes)
        layer.scale = nn.Parameter(torch.zeros(1, device="cpu"))
        return layer


class OneNameTwoRanks(Built):
    def make(self, width, classes):
        if width > 3:
            return nn.Linear(width, classes)
        return nn.Sequential(
            nn.Unflatten(1, (width, 1)), nn.Conv1d(width, classes, 1), nn.Flatten()
        )

    def build(self, builder):
        width = builder.number("width")
        model = super().build(builder)
        if width <= 3:  # the weight of a convolution where others have that of a linear layer
            model[2] = nn.Conv2d(width, self.classes, 1)
            model[1] = nn.AdaptiveAvgPool2d(1)
            model.append(nn.Flatten())
        return model


@dataclass(frozen=True)
class Secretive(FlatSpace):
    def __init__(self, deepness=3):
        object.__setattr__(self, "hidden", deepness)
        object.__setattr__(self, "classes", 3)
        object.__setattr__(self, "input", (2, 6, 6))


class Unpicklable(FlatSpace):
    def __init__(self):
        super().__init__()
        object.__setattr__(self, "module", os)


@pytest.mark.parametrize(
    ("space", "law"),
    [
        (DeadEnd, "test_random_walks_never_dead_end"),
        (OtherOptions, "test_random_walks_never_dead_end"),
        (Forgetful, "test_legal_looks_at_the_prefix_alone"),
        (Unlabelled, "test_choices_have_labels_of_their_own"),
        (Backwards, "test_conditions_ask_for_options_of_earlier_choices"),
        (Rotating, "test_canonical_is_legal_and_idempotent"),
        (Miscounting, "test_count_equals_the_number_listed"),
        (OddText, "test_text_and_json_are_read_back"),
        (ByHash, "test_digests_and_samples_are_equal_in_another_process"),
        (Unversioned, "test_is_named_with_a_version"),
        (OneClassMore, "test_networks_classify"),
        (Infinite, "test_networks_classify"),
        (Bystander, "test_gradients_reach_the_parameters"),
        (Shared, "test_networks_share_nothing"),
        (Clocked, "test_same_seed_same_weights"),
        (OffMeta, "test_builds_on_meta"),
        (OneNameTwoRanks, "test_tensors_map_one_to_one_to_the_largest_network"),
        (Secretive, "test_description_makes_the_same_space"),
        (Unpicklable, "test_is_picklable"),
    ],
)
def test_a_broken_space_is_caught(space, law):
    class Contract(SpaceContract):
        def space(self):
            return space()

        small = space

    refused(Contract(), law)


def test_the_space_that_others_are_broken_from_is_whole():
    class Contract(SpaceContract):
        def space(self):
            return Built()

    contract = Contract()
    for law in [name for name in dir(contract) if name.startswith("test_")]:
        if law != "test_count_equals_the_number_listed":
            getattr(contract, law)()

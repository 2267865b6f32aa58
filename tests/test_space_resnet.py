"""The residual networks: a part of the largest each, sizes that scale, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_spaces import SMALL
from torch import nn

from nas.components import create, describe
from nas.errors import ConfigError, InvalidArchitecture
from nas.points import published
from nas.space import count, enumerate_architectures, from_picks, network, parse, sample
from nas.testing import SpaceContract
from search_spaces.resnet import ResNet


def tiny(**arguments) -> ResNet:
    given = {
        "channels": (4, 6),
        "depths": ((1, 2), (1,)),
        "expansions": (50, 100),
        "widths": (50, 100),
        "divisor": 1,
        "stem": "cifar",
        "stem_channels": 2,
        "classes": 3,
        "input": (2, 6, 7),
    }
    return ResNet(**(given | arguments))


class TestResNet(SpaceContract):
    def space(self):
        return SMALL["resnet"]()

    def small(self):
        return tiny()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_resnet_is_a_part_of_the_largest(data):
    whole = st.integers(1, 40)
    stages = data.draw(st.integers(1, 3))
    space = ResNet(
        channels=tuple(data.draw(st.lists(whole, min_size=stages, max_size=stages))),
        depths=((1, 2),) * stages,
        expansions=tuple(
            data.draw(st.lists(st.integers(5, 150), min_size=1, max_size=3, unique=True))
        ),
        widths=tuple(
            data.draw(st.lists(st.integers(10, 200), min_size=1, max_size=3, unique=True))
        ),
        divisor=data.draw(st.integers(1, 9)),
        stem="cifar",
        stem_channels=data.draw(whole),
        classes=2,
        input=(1, 4, 4),
    )
    largest = shapes(space, at_most(space))
    rng = np.random.default_rng(0)
    for _ in range(4 if space.choices else 0):
        arch = sample(space, rng)
        own = shapes(space, arch)
        assert set(own) <= set(largest)
        for name, shape in own.items():
            assert all(a <= b for a, b in zip(shape, largest[name], strict=True)), name
        canonical = space.canonical(arch)
        assert shapes(space, canonical) == own


def at_most(space):
    picks = {}
    while (step := space.legal(picks)) is not None:
        picks[step[0].label] = max(step[1])
    return from_picks(space, picks)


def shapes(space, arch):
    with torch.device("meta"):
        return {name: t.shape for name, t in network(space, arch).state_dict().items()}


@pytest.mark.parametrize(
    "space",
    [
        tiny(widths=(50, 60, 100), divisor=2, depths=((1,), (1,))),
        tiny(expansions=(25, 30, 100), widths=(50,), divisor=2),
    ],
    ids=["widths", "expansions"],
)
def test_equal_networks_and_no_others_have_an_equal_form(space):
    forms = {}
    for arch in enumerate_architectures(space):
        forms.setdefault(tuple(shapes(space, arch).items()), set()).add(space.canonical(arch))
    assert all(len(same) == 1 for same in forms.values())
    assert len(forms) == len(set.union(*forms.values())) < count(space)


# ------------------------------------------------------------------------- what is described


def test_resnet_scales_down_to_small_images():
    space, arch = published("resnet:resnet50", {"stem": "cifar", "input": "3x32x32", "classes": 10})
    sizes = []
    built = network(space, arch).eval()
    for block in built.layers.values():
        block.register_forward_hook(lambda _, __, out: sizes.append(out.shape[2:]))
    built(torch.zeros(1, 3, 32, 32))
    halves = [size[0] for size in sizes if size]
    assert halves == [32] + [32] * 3 + [16] * 4 + [8] * 6 + [4] * 3
    large, same = published("resnet:resnet50")
    assert same == arch
    sizes.clear()
    with torch.device("meta"):
        built = network(large, same)
        for block in built.layers.values():
            block.register_forward_hook(lambda _, __, out: sizes.append(out.shape[2:]))
        built(torch.zeros(1, 3, 224, 224))
    halves = [size[0] for size in sizes if size]
    assert halves == [112, 56] + [56] * 3 + [28] * 4 + [14] * 6 + [7] * 3


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_resnet_resolution_scales_the_image_first(stem):
    space = tiny(resolutions=(6, 8), input=(2, 8, 8), stem=stem)
    rest = " ".join(str(at_most(space)).split()[1:])
    one, other = (network(space, parse(space, f"resolution={size} {rest}")) for size in (6, 8))
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 2, 8, 8)
    small = nn.functional.interpolate(x, size=(6, 6), mode="bilinear")
    torch.testing.assert_close(one.eval()(x), other.eval()(small))


def test_resnet_size_is_its_formula():
    # Width of the stem, then of each stage: its width, and three ratios for each of its blocks.
    assert count(ResNet()) == 3**5 * (3**2 + 3**3 + 3**4) ** 3 * (3**4 + 3**5 + 3**6)
    assert count(tiny(widths=(100,), expansions=(25,))) == 2


def test_resnet_is_rebuilt_from_its_description():
    space = tiny(resolutions=(6, 8))
    again = create("spaces", describe(space), "space")
    assert again == space
    assert again.choices == space.choices


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": (4,)}, "1 channels .4,. for 2 stages"),
        ({"channels": ()}, "channels must have at least one"),
        ({"channels": (4, 0)}, "channels must be whole numbers of at least 1, got 0"),
        ({"channels": 4}, "channels must be a tuple"),
        ({"depths": ((1, 2), ())}, "depths of a stage must have at least one"),
        ({"depths": (1, 2)}, "depths of a stage must be a tuple"),
        ({"depths": ((1, 1), (1,))}, "equal options"),
        ({"widths": (0.5, 1.0)}, "widths must be whole numbers of at least 1, got 0.5"),
        ({"widths": ()}, "widths must have at least one"),
        ({"expansions": (25, 25)}, "equal options"),
        ({"divisor": 0}, "divisor must be at least 1"),
        ({"stem": "imagnet"}, "no stem 'imagnet'.*'imagenet'"),
        ({"stem_channels": 0}, "stem_channels"),
        ({"classes": 0}, "classes"),
        ({"input": (32, 32)}, "channels, height, width"),
        ({"input": (3, 0, 32)}, "positive"),
        ({"resolutions": (0,)}, "resolutions"),
    ],
)
def test_resnet_refuses(arguments, says):
    with pytest.raises((ConfigError, InvalidArchitecture, ValueError), match=says):
        tiny(**arguments)

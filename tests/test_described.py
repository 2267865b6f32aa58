"""Spaces described by one function: the contract, what is found of them, and what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import own_space_digits
import own_space_transformer

from nas import encoding, registry
from nas.architecture import Architecture
from nas.builder import Builder, FixedBuilder
from nas.components import create, describe
from nas.cost import architecture_cost
from nas.described import described
from nas.errors import ConfigError, InvalidArchitecture, UnsupportedRequest
from nas.layers.basic import GlobalAveragePool
from nas.space import (
    count,
    enumerate_architectures,
    from_picks,
    mutate,
    network,
    parse,
    sample,
    validate,
)


def small_cnn(builder: Builder, widths: tuple[int, ...] = (2, 3)) -> nn.Module:
    width = builder.number("width", widths)
    blocks = builder.depth("depth", lambda i: _block(builder, width, i), (0, 2))
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), *blocks, GlobalAveragePool(), nn.Linear(width, 3)
    )


def _block(builder: Builder, width: int, i: int) -> nn.Module:
    kernel = builder.number(f"kernel{i}", (1, 3))
    act = builder.slot("act", {"relu": nn.ReLU, "tanh": nn.Tanh, "swish": nn.SiLU})
    conv = nn.Conv2d(width, width, kernel, padding="same")
    return nn.Sequential(conv, act)


# --------------------------------------------------------------------------- what is found


def test_choices_are_all_that_any_way_asks_in_an_order_that_all_keep():
    space = described(small_cnn, (1, 6, 6), 3)
    assert [(c.label, c.options) for c in space.choices] == [
        ("width", (2, 3)),
        ("depth", (0, 2)),
        ("kernel0", (1, 3)),
        ("act", ("relu", "tanh", "swish")),
        ("kernel1", (1, 3)),
    ]
    assert space.name == "small_cnn/v1"
    assert list(parse(space, "width=2 depth=0")) == ["width", "depth"]
    # A label asked for in each block is one pick, and each block has a module of its own.
    built = network(space, parse(space, "width=2 depth=2 kernel0=1 act=swish kernel1=3"))
    acts = [module for module in built.modules() if isinstance(module, nn.SiLU)]
    assert len(acts) == len(set(map(id, acts))) == 2


def test_sizes_are_closed_forms():
    assert count(own_space_digits.space()) == 3 * (8 + 8**2 + 8**3) * 2
    assert count(described(small_cnn, (1, 6, 6), 3)) == 2 * (1 + 2 * 3 * 2)
    with pytest.raises(UnsupportedRequest, match=r"'digits_transformer/v1' has too many"):
        count(own_space_transformer.space())


def test_a_factory_is_called_only_where_it_may_ask():
    called: list[str] = []

    class Loud(nn.Identity):
        def __init__(self, tag: str = "class") -> None:
            super().__init__()
            called.append(tag)

    def quiet(builder: Builder) -> nn.Module:
        options = {"class": Loud, "partial": partial(Loud, tag="partial")}
        return nn.Sequential(builder.slot("a", options), builder.edge("b", options))

    space = described(quiet, (3,), 3)
    assert count(space) == 4
    assert len(list(enumerate_architectures(space))) == 4
    assert not called
    network(space, parse(space, "a=class b=partial"))
    assert called == ["class", "partial"]


def test_options_that_look_alike_share_what_follows_but_not_where_they_differ_later():
    """At its first place the label's options are the same to the description, at its second not."""

    def description(builder: Builder) -> nn.Module:
        first = builder.slot("op", {"a": nn.ReLU, "b": nn.Tanh})
        builder.number("between", (1, 2))
        second = builder.edge("op", {"a": nn.ReLU, "b": None})
        if second is None:
            builder.number("only_b", (1, 2, 3))
        return first

    space = described(description, (3,), 3)
    expected = 2 * (1 + 3)
    assert count(space) == len(list(enumerate_architectures(space))) == expected
    again = described(description, (3,), 3)  # the shallow questions first
    assert again.legal({})
    assert again.legal({"op": "a"})[0].label == "between"
    assert again.legal({"op": "b"})[0].label == "between"
    assert again.legal({"op": "a", "between": 1}) is None
    assert again.legal({"op": "b", "between": 1})[0].label == "only_b"


def test_nested_conditions_are_found_where_chance_would_not():
    """Fifteen choices deep, each opened by one option of eight of the one before."""

    def nest(builder: Builder) -> nn.Module:
        for depth in range(15):
            if builder.number(f"n{depth}", tuple(range(8))) != 3:
                builder.number(f"left{depth}", tuple(range(8)))
                break
        return nn.Identity()

    space = described(nest, (3,), 3)
    assert {c.label for c in space.choices} == {
        f"{kind}{depth}" for kind in ("n", "left") for depth in range(15)
    }
    assert count(space) == 15 * 7 * 8 + 1 == len(set(enumerate_architectures(space)))


def rare(builder: Builder) -> nn.Module:
    picks = [builder.number(f"n{i}", (0, 1, 2, 3, 4)) for i in range(6)]
    if picks == [1, 3, 2, 1, 3, 2]:
        builder.slot("hidden", {"a": nn.ReLU, "b": nn.Tanh})
    return nn.Linear(3, 3)


RARE = dict(zip([f"n{i}" for i in range(6)], (1, 3, 2, 1, 3, 2), strict=True))


def test_what_was_not_found_is_refused_and_can_be_given():
    space = described(rare, (3,), 3)
    assert [c.label for c in space.choices] == list(RARE)
    with pytest.raises(UnsupportedRequest, match=r"'hidden' after n0=1 n1=3 .*choices="):
        from_picks(space, RARE)
    choices = dict.fromkeys(RARE, (0, 1, 2, 3, 4)) | {"hidden": ("a", "b")}
    space = described(rare, (3,), 3, choices=choices)
    arch = from_picks(space, RARE | {"hidden": "b"})
    assert encoding.from_one_hot(space, encoding.one_hot(space, arch)) == arch
    again = create("spaces", describe(space), "space")
    assert again.choices == space.choices
    assert again == space


def test_reading_draws_no_random_numbers_and_makes_no_weights():
    state = torch.get_rng_state()
    space = described(small_cnn, (1, 6, 6), 3)
    for arch in enumerate_architectures(space):
        space.slots(arch)
    assert torch.equal(torch.get_rng_state(), state)


def test_legal_walks_once_for_all_that_looks_alike():
    calls = 0

    def counted(builder: Builder) -> nn.Module:
        nonlocal calls
        calls += 1
        return own_space_digits.digits_cnn(builder)

    space = described(counted, (1, 8, 8), 10)
    count(space)
    calls = 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        mutate(space, sample(space, rng), rng)
    assert calls == 0


# ----------------------------------------------------------------------------- what it is


def test_descriptions_are_their_calls():
    space = own_space_digits.space()
    assert describe(space) == {
        "name": "nas.described:described",
        "description": "own_space_digits:digits_cnn",
        "input": [1, 8, 8],
        "classes": 10,
        "version": 1,
    }
    assert create("spaces", describe(space), "space") == space
    assert create("spaces", "own_space_digits:space", "space") == space
    written = {"name": "nas.described:described", "description": "own_space_digits:digits_cnn"}
    given = {"input": (1, 8, 8), "classes": 10}
    assert create("spaces", written, "space", given) == space


def own(input: tuple[int, ...] = (1, 6, 6), classes: int = 3, width: int = 2):
    """A user's function, whose description sees what it was called with."""

    def network(builder: Builder) -> nn.Module:
        return nn.Sequential(small_cnn(builder, (width, 2 * width)), nn.Linear(3, classes))

    return described(network, input, classes)


def test_a_space_that_a_function_makes_is_the_call_of_that_function():
    made = create("spaces", {"name": "test_described:own", "width": 4}, "space", {"classes": 5})
    assert describe(made) == {"name": "test_described:own", "width": 4, "classes": 5}
    assert made.choices[0].options == (4, 8)
    again = create("spaces", describe(made), "space")
    assert again.choices == made.choices
    assert "object" in describe(own())  # called by hand: nobody knows how


def test_what_lives_in_a_script_is_not_made_from_a_file():
    def local(builder: Builder) -> nn.Module:
        return builder.slot("op", {"a": nn.ReLU, "b": nn.Tanh})

    description = describe(described(local, (3,), 3))
    assert description["object"].startswith("search space described by test_described.test_what")
    with pytest.raises(ConfigError, match="lives in a Python script"):
        create("spaces", description, "space")


def test_costs_are_those_of_the_transformers_parts():
    space = own_space_transformer.space()
    arch = parse(
        space,
        "dim=24 depth=2 heads0=4 act0=relu ratio0=2 norm=rms heads1=1 act1=gelu ratio1=4",
    )
    tokens, d = 8, 24
    layer = 3 * d * d + d * d  # query, key, value; output
    products = 2 * tokens * d  # of a token with all others, over all heads
    ratios = 2 + 4
    macs = tokens * (8 * d + 2 * (layer + products) + ratios * 2 * d * d) + d * 10
    parameters = (
        (8 * d + d + tokens * d)
        + 2 * (layer + 4 * d)
        + (ratios * 2 * d * d + ratios * d + 2 * d)
        + 5 * d
        + (d * 10 + 10)
    )
    found = architecture_cost(space, arch)
    assert (found.parameters, found.macs) == (parameters, macs)


def test_picks_of_two_spellings_build_what_they_say():
    space = own_space_digits.space()
    text = "width=8 depth=1 kernel0=5 act0=hswish skip0={} pool=max"
    without, around = (network(space, parse(space, text.format(s))) for s in ("none", "identity"))
    assert without[1][0].skip is None
    assert isinstance(around[1][0].skip, nn.Identity)
    assert isinstance(around[1][0].act, nn.Hardswish)
    assert list(without.state_dict()) == list(around.state_dict())


# ------------------------------------------------------------------------------ what is refused


def two_options(b: Builder) -> nn.Module:
    heads = b.number("heads", (1, 2))
    return nn.Linear(b.number("dim", (heads, 4)), 3)


def same_label_twice(b: Builder) -> nn.Module:
    return nn.Sequential(b.slot("a", {"x": nn.ReLU}), b.slot("a", {"y": nn.ReLU}))


def two_orders(b: Builder) -> nn.Module:
    labels = ("x", "y") if b.number("first", (0, 1)) else ("y", "x")
    return nn.Linear(*(b.number(label, (3, 4)) for label in labels))


def no_options(b: Builder) -> nn.Module:
    return nn.Linear(3, b.number("width"))


def an_odd_number(b: Builder) -> nn.Module:
    return nn.Linear(3, b.number("width", (3, 2.5)))


def asks_nothing(b: Builder) -> nn.Module:
    return nn.Linear(3, 3)


def no_network(b: Builder) -> nn.Module:
    return b.number("width", (3, 4))


def absent_slot(b: Builder) -> nn.Module:
    return b.slot("op", {"a": nn.ReLU, "none": None})


def numbers_for_names(b: Builder) -> nn.Module:
    return b.slot("op", {3: nn.ReLU})


def equal_options(b: Builder) -> nn.Module:
    return nn.Linear(3, b.number("width", (3, 3)))


def two_words(b: Builder) -> nn.Module:
    return nn.Linear(3, b.number("the width", (3, 4)))


def deeper_than_zero(b: Builder) -> nn.Module:
    return nn.Sequential(*b.depth("depth", lambda i: nn.ReLU(), (-1, 2)))


def large_subset(b: Builder) -> nn.Module:
    return nn.Linear(3, 1 + len(b.subset("taken", 9)))


SHAKY: list[int] = []


def of_another_mind(b: Builder) -> nn.Module:
    SHAKY.append(1)
    b.number("a", (1, 2))
    return nn.Linear(3, b.number("odd" if len(SHAKY) % 2 else "even", (1, 2)))


@pytest.mark.parametrize(
    ("description", "says"),
    [
        (two_options, r"'dim' is asked for with the options \(2, 4\).*one list of options"),
        (same_label_twice, r"'a' is asked for with the options \('y',\).* \('x',\)"),
        (two_orders, r"two_orders/v1 asks for '[xy]' before '[xy]' and after it"),
        (no_options, r"'width' must be given its options"),
        (an_odd_number, r"whole numbers"),
        (asks_nothing, r"asks_nothing/v1 asks the builder for nothing"),
        (no_network, r"returned a int, expected the network"),
        (absent_slot, r"slot 'op' offers no module for 'none'.*builder.edge"),
        (numbers_for_names, r"options of 'op' must map strings"),
        (equal_options, r"equal options"),
        (two_words, r"'the width' .* use words without spaces"),
        (deeper_than_zero, r"'depth' is below 0"),
        (large_subset, r"subset 'taken' of 9, expected 1 to 8"),
        (of_another_mind, r"with the same picks, for '(odd|even)'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_a_space_says_why(description, says):
    with pytest.raises(UnsupportedRequest, match=says):
        described(description, (3,), 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"description": lambda b: asks_nothing(b)}, "made with def"),
        ({"description": 3}, "made with def, which takes a builder; got 3"),
        ({"description": "own_space_digits"}, "must be 'module:function'"),
        ({"description": "own_space_digits:digit_cnn"}, "cannot be imported"),
        ({"classes": 0}, "small_cnn: classes must be at least 1, got 0"),
        ({"version": "2"}, "version must be at least 1, got '2'"),
        ({"input": (1, 0)}, "positive integers"),
        ({"arguments": {"widths": nn.ReLU}}, "arguments must be numbers, strings and tuples"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    good = {"description": small_cnn, "input": (1, 6, 6), "classes": 3}
    with pytest.raises((ConfigError, InvalidArchitecture), match=says):
        described(**(good | arguments))


def test_a_users_mistake_keeps_its_place_and_says_with_which_picks():
    def broken(builder: Builder) -> nn.Module:
        return nn.Conv2d(3, 3, 1, groups=builder.number("groups", (1, 3, 2)))

    with pytest.raises(ValueError, match="divisible by groups") as raised:
        described(broken, (3, 4, 4), 3)
    assert "broken/v1 was being read with groups=2" in raised.value.__notes__[0]


def test_the_whole_architecture_is_checked():
    space = described(small_cnn, (1, 6, 6), 3)
    with pytest.raises(InvalidArchitecture, match="'4' is not an option of 'width'"):
        parse(space, "width=4 depth=0")
    with pytest.raises(InvalidArchitecture, match="not active"):
        validate(space, Architecture(space.name, (("width", 2), ("depth", 0), ("kernel0", 1))))
    with pytest.raises(InvalidArchitecture):
        FixedBuilder(space, Architecture(space.name, (("width", 2),)))
    assert registry.name_of(described) == "nas.described:described"

"""Choices and architectures check themselves, and keep their form."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.architecture import Architecture, Choice
from nas.errors import InvalidArchitecture, NasError, nearest

scalars = (
    st.text(max_size=5)
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
)
picks = st.lists(
    st.tuples(st.text(min_size=1, max_size=6), scalars), max_size=6, unique_by=lambda p: p[0]
)
NOT_SCALARS = [True, False, math.nan, math.inf, -math.inf, None, (1,), [1], b"conv", 1j, {"a": 1}]


@pytest.mark.parametrize("value", NOT_SCALARS, ids=repr)
def test_what_json_does_not_keep_is_no_option_and_no_pick(value):
    with pytest.raises(NasError, match="'op'"):
        Choice("op", ("conv", value))
    with pytest.raises(InvalidArchitecture, match="'op'"):
        Architecture("toy/v1", (("op", value),))


@pytest.mark.parametrize("options", [(3, 3), (3, 3.0), ("a", "b", "a"), (0, -0.0)], ids=repr)
def test_equal_options_are_refused(options):
    with pytest.raises(NasError, match="equal options"):
        Choice("op", options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", ("a",)), "non-empty"),
        ((3, ("a",)), "got 3"),
        (("op", ()), "no options"),
        (("op", "conv"), "'conv'"),
        (("op", ("a",), {"depth": "deep"}), "'deep'"),
        (("op", ("a",), {"depth": 2}), "mapped to 2"),
        (("op", ("a",), {"op": ("a",)}), "itself"),
    ],
)
def test_choices_check_themselves(arguments, says):
    with pytest.raises(NasError, match=says):
        Choice(*arguments)


def test_choice_is_active_where_all_conditions_hold():
    choice = Choice("k", (3, 5), when={"depth": (2, 3), "op": ("conv",)})
    assert choice.conditions() == (("depth", (2, 3)), ("op", ("conv",)))
    assert choice.active({"depth": 3, "op": "conv"})
    assert not choice.active({"depth": 1, "op": "conv"})
    assert not choice.active({"depth": 3, "op": "pool"})
    assert not choice.active({"depth": 3})
    assert Choice("k", (3, 5)).active({})
    assert Choice("k", (3, 5), choice.conditions()) == dataclasses.replace(choice)


def test_index_is_strict_in_type():
    choice = Choice("k", (3, 5, "7", 0.5))
    assert [choice.index(option) for option in choice.options] == [0, 1, 2, 3]
    for stranger in (3.0, "3", 7, True):
        with pytest.raises(InvalidArchitecture, match="'k'"):
            choice.index(stranger)
    with pytest.raises(InvalidArchitecture, match="did you mean 'conv_3x3'"):
        Choice("op", ("none", "conv_3x3", "pool")).index("conv3x3")


def test_values_are_frozen():
    arch = Architecture("toy/v1", (("a", 1),))
    for value, name in ((arch, "space"), (Choice("a", (1,)), "label")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, "other")


@given(picks)
def test_json_is_read_back(pairs):
    arch = Architecture("toy/v1", tuple(pairs))
    again = Architecture.from_json(arch.to_json())
    assert again == arch
    assert hash(again) == hash(arch)
    assert again.to_json() == arch.to_json()
    assert again.digest() == arch.digest()
    assert [type(v) for _, v in again.picks] == [type(v) for _, v in arch.picks]
    assert pickle.loads(pickle.dumps(arch)) == arch
    assert list(arch) == [label for label, _ in pairs]
    assert Architecture.from_document({"space": "toy/v1", "picks": arch.as_dict()}) == arch


@given(picks, picks)
def test_digests_differ_where_json_does(one, other):
    first, second = Architecture("toy/v1", tuple(one)), Architecture("toy/v1", tuple(other))
    assert (first.digest() == second.digest()) == (first.to_json() == second.to_json())


def test_digest_tells_apart_what_python_does_not():
    three, also = (Architecture("toy/v1", (("k", value),)) for value in (3, 3.0))
    assert three == also
    assert three.digest() != also.digest()
    assert Architecture("toy/v1", (("k", "3"),)).digest() != three.digest()
    assert Architecture("toy/v2", (("k", 3),)).digest() != three.digest()


def test_digest_is_fixed():
    # Journals and file names hold digests: they must not change from version to version.
    arch = Architecture("toy/v1", (("größe", 3), ("op", "conv"), ("rate", 0.25)))
    assert arch.to_json() == (
        '{"space":"toy/v1","picks":[["größe",3],["op","conv"],["rate",0.25]]}'
    )
    assert arch.digest() == "c9348f41155d0393e0cd5a43938f3354"


def test_digest_does_not_depend_on_string_hashes():
    code = (
        "from nas.architecture import Architecture as A;"
        "print(A('toy/v1', (('b', 'x'), ('a', 2))).digest())"
    )
    here = Architecture("toy/v1", (("b", "x"), ("a", 2))).digest()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not even JSON"),
        ("[]", "'space' and 'picks'"),
        ('{"space": "toy/v1"}', "'space' and 'picks'"),
        ('{"space": "toy/v1", "picks": 3}', "pairs"),
        ('{"space": "toy/v1", "picks": [["a", 1, 2]]}', "pairs"),
        ('{"space": "toy/v1", "picks": ["ab"]}', "pairs"),
        ('{"space": 3, "picks": []}', "got 3"),
        ('{"space": "toy/v1", "picks": [["a", null]]}', "got None"),
        ('{"space": "toy/v1", "picks": [["a", true]]}', "got True"),
        ('{"space": "toy/v1", "picks": [["a", NaN]]}', "got nan"),
        ('{"space": "toy/v1", "picks": [[1, 1]]}', "label must be a string"),
        ('{"space": "toy/v1", "picks": [["a", 1], ["a", 2]]}', "same label"),
    ],
)
def test_json_that_is_no_architecture_is_refused(text, says):
    with pytest.raises(InvalidArchitecture, match=says):
        Architecture.from_json(text)


@given(
    st.text(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["space", "picks", "a"]), inner, max_size=3)
        ),
        max_leaves=12,
    ).map(json.dumps)
)
def test_any_other_text_is_refused_with_our_error(text):
    try:
        arch = Architecture.from_json(text)
    except InvalidArchitecture:
        return
    assert Architecture.from_json(arch.to_json()) == arch


def test_getitem_names_the_nearest_label():
    arch = Architecture("toy/v1", (("kernel", 3),))
    assert arch["kernel"] == 3
    with pytest.raises(KeyError, match="did you mean 'kernel'"):
        arch["kernal"]


def test_nearest():
    assert nearest("acuracy", ["accuracy", "macs"]) == (
        "did you mean 'accuracy'? (valid: accuracy, macs)"
    )
    assert nearest("zzz", ["accuracy", "macs"]) == "valid: accuracy, macs"
    assert nearest("zzz", []) == "there are none"
    assert nearest("x", range(100)) == "valid: " + ", ".join(map(str, range(20))) + ", …"

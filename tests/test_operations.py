"""Operations as texts: read, written, refused; and what their modules do with a tensor."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_texts import C_IN, TEXTS
from torch import nn

from nas.errors import ConfigError
from nas.operations import OPERATIONS, Operation, Parameter, parse_operation
from nas.operations.parameters import CHANNELS
from nas.operations.values import DECIMAL, FRACTION, HALVING, ODD, ODDS, PAIR, WHOLE, Words

# --------------------------------------------------------------------------------- the texts

_ODD = st.integers(0, 40).map(lambda half: 2 * half + 1)
_STRATEGIES: dict[int, st.SearchStrategy[Any]] = {
    id(WHOLE): st.integers(1, 9999),
    id(ODD): _ODD,
    id(HALVING): st.sampled_from([1, 2]),
    id(DECIMAL): st.floats(0.0001, 1e6) | st.integers(1, 99),
    id(FRACTION): st.floats(0.0001, 1, exclude_max=True),
    id(ODDS): st.lists(_ODD, min_size=1, max_size=5).map(tuple),
    id(PAIR): st.tuples(st.just(0) | _ODD, st.just(0) | _ODD),
}


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    kind = OPERATIONS[draw(st.sampled_from(sorted(OPERATIONS)))]
    arguments = []
    for parameter in kind.parameters:
        if parameter.default is None or draw(st.booleans()):
            if isinstance(parameter.values, Words):
                values = st.sampled_from(sorted(parameter.values.words.values()))
            else:
                values = _STRATEGIES[id(parameter.values)]
            arguments.append((parameter.name, draw(values)))
    return Operation(kind.name, tuple(draw(st.permutations(arguments))))


@settings(deadline=None)
@given(operations())
def test_an_operation_is_read_back_from_its_text(operation):
    again = parse_operation(str(operation))
    assert again == operation
    assert hash(again) == hash(operation)
    assert str(again) == str(operation)


@settings(deadline=None)
@given(operations())
def test_the_order_of_the_parts_is_free(operation):
    head, *tokens = str(operation).split("_")
    assert parse_operation("_".join([head, *reversed(tokens)])) == operation


@settings(deadline=None)
@given(operations(), operations())
def test_different_operations_have_different_texts(one, other):
    assert (one == other) == (str(one) == str(other))


def test_every_kind_has_texts_here():
    assert {parse_operation(text).kind for text in TEXTS} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("text", "canonical", "values"),
    [
        (
            "ir_k5_s2_e6_o40_se0.25_hswish",
            "ir_k5_s2_e6_o40_se0.25_hswish",
            {
                "kernel_size": 5,
                "stride": 2,
                "expansion": 6,
                "c_out": 40,
                "groups": 1,
                "se_ratio": 0.25,
                "activation": "hswish",
                "gate": "sigmoid",
            },
        ),
        (" ds_s1_k3_o16 ", "ds_k3_o16", None),
        ("dil_k3_d2", "dil_k3", {"kernel_size": 3, "stride": 1, "c_out": 0, "dilation": 2}),
        ("se0.50", "se0.5", {"se_ratio": 0.5, "divisor": 1, "gate": "sigmoid"}),
        ("se0.25", "se", None),
        ("mix_k3.5.7", "mix_k3.5.7", None),
        ("uib_k0.3_e4.0", "uib_k0.3_e4", None),
        ("none", "none", {}),
    ],
)
def test_texts_mean_what_they_say(text, canonical, values):
    operation = parse_operation(text)
    assert str(operation) == canonical
    if values is not None:
        assert operation.values() == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cnv_k3", r"no operation 'cnv' in 'cnv_k3': did you mean 'conv'"),
        ("", r"no operation ''"),
        ("conv_k4", r"'k4' in 'conv_k4': expected k with an odd number"),
        ("conv_k", r"'k' in 'conv_k': expected k with an odd number"),
        ("conv_k-3", r"'k-3' in 'conv_k-3'"),
        ("conv_k３", r"'k３'"),
        ("conv_k3_hswich", r"'hswich' .* did you mean 'hswish'"),
        ("conv_k3_q2", r"'q2' in 'conv_k3_q2' is nothing that 'conv' takes: .*valid: k, s, o"),
        ("conv_k3_", r"'' in 'conv_k3_' is nothing"),
        ("conv", r"'conv' needs kernel_size: k with an odd number"),
        ("conv_k3_k5", r"'conv' is given 'kernel_size' twice"),
        ("conv3_k3", r"'conv3' in 'conv3_k3' is nothing that 'conv' takes"),
        ("conv_k3_o0", r"'o0' in .* at least 1"),
        ("ir_k3_e0", r"'e0' in .* above 0"),
        ("ir_k3", r"'ir' needs expansion"),
        ("se0.25.1", r"'se0.25.1' .* above 0"),
        ("none_k3", r"'k3' in 'none_k3' is nothing that 'none' takes"),
        ("oct_a1", r"'a1' .* between 0 and 1"),
        ("mix_k3.4", r"'k3.4' .* odd numbers joined by dots"),
        ("uib_k3_e4", r"'k3' .* two odd numbers"),
        ("skip_s3", r"'s3' .* expected s with 1 or 2"),
    ],
)
def test_a_text_that_is_none_is_refused_by_its_token(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_operation(text)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("covn", (), "no operation 'covn': did you mean 'conv'"),
        ("conv", (("kernel", 3),), "no argument 'kernel': did you mean 'kernel_size'"),
        ("conv", (("kernel_size", 4),), "kernel_size is 4, expected an odd number"),
        ("conv", (("kernel_size", True),), "kernel_size is True"),
        ("conv", (("kernel_size", 3), ("activation", "gulu")), "activation is 'gulu', expected"),
        ("ir", (("kernel_size", 3), ("expansion", float("nan"))), "expansion is nan"),
        ("mix", (("kernel_sizes", ()),), r"kernel_sizes is \(\)"),
    ],
)
def test_bad_arguments_are_refused(kind, arguments, message):
    with pytest.raises(ConfigError, match=message):
        Operation(kind, arguments)


def test_arguments_are_kept_in_one_form():
    given = (("stride", 1), ("c_out", 32), ("kernel_size", 3), ("norm", "batch"))
    assert Operation("conv", given).arguments == (("kernel_size", 3), ("c_out", 32))


def test_the_table_is_one():
    for name, kind in OPERATIONS.items():
        assert name == kind.name
        assert name.isalpha()
        assert kind.summary
        assert kind.paper or name in ("none", "skip", "max", "avg", "conv")
        seen: set[str] = set()
        for parameter in kind.parameters:
            texts = set(parameter.texts())
            assert not texts & seen, f"{name}: {texts & seen} can be read in two ways"
            seen |= texts
            assert parameter.default is None or _reads_its_default(parameter)


def _reads_its_default(parameter: Parameter) -> bool:
    """A default can be written too, or is 0, which stands for what no text can say."""
    return parameter.default == 0 or parameter.values.valid(parameter.default)


# -------------------------------------------------------------------------------- the modules


def made(text: str) -> nn.Module:
    factory = parse_operation(text).factory(C_IN)
    assert factory is not None
    return factory()


def test_none_is_no_connection():
    assert parse_operation("none").factory(C_IN) is None


def expected_shape(text: str, size: tuple[int, int]) -> tuple[int, ...]:
    operation = parse_operation(text)
    stride = int(operation.values().get("stride", 1))
    if text == "max_k2_s2":  # an even window has no padding: what is left over is dropped
        return (2, C_IN, *(edge // 2 for edge in size))
    return (2, operation.c_out(C_IN), *(math.ceil(edge / stride) for edge in size))


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("text", [text for text in TEXTS if text != "none"])
def test_every_operation_runs_and_learns(text, size):
    module = made(text)
    x = torch.randn(2, C_IN, *size, requires_grad=True)
    output = module.train()(x)
    assert output.shape == expected_shape(text, size)
    output.square().sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())
    assert bool((x.grad != 0).any())
    assert module.eval()(x).shape == output.shape
    with torch.device("meta"):
        on_meta = made(text).eval()(torch.empty(2, C_IN, *size))
    assert on_meta.shape == output.shape


@pytest.mark.parametrize("text", [text for text in TEXTS if text != "none"])
def test_arguments_of_a_module_are_attributes(text):
    factory = parse_operation(text).factory(C_IN)
    module = factory()
    if not type(module).__module__.startswith("nas.layers") or not isinstance(factory.func, type):
        return
    for name, value in factory.keywords.items():
        assert getattr(module, name) == value


def test_a_factory_is_of_a_class_wherever_no_input_is_added():
    for text in TEXTS:
        factory = parse_operation(text).factory(C_IN)
        if factory is not None and text.split("_")[0] not in ("ir", "er", "uib"):
            assert isinstance(factory.func, type), text
            assert factory.args == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip_o32", "skip from 16 to 32 channels"),
        ("shuffle_k3_o32", "stride 1 from 16 to 32"),
        ("shuffle_k3_s2_o16", "stride 2 from 16 to 16"),
        ("ir_k3_e3_se0.25_g2", "do not go together"),
    ],
)
def test_what_does_not_fit_the_channels_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_operation(text).factory(C_IN)


def test_layers_refuse_channels_that_cannot_be_parted():
    for text, message in [
        ("gshuffle_s2_o16_g2", "c_out must exceed c_in"),
        ("shift_o8_e1", "needs 9 channels, got 8"),
        ("oct_o3_a0.25", "leave none for alpha 0.25"),
        ("conv_k3_g3", "divisible by groups"),
        ("uib_k0.0_s2_e2", "needs a depthwise convolution"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(text)


def test_channels_stay_where_none_are_given():
    assert CHANNELS.default == 0
    assert parse_operation("conv_k3").c_out(24) == 24
    assert parse_operation("conv_k3_o32").c_out(24) == 32
    assert parse_operation("star").c_out(24) == 24

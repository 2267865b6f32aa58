"""The arguments that operations take: their letters, names, values and defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nas.layers.activations import ACTIVATIONS
from nas.operations.values import DECIMAL, HALVING, ODD, ODDS, PAIR, WHOLE, Value, Values, Words


@dataclass(frozen=True)
class Parameter:
    """One argument of a kind of operation.

    Attributes:
        key: what stands before its value in the text; empty for words.
        name: of the argument.
        values: those it may have.
        default: where the text leaves it out; ``None`` where it may not.
    """

    key: str
    name: str
    values: Values | Words
    default: Value | None = None

    def by(self, default: Value) -> Parameter:
        """The same with another default."""
        return replace(self, default=default)

    def of(self, values: Values) -> Parameter:
        """The same with other values."""
        return replace(self, values=values)

    def texts(self) -> list[str]:
        """How it begins, or all its words: what a message may suggest."""
        return list(self.values.words) if isinstance(self.values, Words) else [self.key]


# Words without the underscore, which parts tokens; identity is what papers call linear.
_ACTIVATION_WORDS: dict[str, Value] = {
    {"leaky_relu": "leaky", "identity": "linear"}.get(name, name): name for name in ACTIVATIONS
}
_GATE_WORDS: dict[str, Value] = {"sigmoid": "sigmoid", "hsigmoid": "hsigmoid"}
_GATED_WORDS: dict[str, Value] = {
    word: name for word, name in _ACTIVATION_WORDS.items() if word not in _GATE_WORDS
}
_NORM_WORDS: dict[str, Value] = {
    "batchnorm": "batch",
    "groupnorm": "group",
    "layernorm": "layer",
    "nonorm": "none",
}

KERNEL = Parameter("k", "kernel_size", ODD)
KERNELS = Parameter("k", "kernel_sizes", ODDS)
KERNEL_PAIR = Parameter("k", "kernel_sizes", PAIR)
WINDOW = Parameter("k", "kernel_size", WHOLE)
STRIDE = Parameter("s", "stride", WHOLE, 1)
HALVING_STRIDE = Parameter("s", "stride", HALVING, 1)
DILATION = Parameter("d", "dilation", WHOLE, 1)
GROUPS = Parameter("g", "groups", WHOLE, 1)
EXPANSION = Parameter("e", "expansion", DECIMAL)
PART = Parameter("p", "part", WHOLE, 4)
CHANNELS = Parameter("o", "c_out", WHOLE, 0)
"""0: as many as come in."""
SQUEEZE = Parameter("se", "se_ratio", DECIMAL, 0.0)
GATE = Parameter("", "gate", Words(_GATE_WORDS), "sigmoid")
NORM = Parameter("", "norm", Words(_NORM_WORDS), "batch")
ACTIVATION = Parameter("", "activation", Words(_ACTIVATION_WORDS), "relu")
GATED_ACTIVATION = Parameter("", "activation", Words(_GATED_WORDS), "relu")
"""Beside a gate, whose words are left to it."""

"""The operations of the literature as values with a compact text form.

A text is a kind, then keys with values and words, joined by ``_``: ``conv_k3_s2_o32_hswish``,
``ir_k5_s2_e6_o40_se0.25``, ``mix_k3.5.7_s2_o64``, ``uib_k0.3_e4``, ``max_k3_s2``, ``se0.25``,
``skip``, ``none``. ``parse_operation`` reads it; what it leaves out has the kind's default. An
operation makes a slot's option of any ``build``:

    builder.slot("first", {text: parse_operation(text).factory(16) for text in TEXTS})

``k`` is the kernel, ``s`` the stride, ``o`` the channels that come out (as many as come in where
it is left out), ``e`` the expansion, ``g`` groups, ``d`` dilation, ``se`` the squeeze's ratio.
Every kind with its keys, defaults and paper is in ``OPERATIONS``.
"""

from nas.operations.kinds import OPERATIONS as OPERATIONS
from nas.operations.kinds import Kind as Kind
from nas.operations.operation import Operation as Operation
from nas.operations.operation import parse_operation as parse_operation
from nas.operations.parameters import Parameter as Parameter

"""The operations that search spaces share: torch alone, so that they export word for word.

Every argument of a constructor is an attribute of the same name, which is how the exported
source spells it out.
"""

from nas.layers.basic import ConvBNReLU as ConvBNReLU
from nas.layers.basic import GlobalAveragePool as GlobalAveragePool
from nas.layers.basic import ReLUConvBN as ReLUConvBN
from nas.layers.basic import ResidualReduction as ResidualReduction

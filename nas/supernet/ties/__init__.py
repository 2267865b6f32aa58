"""Which channels of which tensors are the same ones, found by following a forward pass.

A *place* is one dimension of one shared tensor. What a convolution writes, the norm after it
scales, a residual adds and the next convolution reads is one *group* of places: permuted alike
in all of them, the network computes what it did. Operations without a rule may tell channels
apart by their positions (heads, halves of a gate, a concatenation), and so their places are
*fixed*, with the reason.
"""

from nas.supernet.ties.follow import follow as follow
from nas.supernet.ties.groups import POSITIONS as POSITIONS
from nas.supernet.ties.groups import Place as Place
from nas.supernet.ties.groups import Ties as Ties

"""How a mixture is computed faster than option by option, on a CPU, in training.

The modules of the relaxed network stay the only description: nothing here holds weights or
replaces a module. A forward pass that is told to (``Supernet.fast``) computes what edges have in
common once a state (``once``), reads the layers it knows as a value or as a norm of a value
(``terms``), sums them in one step whose backward pass needs no more than the values before the
norms (``mixing``), and takes the gradients of depthwise convolutions by the kernels that are fast
(``convolutions``). A module that it does not know is called as it is. All of it can be
differentiated twice.
"""

from nas.supernet.kernels.mixing import value as value
from nas.supernet.kernels.mixing import weighted_sum as weighted_sum
from nas.supernet.kernels.once import Once as Once
from nas.supernet.kernels.once import suits as suits

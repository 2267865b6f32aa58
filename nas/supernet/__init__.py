"""Weight sharing: one set of weights for all architectures of a space.

``Supernet`` (``supernet``) reads a space's description relaxed (``relaxed``): a network in which
every slot holds all of its options (``mixture``), under gates that a strategy supplies
(``gates``). Searches by gradients may want that network in another form (``form``, ``partial``,
``recompute``).
Sub-networks are views into its tensors (``views``); their batch-norm statistics are estimated
anew (``norms``); a relaxed architecture becomes a point again (``discretize``).
"""

from nas.supernet.discretize import discretize as discretize
from nas.supernet.edges import nodes as nodes
from nas.supernet.form import Form as Form
from nas.supernet.form import search_form as search_form
from nas.supernet.gates import EdgeGate as EdgeGate
from nas.supernet.gates import Gate as Gate
from nas.supernet.gates import Gates as Gates
from nas.supernet.gates import HardSample as HardSample
from nas.supernet.gates import Sparse as Sparse
from nas.supernet.norms import recalibrate as recalibrate
from nas.supernet.partial import partial_channels as partial_channels
from nas.supernet.recompute import recomputed as recomputed
from nas.supernet.supernet import Supernet as Supernet

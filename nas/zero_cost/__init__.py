"""Zero-cost proxies: scores of an untrained network from one mini-batch, or from none.

``scores`` takes any torch network; a larger score is meant to go with a higher accuracy after
training. The network is afterwards exactly what it was: weights, gradients, buffers, modes, hooks.
``combined`` ranks a population by several proxies at once and ``relative_rank`` places one network
among a population that is already scored. ``evaluators.zero_cost`` makes them metrics of a search.

Proxies, what they need of a batch, and where they are described:

* nothing: ``params``, ``macs`` (counts), ``synflow``, ``zen``, and AZ-NAS's ``expressivity``,
  ``progressivity``, ``trainability`` (``az_nas``; its fourth is ``macs``);
* images: ``jacob_cov`` (``jacobian``), ``naswot``;
* labelled images: ``grad_norm``, ``snip``, ``fisher`` (``gradients``), ``grasp``, ``zico``.
"""

from nas.zero_cost.families import AZ_NAS as AZ_NAS
from nas.zero_cost.families import PROXIES as PROXIES
from nas.zero_cost.families import Scored as Scored
from nas.zero_cost.families import check_names as check_names
from nas.zero_cost.families import measured as measured
from nas.zero_cost.families import score as score
from nas.zero_cost.families import scores as scores
from nas.zero_cost.probe import LOWEST as LOWEST
from nas.zero_cost.probe import Batch as Batch
from nas.zero_cost.ranks import COMBINATIONS as COMBINATIONS
from nas.zero_cost.ranks import Combination as Combination
from nas.zero_cost.ranks import combined as combined
from nas.zero_cost.ranks import merge as merge
from nas.zero_cost.ranks import relative_rank as relative_rank

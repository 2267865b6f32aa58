"""What a network costs: parameters, multiply-accumulates, activation memory, weight bytes.

``count`` traces one forward pass of a built network on meta tensors: nothing is computed and
nothing is approximated. ``architecture_cost`` gives the same integers for an architecture from the
cost reading of its space's description, which builds only what it has not met before;
``slot_table``, ``parameters_and_macs`` and ``batch_costs`` add up exact tables where a space's
open things are slots alone. ``breakdown`` lists a network's layers. The exact definitions are those
of ``NetworkCost``, ``nas.cost.macs`` and ``nas.cost.memory``.
"""

from nas.cost.architecture import architecture_breakdown as architecture_breakdown
from nas.cost.architecture import architecture_cost as architecture_cost
from nas.cost.architecture import batch_costs as batch_costs
from nas.cost.architecture import parameters_and_macs as parameters_and_macs
from nas.cost.architecture import slot_table as slot_table
from nas.cost.breakdown import LayerCost as LayerCost
from nas.cost.breakdown import breakdown as breakdown
from nas.cost.counting import NetworkCost as NetworkCost
from nas.cost.counting import count as count
from nas.cost.table import BatchCosts as BatchCosts
from nas.cost.table import SlotTable as SlotTable

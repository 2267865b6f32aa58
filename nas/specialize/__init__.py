"""From one supernet to many networks: each the best under its own limits, ready to be used.

    shared = load_supernet("supernet.safetensors")
    predictor = fit_predictor(shared, score(shared, digits(), "scores.jsonl", 300))
    specialize(shared, ["latency_ms=3", "latency_ms=5"], "found", predictor=predictor, table=table)

``scores`` scores random sub-networks with inherited weights (``drawing`` says which), and fits the
accuracy predictor to them; ``limits`` reads limits and knows costs; ``candidates`` searches by
the predictor; ``family`` does all the rest.
"""

from nas.specialize.candidates import ONCE_FOR_ALL as ONCE_FOR_ALL
from nas.specialize.candidates import Candidate as Candidate
from nas.specialize.candidates import candidates as candidates
from nas.specialize.drawing import spread_over_costs as spread_over_costs
from nas.specialize.family import FINE_TUNING as FINE_TUNING
from nas.specialize.family import Specialized as Specialized
from nas.specialize.family import UnmetLimits as UnmetLimits
from nas.specialize.family import specialize as specialize
from nas.specialize.inherited import Inherited as Inherited
from nas.specialize.inherited import data_of as data_of
from nas.specialize.limits import Costs as Costs
from nas.specialize.limits import Limits as Limits
from nas.specialize.scores import fit_predictor as fit_predictor
from nas.specialize.scores import load_predictor as load_predictor
from nas.specialize.scores import predictor_path as predictor_path
from nas.specialize.scores import score as score

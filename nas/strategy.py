"""The contract of a search strategy, and the randomness all of them draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nas.objective import Objective
from nas.space import SearchSpace
from nas.trial import Proposal, Trial


class Strategy(Protocol):
    """Proposes architectures and learns from trials. Implement it; there is nothing to inherit.

    ``ask`` numbers its proposals 0, 1, 2, … and may return fewer than ``n``, or none, which
    means: tell me more first or, when nothing is in flight, that it is done. An ``ask`` that
    returns none leaves the state as it was. ``tell`` takes trials in any order, failed and
    infeasible ones too. The state is plain: numbers, strings, lists, dictionaries with string
    keys, and tensors.

    An argument of ``__init__`` is an attribute of the same name: so a run can be written down
    and built again.
    """

    @property
    def space(self) -> SearchSpace: ...

    @property
    def objectives(self) -> Sequence[Objective]: ...

    @property
    def seed(self) -> int: ...

    def ask(self, n: int) -> Sequence[Proposal]: ...

    def tell(self, trial: Trial) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def proposal_rng(seed: int, number: int) -> np.random.Generator:
    """The generator proposal ``number`` is drawn from, whatever came back before it."""
    return np.random.default_rng([seed, number])


def proposal_seed(seed: int, number: int) -> int:
    """The seed that travels with proposal ``number``, for the evaluator; below 2³¹."""
    return int(np.random.SeedSequence([seed, number, 1]).generate_state(1)[0] >> 1)

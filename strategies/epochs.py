"""Proposals of a search that trains a supernet: one after each epoch, the architecture of then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nas.architecture import Architecture
from nas.strategy import proposal_seed
from nas.trial import Proposal


class Epochs(Protocol):
    """What is advanced."""

    @property
    def epoch(self) -> int: ...

    @property
    def done(self) -> bool: ...

    def advance(self) -> None: ...

    def architecture(self) -> Architecture: ...


def propose(search: Epochs, number: int, seed: int, epochs: int) -> Sequence[Proposal]:
    """The proposal after so many more epochs, or none when the search is done.

    What they cost is for the strategy to say, which knows what its epochs are.
    """
    if search.done:
        return []
    before = search.epoch
    while not search.done and search.epoch < before + epochs:
        search.advance()
    return [Proposal(number, search.architecture(), proposal_seed(seed, number))]

"""The contract of a search strategy, and the randomness all of them draw from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.draws import Draws
from nas.errors import ConfigError, InvalidArchitecture
from nas.objective import Objective
from nas.space import SearchSpace, parse
from nas.trial import Proposal, Trial


class Strategy(Protocol):
    """Proposes architectures and learns from trials. Implement it; there is nothing to inherit.

    ``ask`` numbers its proposals 0, 1, 2, … and may return fewer than ``n``, or none, which
    means: tell me more first or, when nothing is in flight, that it is done. An ``ask`` that
    returns none leaves the state as it was. ``tell`` takes trials in any order, failed and
    infeasible ones too. The state is plain: numbers, strings, lists, dictionaries with string
    keys, and tensors.

    An argument of ``__init__`` is an attribute of the same name: so a run can be written down
    and built again. A strategy whose proposals continue earlier trials is a ``HasContinuable``.
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


def proposal_draws(seed: int, number: int) -> Draws:
    """The draws proposal ``number`` is made with, whatever came back before it."""
    return Draws(seed, number)


@runtime_checkable
class HasContinuable(Protocol):
    """A strategy that has trials continued (``Proposal.continues``): it says which it still may."""

    def continuable(self) -> Collection[int]:
        """The trials whose checkpoints have to be kept, those being continued now included.

        A search asks after each ``tell`` and deletes the checkpoints of all others; those of a
        strategy without this method are not kept at all.
        """


def proposal_rng(seed: int, number: int) -> np.random.Generator:
    """The same as a ``numpy`` generator, for what wants distributions and arrays: dearer."""
    name = hashlib.blake2b(b"%d,%d" % (seed, number), digest_size=32, person=b"proposal rng")
    words: Any = _Words(name.digest())  # numpy takes any ISeedSequence, its annotations do not
    return np.random.Generator(np.random.PCG64(words))


def proposal_seed(seed: int, number: int) -> int:
    """The seed that travels with proposal ``number``, for the evaluator; below 2³¹."""
    name = hashlib.blake2b(b"%d,%d" % (seed, number), digest_size=4, person=b"proposal seed")
    return int.from_bytes(name.digest(), "little") >> 1


def initial_architectures(space: SearchSpace, initial: Sequence[str]) -> list[Architecture]:
    """The architectures that a search is to start from, read and checked.

    Args:
        initial: their texts, as ``nas.space.parse`` reads them; none twice.

    Raises:
        ConfigError, InvalidArchitecture: the message says which of them is wrong.
    """
    if isinstance(initial, str):
        raise ConfigError(f"initial must be a list of architectures, got the text {initial!r:.80}")
    found: dict[Architecture, int] = {}
    for place, text in enumerate(initial):
        if not isinstance(text, str):
            raise ConfigError(f"initial[{place}] must be an architecture's text, got {text!r:.80}")
        try:
            arch = parse(space, text)
        except InvalidArchitecture as error:
            raise InvalidArchitecture(f"initial[{place}]: {error}") from error
        if arch in found:
            raise ConfigError(f"initial[{place}] is the architecture of initial[{found[arch]}]")
        found[arch] = place
    return list(found)


class _Words(ISeedSequence):
    """Seeds a bit generator with bytes that are random already: a third of SeedSequence's time."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        little = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self.content, little)[:n_words].astype(dtype)

"""Search spaces, and what can be done with any of them.

A space is its choices, what is legal after a prefix of picks, and one description of its
network (``build``). Everything else is a plain function over those: sampling, mutation,
crossover, neighbours, enumeration, counting, reading and writing architectures, and the
stand-alone network. So a space of one's own gets all of it for nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from nas.architecture import Architecture, Choice, Scalar
from nas.errors import InvalidArchitecture, UnsupportedRequest, nearest
from nas.independent import independent

if TYPE_CHECKING:
    from torch import nn

    from nas.builder import Builder

Legal = tuple[Choice, tuple[Scalar, ...]]


class SearchSpace(Protocol):
    """What a search space offers. Implement it; there is nothing to inherit.

    Attributes:
        name: the space and the version of its encoding, as in ``"nasbench201/v1"``. A change
            after which an old architecture would mean another network is a new version.
        choices: every choice, in the order in which they are made.
        input: the shape of one example, without the batch.
        classes: how many classes the network tells apart.
    """

    @property
    def name(self) -> str: ...

    @property
    def choices(self) -> tuple[Choice, ...]: ...

    @property
    def input(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> int: ...

    def legal(self, prefix: Mapping[str, Scalar]) -> Legal | None:
        """The next choice and its legal options after these picks; ``None`` when complete.

        Whatever legal options are picked, it never leads into a dead end.
        """

    def canonical(self, arch: Architecture) -> Architecture:
        """The one form of all architectures that mean an equal network. Idempotent."""

    def slots(self, arch: Architecture) -> Mapping[str, str]:
        """Slot label to the option it holds in this architecture; raises InvalidArchitecture."""

    def build(self, builder: Builder) -> nn.Module:
        """Describes the network, asking the builder for everything that is open."""


@runtime_checkable
class HasTextForm(Protocol):
    """A space with a notation of its own (the literature's, usually)."""

    def parse(self, text: str) -> Architecture: ...

    def format(self, arch: Architecture) -> str: ...


@runtime_checkable
class HasMembers(Protocol):
    """A space whose smaller siblings' architectures are networks too: cells of fewer blocks, say.

    They are no part of it (``sample`` and ``enumerate_architectures`` give none), but what takes
    an architecture of the space takes one of them.
    """

    def member(self, arch: Architecture) -> SearchSpace:
        """The sibling that an architecture is of; the space itself where it is of none."""


@runtime_checkable
class HasSize(Protocol):
    """A space that knows how many architectures it has without listing them."""

    def size(self) -> int: ...


@runtime_checkable
class HasState(Protocol):
    """A space that says what of a prefix matters: a table shares what it learns by that."""

    def state(self, prefix: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
        """Equal states have the same next choice and the same legal options."""


@runtime_checkable
class HasEdits(Protocol):
    """A space with mutations of its own that change more than one choice: a layer goes in, say."""

    def edits(self, arch: Architecture) -> Mapping[str, Sequence[Architecture]]:
        """By the name of each mutation that applies, every architecture that it may make."""


# ---------------------------------------------------------------- spaces made of choices alone


def next_choice(choices: Sequence[Choice], prefix: Mapping[str, Scalar]) -> Legal | None:
    """``legal`` for a space whose only rules are the choices' own conditions (``when``)."""
    for choice in choices:
        if choice.label not in prefix and choice.active(prefix):
            return choice, choice.options
    return None


def count_choices(choices: Sequence[Choice]) -> int:
    """How many architectures such a space has, without listing them.

    Walks the choices in order and merges all prefixes that agree on the picks some later
    condition asks for, so the work grows with the conditions and not with the space.
    """
    counts: dict[tuple[tuple[str, Scalar], ...], int] = {(): 1}
    for position, choice in enumerate(choices):
        later = {label for other in choices[position + 1 :] for label, _ in other.conditions()}
        following: dict[tuple[tuple[str, Scalar], ...], int] = {}
        for picks, count in counts.items():
            made = dict(picks)
            extended = (
                [made | {choice.label: option} for option in choice.options]
                if choice.active(made)
                else [made]
            )
            for candidate in extended:
                kept = tuple(pick for pick in candidate.items() if pick[0] in later)
                following[kept] = following.get(kept, 0) + count
        counts = following
    return sum(counts.values())


# ------------------------------------------------------------------------- walking a space


def validate(space: SearchSpace, arch: Architecture) -> None:
    """Raises ``InvalidArchitecture`` unless the picks are complete, legal and in order.

    Those of a smaller sibling are, where the space has such (``HasMembers``).
    """
    space = member(space, arch)
    if arch.space != space.name:
        raise InvalidArchitecture(f"an architecture of {arch.space!r} given to {space.name!r}")
    if from_picks(space, arch.as_dict()).picks != arch.picks:
        raise InvalidArchitecture(f"the picks are not in the order of {space.name!r}: {arch.picks}")


def member(space: SearchSpace, arch: Architecture) -> SearchSpace:
    """The space that describes an architecture's network: a sibling, or the space itself."""
    return space.member(arch) if isinstance(space, HasMembers) else space


def from_picks(space: SearchSpace, picks: Mapping[str, Scalar]) -> Architecture:
    """The architecture of these picks, given in any order, each checked."""
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        if choice.label not in picks:
            unknown = [label for label in picks if label not in _labels(space)]
            hint = f"; {unknown[0]!r} is no choice of it" if unknown else ""
            raise InvalidArchitecture(f"{space.name!r}: no pick for {choice.label!r}{hint}")
        value = picks[choice.label]
        option = choice.options[choice.index(value)]
        if option not in options:
            raise InvalidArchitecture(
                f"{space.name!r}: {value!r} is not legal for {choice.label!r} after {made}: "
                f"{nearest(value, options)}"
            )
        made[choice.label] = option
    for label in picks:
        if label not in made:
            if label in _labels(space):
                raise InvalidArchitecture(
                    f"{space.name!r}: {label!r} is not active in this architecture, yet it is "
                    f"given as {picks[label]!r}"
                )
            raise InvalidArchitecture(
                f"{space.name!r} has no choice {label!r}: {nearest(label, _labels(space))}"
            )
    return Architecture(space.name, tuple(made.items()))


def _labels(space: SearchSpace) -> list[str]:
    return [choice.label for choice in space.choices]


class DrawsIntegers(Protocol):
    """What sampling draws from: ``numpy.random.Generator``, or ``nas.draws.Draws``."""

    def integers(self, high: int, /) -> Any:
        """A whole number from 0 to ``high`` - 1, each as likely."""


def _complete(
    space: SearchSpace, wanted: Mapping[str, Scalar], rng: DrawsIntegers, made: dict[str, Scalar]
) -> Architecture:
    """Follows ``wanted`` after the picks made, where it is legal, and draws the rest."""
    while (step := space.legal(made)) is not None:
        choice, options = step
        if choice.label in wanted and wanted[choice.label] in options:
            made[choice.label] = wanted[choice.label]
        else:
            made[choice.label] = options[int(rng.integers(len(options)))]
    return Architecture.of_legal(space.name, tuple(made.items()))


def sample(space: SearchSpace, rng: DrawsIntegers) -> Architecture:
    """A random architecture: at every step a uniform draw from the legal options.

    Uniform over architectures where no choice depends on another; elsewhere it is uniform over
    decisions, so that shallow branches are not drowned by the many ways of filling deep ones.
    """
    if grid := independent(space):
        return Architecture.of_legal(
            space.name, tuple([column[int(rng.integers(len(column)))] for column in grid.columns])
        )
    return _complete(space, {}, rng, {})


def mutate(space: SearchSpace, arch: Architecture, rng: DrawsIntegers) -> Architecture:
    """A copy in which one choice, drawn uniformly, takes another option, drawn uniformly.

    Picks after it stay where they are still legal; choices that it opens are drawn. The result
    always differs from ``arch``; raises ``UnsupportedRequest`` if nothing can differ.
    """
    grid = independent(space)
    if grid and grid.open and grid.holds(arch):
        place = grid.open[int(rng.integers(len(grid.open)))]
        picks = list(arch.picks)
        picks[place] = grid.another(place, picks[place], rng)
        return Architecture.of_legal(space.name, tuple(picks))
    points: list[tuple[int, Choice, list[Scalar]]] = []
    made: dict[str, Scalar] = {}
    held = arch.as_dict()
    while (step := space.legal(made)) is not None:
        choice, options = step
        option = held[choice.label]
        others = [other for other in options if other != option]
        if others:
            points.append((len(made), choice, others))
        made[choice.label] = option
    if not points:
        raise UnsupportedRequest(f"{space.name!r} has one architecture: nothing can be mutated")
    place, choice, others = points[int(rng.integers(len(points)))]
    before = dict(itertools.islice(made.items(), place))
    before[choice.label] = others[int(rng.integers(len(others)))]
    return _complete(space, held, rng, before)


def perturb(
    space: SearchSpace, arch: Architecture, rate: float, rng: DrawsIntegers
) -> Architecture:
    """A copy in which every choice, with probability ``rate``, takes another option.

    What genetic algorithms call mutation at a rate; with 1/number of choices one changes on
    average, and often none. Picks after a change stay where they are still legal; choices that
    it opens are drawn.
    """
    below = round(rate * _COIN)
    grid = independent(space)
    if grid and grid.holds(arch):
        picks = list(arch.picks)
        for place in grid.open:
            if rng.integers(_COIN) < below:
                picks[place] = grid.another(place, picks[place], rng)
        return Architecture.of_legal(space.name, tuple(picks))
    made: dict[str, Scalar] = {}
    held = arch.as_dict()
    while (step := space.legal(made)) is not None:
        choice, options = step
        label = choice.label
        if label not in held or held[label] not in options:
            made[label] = options[int(rng.integers(len(options)))]
            continue
        made[label] = held[label]
        if len(options) > 1 and rng.integers(_COIN) < below:
            others = [other for other in options if other != held[label]]
            made[label] = others[int(rng.integers(len(others)))]
    return Architecture.of_legal(space.name, tuple(made.items()))


_COIN = 1 << 24
"""Probabilities are compared in steps of its inverse."""


def crossover(
    space: SearchSpace, first: Architecture, second: Architecture, rng: DrawsIntegers
) -> Architecture:
    """Uniform crossover: each pick from one of the parents, by a fair coin.

    A pick that is not legal after those before it is taken from the other parent, and drawn
    where neither has a legal one.
    """
    grid = independent(space)
    if grid and len(grid.columns) <= 32 and grid.holds(first) and grid.holds(second):
        coins = int(rng.integers(1 << len(grid.columns)))
        pairs = enumerate(zip(first.picks, second.picks, strict=True))
        return Architecture.of_legal(
            space.name, tuple([pair[coins >> place & 1] for place, pair in pairs])
        )
    parents = (first.as_dict(), second.as_dict())
    made: dict[str, Scalar] = {}
    while (step := space.legal(made)) is not None:
        choice, options = step
        heads = int(rng.integers(2))
        for parent in (parents[heads], parents[1 - heads]):
            if choice.label in parent and parent[choice.label] in options:
                made[choice.label] = parent[choice.label]
                break
        else:
            made[choice.label] = options[int(rng.integers(len(options)))]
    return Architecture.of_legal(space.name, tuple(made.items()))


def neighbours(space: SearchSpace, arch: Architecture) -> Iterator[Architecture]:
    """Every architecture one change away.

    Two architectures are neighbours when, of the choices active in both, exactly one differs.
    So the relation is symmetric, also where a change opens or closes other choices: what it
    opens takes every option (which can be many: take as many as you need).
    """
    grid = independent(space)
    if grid and grid.holds(arch):
        for picks in grid.one_change_away(arch.picks):
            yield Architecture.of_legal(space.name, picks)
        return
    yield from _walk(space, {}, arch.as_dict())


def _walk(
    space: SearchSpace, made: dict[str, Scalar], origin: Mapping[str, Scalar] | None
) -> Iterator[Architecture]:
    """All completions of a prefix, in order; with an origin, those one change away from it."""
    differs = origin is not None and any(
        label in origin and origin[label] != value for label, value in made.items()
    )
    step = space.legal(made)
    if step is None:
        if origin is None or differs:
            yield Architecture.of_legal(space.name, tuple(made.items()))
        return
    choice, options = step
    for option in options:
        held = origin is not None and choice.label in origin
        if differs and held and origin is not None and option != origin[choice.label]:
            continue
        yield from _walk(space, made | {choice.label: option}, origin)


def enumerate_architectures(space: SearchSpace) -> Iterator[Architecture]:
    """Every architecture of the space, once, in the order of the choices and their options."""
    yield from _walk(space, {}, None)


def count(space: SearchSpace) -> int:
    """How many architectures the space has: from the space if it knows, else by listing them."""
    if isinstance(space, HasSize):
        return space.size()
    return sum(1 for _ in enumerate_architectures(space))


# --------------------------------------------------------------------- reading and writing


def parse(space: SearchSpace, text: str) -> Architecture:
    """An architecture from text: JSON, ``label=option …``, or the space's own notation."""
    stripped = text.strip()
    if stripped.startswith("{"):
        arch = Architecture.from_json(stripped)
        validate(space, arch)
        return arch
    labels = set(_labels(space))
    words = stripped.split()
    if words and all("=" in word and word.split("=", 1)[0] in labels for word in words):
        by_label = {choice.label: choice for choice in space.choices}
        picks: dict[str, Scalar] = {}
        for word in words:
            label, written = word.split("=", 1)
            if label in picks:
                raise InvalidArchitecture(f"{label!r} is given twice in {text!r:.120}")
            match = [option for option in by_label[label].options if str(option) == written]
            if not match:
                raise InvalidArchitecture(
                    f"{written!r} is not an option of {label!r}: "
                    f"{nearest(written, by_label[label].options)}"
                )
            picks[label] = match[0]
        return from_picks(space, picks)
    if isinstance(space, HasTextForm):
        arch = space.parse(stripped)
        validate(space, arch)
        return arch
    raise InvalidArchitecture(
        f"cannot read {text!r:.120} as an architecture of {space.name!r}: expected JSON, or "
        f"'label=option …' with the labels {', '.join(_labels(space)[:8])}"
    )


def format_architecture(space: SearchSpace, arch: Architecture) -> str:
    """The shortest text that ``parse`` reads back: the space's own notation if it has one."""
    return space.format(arch) if isinstance(space, HasTextForm) else str(arch)


# ------------------------------------------------------------------------------- networks


def network(space: SearchSpace, arch: Architecture) -> nn.Module:
    """The stand-alone network of an architecture: the fixed reading of ``build``.

    The weights are freshly initialised from torch's current random state. Build under
    ``torch.device("meta")`` for shapes without memory.
    """
    from nas.builder import FixedBuilder

    validate(space, arch)
    space = member(space, arch)
    return space.build(FixedBuilder(space, arch))


def check_input(value: Sequence[Any], where: str) -> tuple[int, ...]:
    """An input shape as a space takes it: positive integers, channels first."""
    shape = tuple(value)
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise InvalidArchitecture(
            f"{where}: input must be positive integers, channels first, as in (3, 32, 32); "
            f"got {value!r}"
        )
    return shape


def log10_size(space: SearchSpace) -> float:
    """The order of magnitude of the space, for people."""
    return math.log10(count(space))

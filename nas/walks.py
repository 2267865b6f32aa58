"""A description's questions, found by reading it: what a described space takes its choices from.

The walking reading of a description answers from given picks and stops at the first question
that they do not answer: that is the next choice. It makes no weights, and of a slot's option
that is a module's class (or a ``functools.partial`` of one) not even the module. What it has
seen it keeps in a tree, in which options that look the same to the description share a branch.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from nas.architecture import Choice, Scalar
from nas.builder import Factory
from nas.cost.reading import Building
from nas.errors import NasError, UnsupportedRequest

Description = Callable[..., nn.Module]

LARGEST_SUBSET = 8
"""A subset of so many has 256 options."""

_MOST_NODES = 100_000  # of a tree; then it is begun anew
_SMALL = 128  # so many ways through a description are all walked to find its choices
_RANDOM_WALKS = 128  # through a larger one, beside those that change one pick at a time
_PLAIN, _ABSENT = -1, -2  # what a description sees of an option: some module, or none


@dataclass(frozen=True)
class Question:
    """A choice, and what the description can see of each option's pick.

    Options of equal ``seen`` lead to the same questions afterwards.
    """

    choice: Choice
    seen: tuple[int, ...]


class _Stop(BaseException):
    """Ends a walk at an open question; no ``except Exception`` of a user's holds it up."""


class WalkingBuilder:
    """The builder that asks ``answer`` for every pick, and stops where it gives ``None``.

    Args:
        where: the description's name, for messages.
        answer: the pick of a choice.
        meet: told of every choice asked for, before it is answered.
    """

    def __init__(
        self,
        where: str,
        answer: Callable[[Choice], Scalar | None],
        meet: Callable[[Choice, Mapping[str, Scalar]], None],
    ) -> None:
        self.where = where
        self.answer = answer
        self.meet = meet
        self.asked: dict[str, Question] = {}
        self.picks: dict[str, Scalar] = {}

    def slot(self, label: str, options: Mapping[str, Factory]) -> nn.Module:
        module = self.edge(label, options)
        if module is None:
            raise UnsupportedRequest(
                f"{self.where}: slot {label!r} offers no module for {self.picks[label]!r}; "
                "describe what may be absent with builder.edge"
            )
        return module

    def edge(self, label: str, options: Mapping[str, Factory | None]) -> nn.Module | None:
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            raise UnsupportedRequest(
                f"{self.where}: the options of {label!r} must map strings to modules' classes or "
                f"functions that make modules, got {options!r:.120}"
            )
        seen = [_seen(factory, index) for index, factory in enumerate(options.values())]
        factory = options[str(self._pick(label, tuple(options), seen))]
        if factory is None:
            return None
        return nn.Identity() if _is_plain(factory) else factory()

    def number(self, label: str, options: Sequence[int] = ()) -> int:
        listed = tuple(options)
        if not listed or not all(type(option) is int for option in listed):
            raise UnsupportedRequest(
                f"{self.where}: {label!r} must be given its options, whole numbers as in "
                f"builder.number({label!r}, (16, 32)); got {options!r}"
            )
        return int(self._pick(label, listed, range(len(listed))))

    def depth(
        self, label: str, block: Callable[[int], nn.Module], options: Sequence[int] = ()
    ) -> list[nn.Module]:
        if any(type(option) is int and option < 0 for option in options):
            raise UnsupportedRequest(f"{self.where}: depth {label!r} is below 0: {options!r}")
        return [block(index) for index in range(self.number(label, options))]

    def subset(self, label: str, of: int) -> tuple[int, ...]:
        if not 1 <= of <= LARGEST_SUBSET:
            raise UnsupportedRequest(
                f"{self.where}: subset {label!r} of {of}, expected 1 to {LARGEST_SUBSET}: a "
                "described space lists every subset as an option"
            )
        sets = [s for n in range(of + 1) for s in itertools.combinations(range(of), n)]
        written = tuple("+".join(map(str, taken)) for taken in sets)
        return sets[written.index(str(self._pick(label, written, range(len(sets)))))]

    def part(self, describe: Callable[..., nn.Module], *args: Any) -> nn.Module:
        return describe(self, *args)

    def _pick(self, label: str, options: tuple[Scalar, ...], seen: Iterable[int]) -> Scalar:
        try:
            choice = Choice(label, options)
        except NasError as error:
            raise UnsupportedRequest(f"{self.where}: {error}") from error
        if any(not _is_word(text) for text in (label, *options)) or "=" in label:
            raise UnsupportedRequest(
                f"{self.where}: {label!r} with the options {options} cannot be written as "
                "'label=option': use words without spaces, and labels without '='"
            )
        self.meet(choice, self.picks)
        question = Question(choice, tuple(seen))
        if label in self.asked:
            question = Question(choice, _refined(self.asked[label].seen, question.seen))
        self.asked[label] = question
        if label not in self.picks:
            pick = self.answer(choice)
            if pick is None:
                raise _Stop
            self.picks[label] = choice.options[choice.index(pick)]
        return self.picks[label]


def _is_word(text: Scalar) -> bool:
    return not re.search(r"\s", str(text))


def _is_plain(factory: Factory) -> bool:
    """Whether calling it can ask the builder for nothing."""
    made = factory.func if isinstance(factory, functools.partial) else factory
    return isinstance(made, type) and issubclass(made, nn.Module)


def _seen(factory: Factory | None, index: int) -> int:
    if factory is None:
        return _ABSENT
    return _PLAIN if _is_plain(factory) else index


def _refined(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Equal where both are."""
    pairs = list(zip(one, other, strict=True))
    return tuple(pairs.index(pair) for pair in pairs)


# -------------------------------------------------------------------------------- the tree


@dataclass
class _Node:
    question: Question | None  # None: the network is complete
    children: dict[int, _Node] = field(default_factory=dict)


class Walks:
    """All that is known of a description's questions.

    Args:
        description: called with a builder and the arguments.
        arguments: what else it is called with.
        where: its name, for messages.
        choices: all that it may ask for; found by ``discover`` where they are not given.
    """

    def __init__(
        self,
        description: Description,
        arguments: Mapping[str, Any],
        where: str,
        choices: Sequence[Choice] = (),
    ) -> None:
        self.description = description
        self.arguments = arguments
        self.where = where
        self.choices = tuple(choices)
        self._known = {choice.label: choice for choice in self.choices}
        self._follows: dict[str, dict[str, None]] = {}
        self._seen: dict[str, tuple[int, ...]] = {}
        self._root: _Node | None = None
        self._nodes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Walks, (self.description, self.arguments, self.where, self.choices)

    def next(self, prefix: Mapping[str, Scalar]) -> Choice | None:
        """The first question that the picks do not answer; ``None`` if they answer all."""
        node = self._find(prefix)
        if node is not None:
            return None if node.question is None else node.question.choice
        asked, picks = self._walk(lambda choice: prefix.get(choice.label))
        return None if len(asked) == len(picks) else asked[-1].choice

    def _find(self, prefix: Mapping[str, Scalar]) -> _Node | None:
        node = self._root
        while node is not None and node.question is not None:
            choice = node.question.choice
            if choice.label not in prefix:
                break
            node = node.children.get(self._token(choice, prefix[choice.label]))
        return node

    def count(self, most: int) -> int | None:
        """How many architectures there are; ``None`` if ``most`` different walks are not all."""
        left = most

        def below(picks: dict[str, Scalar]) -> int:
            nonlocal left
            if self._find(picks) is None:
                self._walk(_answers(picks, 0))  # to an end, which answers what is asked below too
            choice = self.next(picks)
            if choice is None:
                left -= 1
                return 1
            alike: dict[int, list[Scalar]] = {}
            for option in choice.options:
                alike.setdefault(self._token(choice, option), []).append(option)
            total = 0
            for options in alike.values():
                if left < 0:
                    break
                total += len(options) * below(picks | {choice.label: options[0]})
            return total

        while True:  # until nothing that was taken for alike turned out not to be
            left, before = most, dict(self._seen)
            total = below({})
            if left < 0:
                return None
            if all(before.get(label) == seen for label, seen in self._seen.items()):
                return total

    def discover(self) -> None:
        """Finds the choices of all architectures, in an order that every walk keeps.

        All walks are made where they are few. Else every option of every choice is tried, from
        the walks that first met the choice, and random walks are made with a fixed seed: what
        only a rare combination of picks opens may stay unknown.

        Raises:
            UnsupportedRequest: a label has different options in different walks, two labels are
                asked for in both orders, or nothing is.
        """
        for position in (0, -1):
            self._deviate(position)
        if self.count(_SMALL) is None:
            rng = np.random.default_rng(0)
            for _ in range(_RANDOM_WALKS):
                self._walk(lambda choice: choice.options[int(rng.integers(len(choice.options)))])
        if not self._known:
            raise UnsupportedRequest(f"{self.where} asks the builder for nothing: nothing is open")
        self.choices = tuple(self._known[label] for label in _merged(self.where, self._follows))

    def _deviate(self, position: int) -> None:
        """Every option of what a walk meets for the first time, from where it met it.

        What is not decided by that is the first option, or the last.
        """
        met: set[str] = set()
        waiting: list[dict[str, Scalar]] = [{}]
        while waiting:
            wanted = waiting.pop()
            asked, picks = self._walk(_answers(wanted, position))
            for choice in (question.choice for question in asked):
                if choice.label not in met:
                    met.add(choice.label)
                    waiting += [picks | {choice.label: option} for option in choice.options]

    # -------------------------------------------------------------------------- one walk

    def _walk(
        self, answer: Callable[[Choice], Scalar | None]
    ) -> tuple[list[Question], dict[str, Scalar]]:
        """The questions in their order and the picks made; the last question may be open."""
        builder = WalkingBuilder(self.where, answer, self._meet)
        try:
            with Building():
                made = self.description(builder, **self.arguments)
            if not isinstance(made, nn.Module):
                raise UnsupportedRequest(
                    f"{self.where} returned a {type(made).__name__}, expected the network, a "
                    "torch.nn.Module"
                )
        except _Stop:
            pass
        except NasError:
            raise
        except Exception as error:
            picks = " ".join(f"{label}={pick}" for label, pick in builder.picks.items())
            error.add_note(
                f"{self.where} was being read with {picks or 'no picks'}: without values in its "
                "tensors, and with nn.Identity for a module that the builder chooses"
            )
            raise
        asked = list(builder.asked.values())
        self._note(asked)
        self._keep(asked, builder.picks)
        return asked, builder.picks

    def _meet(self, choice: Choice, picks: Mapping[str, Scalar]) -> None:
        known = self._known.get(choice.label)
        if known is None and self.choices:
            after = " ".join(f"{label}={pick}" for label, pick in picks.items())
            raise UnsupportedRequest(
                f"{self.where} asks for {choice.label!r} after {after or 'no picks'}, which is "
                "none of the space's choices (few picks lead there, so it was not found); name "
                "them all: described(…, choices={label: options, …}) with "
                f"{choice.label!r}: {choice.options}"
            )
        if known is not None and known.options != choice.options:
            raise UnsupportedRequest(
                f"{self.where}: {choice.label!r} is asked for with the options {choice.options} "
                f"and elsewhere with {known.options}: a label has one list of options; where "
                "they differ, give it another label"
            )
        self._known[choice.label] = choice

    def _note(self, asked: list[Question]) -> None:
        for question in asked:
            choice = question.choice
            known = self._seen.get(choice.label, question.seen)
            seen = _refined(known, question.seen)
            if choice.label in self._seen and seen != known:
                self._root, self._nodes = None, 0  # branches were merged that are not the same
            self._seen[choice.label] = seen
            self._follows.setdefault(choice.label, {})
        for one, other in itertools.pairwise(asked):
            self._follows[one.choice.label][other.choice.label] = None

    def _keep(self, asked: list[Question], picks: Mapping[str, Scalar]) -> None:
        if self._nodes > _MOST_NODES:
            self._root, self._nodes = None, 0
        parent: _Node | None = None
        token = 0
        complete = len(asked) == len(picks)
        for question in [*asked, None] if complete else asked:
            node = self._root if parent is None else parent.children.get(token)
            if node is None:
                node = _Node(question)
                self._nodes += 1
                if parent is None:
                    self._root = node
                else:
                    parent.children[token] = node
            elif _label(node.question) != _label(question):
                raise UnsupportedRequest(
                    f"{self.where} asked for {_label(node.question)} and then, with the same "
                    f"picks, for {_label(question)}: what it asks may depend on the builder's "
                    "answers alone"
                )
            parent = node
            if question is not None and question.choice.label in picks:
                token = self._token(question.choice, picks[question.choice.label])

    def _token(self, choice: Choice, pick: Scalar) -> int:
        return self._seen[choice.label][choice.index(pick)]


def _answers(wanted: Mapping[str, Scalar], position: int) -> Callable[[Choice], Scalar]:
    return lambda choice: wanted.get(choice.label, choice.options[position])


def _label(question: Question | None) -> str:
    return "nothing more" if question is None else repr(question.choice.label)


def _merged(where: str, follows: Mapping[str, Mapping[str, None]]) -> list[str]:
    """The labels in an order in which each stands before those that follow it."""
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(label: str, way: tuple[str, ...]) -> None:
        if state.get(label) == 2:
            return
        if state.get(label) == 1:
            raise UnsupportedRequest(
                f"{where} asks for {way[-1]!r} before {label!r} and after it: ask in the same "
                "order whatever is picked (first for all of them, then build)"
            )
        state[label] = 1
        for other in reversed(list(follows[label])):
            visit(other, (*way, label))
        state[label] = 2
        order.append(label)

    for label in reversed(list(follows)):
        visit(label, ())
    return order[::-1]

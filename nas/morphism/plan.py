"""How a child's network does what its parent's does: a plan, layer by layer, or why there is none.

The child's operations are gone through in their order. Each either does what an operation of the
parent does to the same tensors, or gives back what it is given, or is something of the child's
own, which has to be made zero where it is added to the rest. Where there is a choice, operations
of the same name come first; a choice that leads nowhere is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nas.morphism.channels import Channels, Origin, Other, Same
from nas.morphism.facts import ranges
from nas.morphism.rules import Found, Rules
from nas.morphism.trace import Graph, Operation, without_repetitions

MOST_TRIED = 50_000
"""Operations that are looked at before a search for a plan ends."""

Way = Literal["copy", "identity", "own"]


@dataclass(frozen=True)
class Step:
    """What an operation of the child does.

    Attributes:
        way: ``copy`` what the parent's does, ``identity``, or something of its ``own``.
        parent: the parent's, of a copy.
        value: the parent's value that it is given, if it is given one.
        channels: of what it is given.
        made: of what it gives.
    """

    operation: Operation
    way: Way
    parent: Operation | None = None
    value: int | None = None
    channels: Channels | None = None
    made: Channels | None = None


@dataclass(frozen=True)
class Plan:
    """A step for every operation of the child, and those of its own that are made zero."""

    steps: tuple[Step, ...]
    silenced: frozenset[int]


def find_plan(parent: Graph, child: Graph, seed: int = 0) -> Plan | str:
    """How the child does what the parent does; a line that says why, if it cannot.

    Args:
        seed: which channels a wider layer has twice.
    """
    return _Search(without_repetitions(parent), child, seed).run()


class _Search:
    def __init__(self, parent: Graph, child: Graph, seed: int) -> None:
        self.parent, self.child = parent, child
        self.rules = Rules(parent, child, ranges(parent), seed)
        self.origins: dict[int, Origin] = {}
        self.taken: list[Found] = []
        self.maker = {
            number: place
            for place, operation in enumerate(child.operations)
            for number in operation.outputs
        }
        self.needed = self._needed()

    def _needed(self) -> list[list[int]]:
        """Before each operation, the values that it or one after it is given."""
        later: set[int] = {self.child.output}
        found = []
        for operation in reversed(self.child.operations):
            later = (later - set(operation.outputs)) | set(operation.inputs)
            found.append(sorted(later))
        return [[self.child.output], *found][::-1]

    def run(self) -> Plan | str:
        made = {number for operation in self.child.operations for number in operation.outputs}
        for number in range(len(self.child.shapes)):
            if number not in made:
                self.origins[number] = Other(silent=False)
        if self.parent.shapes[0] != self.child.shapes[0]:
            return "the inputs differ in shape"
        self.origins[0] = Same(0)
        operations = self.child.operations
        dead: set[tuple[object, ...]] = set()
        open_: list[Iterator[Found]] = []
        keys: list[tuple[object, ...]] = []
        furthest, why, tried = (False, -1), "the networks have nothing in common", 0
        while True:
            place = len(open_)
            key = (place, *(self.origins[number] for number in self.needed[place]))
            if place == len(operations):
                if self.origins[self.child.output] == Same(self.parent.output):
                    return self._plan()
                if (False, place) > furthest:
                    furthest = (False, place)
                    why = "what the classifier gives is not what it gave"
                dead.add(key)
            alive = any(isinstance(origin, Same) for origin in key[1:])
            if key not in dead and alive and place < len(operations):
                keys.append(key)
                open_.append(self._ways(operations[place]))
            # The next way of the last operation that has one left.
            while open_:
                tried += 1
                step = next(open_[-1], None)
                if step is not None and tried <= MOST_TRIED:
                    break
                dead.add(keys.pop())
                open_.pop()
            else:
                return why if tried <= MOST_TRIED else f"{why} (given up after {MOST_TRIED} tries)"
            del self.taken[len(open_) - 1 :]
            self.taken.append(step)
            # What a layer of the same name says is worth more than that there is none.
            reached = (step.refused, len(open_))
            if step.why and reached > furthest:
                furthest, why = reached, step.why
            self.origins |= dict(zip(operations[len(open_) - 1].outputs, step.origins, strict=True))

    def _ways(self, operation: Operation) -> Iterator[Found]:
        given = [self.origins[number] for number in operation.inputs]
        yield from self.rules.ways(operation, given)

    def _plan(self) -> Plan:
        steps, silenced = [], set()
        heard = self._heard()
        for place, (operation, found) in enumerate(
            zip(self.child.operations, self.taken, strict=True)
        ):
            if place not in heard:
                steps.append(Step(operation, "own"))
                continue
            value = next((origin for origin in found.given if isinstance(origin, Same)), None)
            (first, *_) = found.origins
            steps.append(
                Step(
                    operation,
                    found.way,
                    found.parent,
                    value.value if value else None,
                    value.channels if value else None,
                    first.channels if isinstance(first, Same) else None,
                )
            )
            for number in found.silenced:
                silenced |= self._silence(number)
        return Plan(tuple(steps), frozenset(silenced))

    def _heard(self) -> set[int]:
        """The operations on which the output depends once what is added to it is silent."""
        needed, heard = {self.child.output}, set()
        for place in reversed(range(len(self.taken))):
            operation, found = self.child.operations[place], self.taken[place]
            if found.way != "own" and needed.intersection(operation.outputs):
                heard.add(place)
                for number, origin in zip(operation.inputs, found.given, strict=True):
                    if isinstance(origin, Same) and number not in found.silenced:
                        needed.add(number)
        return heard

    def _silence(self, value: int) -> set[int]:
        """The operations whose weights are made zero so that a value of the child's own is."""
        place = self.maker[value]
        operation = self.child.operations[place]
        if self.taken[place].way == "own" and operation.weights:
            return {place}
        own = [number for number in operation.inputs if self.origins[number] == Other(silent=True)]
        if operation.function == "mul":
            own = own[:1]
        return set().union(*(self._silence(number) for number in own))

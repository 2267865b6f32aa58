"""The steps by which an architecture can grow and go on computing what it did.

A step picks the next larger option of one number (a width, a kernel, an expansion, a depth) or
another option of anything else; where that opens choices, every combination of theirs is a step
of its own. Layers that are counted (``conv0``, ``conv1``, …) are added in every place. Whether a
step preserves the function is not read off its label but found by planning it, so this works for
spaces that know nothing of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nas.architecture import Architecture, Scalar
from nas.errors import InvalidArchitecture, UnsupportedRequest
from nas.morphism.plan import Plan, find_plan
from nas.morphism.trace import Operation, Weight, graph_of
from nas.space import HasEdits, SearchSpace, from_picks, validate

MORPHISM_KINDS = ("wider", "kernel", "deeper", "skip", "branch", "same")
"""What ``Morphism.kind`` may be."""

MOST_COMBINATIONS = 64
"""So many ways of filling what a step opens are tried at most, the first ones."""


@dataclass(frozen=True)
class Morphism:
    """One step by which an architecture grows.

    Attributes:
        kind: ``wider`` (more channels), ``kernel`` (larger kernels), ``deeper`` (more layers),
            ``skip`` (an earlier value added by a gate or a 1×1 convolution that starts at zero,
            or joined and not heard at first), ``branch`` (another layer beside others, likewise),
            or ``same`` (the weights stay as they are).
        place: label of the choice that is changed; of layers that are counted, what the labels
            of the new one begin with.
        child: what it grows to.
    """

    kind: str
    place: str
    child: Architecture


def morphisms(space: SearchSpace, arch: Architecture) -> list[Morphism]:
    """All single steps from an architecture that preserve what its network computes.

    In the order of the space's choices and their options; no child comes twice.

    Raises:
        InvalidArchitecture: the architecture is not one of the space.
        UnsupportedRequest: its network's operations cannot be listed.
    """
    validate(space, arch)
    before = graph_of(space, arch)
    seen = {space.canonical(arch)}
    found = []
    for place, child in _grown(space, arch):
        form = space.canonical(child)
        if form in seen:
            continue
        seen.add(form)
        try:
            after = graph_of(space, child)
        except UnsupportedRequest:
            continue
        plan = find_plan(before, after)
        if isinstance(plan, Plan) and _is_one_step(plan):
            found.append(Morphism(kind_of(plan), place, child))
    return found


def kind_of(plan: Plan) -> str:
    """What a plan does to the parent, the largest change first; see ``Morphism.kind``."""
    own = [step.operation for step in plan.steps if step.way == "own"]
    if plan.silenced:
        return _kind_of_sum(plan, own)
    if any(operation.weights for operation in own):
        return "branch"
    if any(s.operation.function == "cat" and -1 in (s.made or ()) for s in plan.steps):
        return "skip"
    if any(step.way == "identity" and _is_layer(step.operation) for step in plan.steps):
        return "deeper"
    wider = kernel = False
    for step in plan.steps:
        if step.parent is None or step.operation.layer is not None:
            continue
        for mine, theirs in zip(step.operation.weights, step.parent.weights, strict=True):
            wider |= mine.shape[:2] != theirs.shape[:2]
            kernel |= mine.shape[2:] != theirs.shape[2:]
    return "wider" if wider else "kernel" if kernel else "same"


def _is_one_step(plan: Plan) -> bool:
    """Whether layers that are added leave the others as wide and their kernels as large."""
    if kind_of(plan) in ("wider", "kernel", "same"):
        return True
    return all(
        mine.shape[:1] == theirs.shape[:1] and mine.shape[2:] == theirs.shape[2:]
        for step in plan.steps
        if step.parent is not None
        for mine, theirs in zip(step.operation.weights, step.parent.weights, strict=True)
        if len(mine.shape) > 1
    )


def _is_layer(operation: Operation) -> bool:
    return isinstance(operation.arguments.get("weight"), Weight)


def _kind_of_sum(plan: Plan, own: list[Operation]) -> str:
    """Of a part that is added: a layer more if it reads the very value that it is added to."""
    made = {number for operation in own for number in operation.outputs}
    read = {number for operation in own for number in operation.inputs} - made
    for step in plan.steps:
        operation = step.operation
        if step.way != "identity" or operation.function != "add" or len(operation.inputs) != 2:
            continue
        if read <= set(operation.inputs) - made:
            return "deeper"
    kernels = [weight.shape[2:] for operation in own for weight in operation.weights]
    return "branch" if any(max(kernel, default=1) > 1 for kernel in kernels) else "skip"


def _grown(space: SearchSpace, arch: Architecture) -> Iterator[tuple[str, Architecture]]:
    """A label and an architecture for every step there is, whether it preserves or not."""
    if isinstance(space, HasEdits):  # it knows better than its labels tell
        for name, children in space.edits(arch).items():
            yield from ((name, child) for child in children if not name.startswith("remove"))
        return
    picks = arch.as_dict()
    by_label = {choice.label: choice for choice in space.choices}
    for label, held in arch.picks:
        options = by_label[label].options
        if isinstance(held, str):
            others: list[Scalar] = [option for option in options if option != held]
        else:
            larger = [o for o in options if not isinstance(o, str) and o > held]
            others = [min(larger, key=float)] if larger else []
        for option in others:
            opened = list(_filled(space, picks | {label: option}, picks))
            for child in opened:
                yield label, child
            for child in opened:
                yield from _moved(space, arch, child)


def _filled(
    space: SearchSpace, wanted: Mapping[str, Scalar], held: Mapping[str, Scalar]
) -> Iterator[Architecture]:
    """The architectures with these picks, whatever else they open."""

    def complete(made: dict[str, Scalar]) -> Iterator[Architecture]:
        step = space.legal(made)
        if step is None:
            yield Architecture.of_legal(space.name, tuple(made.items()))
            return
        choice, options = step
        if choice.label in wanted:
            options = (wanted[choice.label],) if wanted[choice.label] in options else ()
        for option in options:
            yield from complete(made | {choice.label: option})

    yield from itertools.islice(complete({}), MOST_COMBINATIONS)


def _moved(
    space: SearchSpace, arch: Architecture, child: Architecture
) -> Iterator[tuple[str, Architecture]]:
    """A child whose new layer is the last of those that are counted, with it in other places."""
    old, new = arch.as_dict(), child.as_dict()
    blocks = {_block(label, old) for label in new if label not in old}
    if len(blocks) != 1 or None in blocks:
        return
    (block,) = blocks
    assert block is not None
    before, number, _ = block
    added = {
        rest: new[label]
        for label in new
        if label not in old and (rest := _rest(label, before, number)) is not None
    }
    for place in reversed(range(number)):
        if not any(_rest(label, before, place) is not None for label in old):
            return
        picks = dict(new)
        for index in range(place, number):
            for label, value in old.items():
                rest = _rest(label, before, index)
                if rest is not None:
                    picks[f"{before}{index + 1}{rest}"] = value
        picks |= {f"{before}{place}{rest}": value for rest, value in added.items()}
        try:
            yield f"{before}{place}", from_picks(space, picks)
        except InvalidArchitecture:
            continue  # the layers are not alike there


def _block(label: str, old: Mapping[str, Scalar]) -> tuple[str, int, str] | None:
    """The number in a label that counts the layer: with one less, the label is there already."""
    for match in reversed(list(re.finditer(r"\d+", label))):
        before, number, rest = label[: match.start()], int(match.group()), label[match.end() :]
        if f"{before}{number - 1}{rest}" in old:
            return before, number, ""
    return None


def _rest(label: str, before: str, number: int) -> str | None:
    match = re.match(re.escape(f"{before}{number}") + r"(?!\d)", label)
    return label[match.end() :] if match else None

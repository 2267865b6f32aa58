"""Choices and architectures: the common encoding that spaces, strategies and evaluators share.

An architecture is a point: one option picked for every choice that is active. Nothing here
knows of torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nas.errors import InvalidArchitecture, NasError, nearest

Scalar = str | int | float
"""A pick: whatever JSON keeps as it is. ``bool`` is refused, because ``True == 1``."""

Condition = tuple[tuple[str, tuple[Scalar, ...]], ...]


def _is_scalar(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return not (isinstance(value, float) and not math.isfinite(value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that is open: a label, its ordered options, and when it is open at all.

    ``when`` maps labels of earlier choices to the options that make this one active; all of
    them have to hold, and an inactive choice does not hold. Without it the choice is always
    active.

    >>> Choice("conv1/kernel", (3, 5), when={"depth": (2, 3)}).active({"depth": 1})
    False
    """

    label: str
    options: tuple[Scalar, ...]
    when: Mapping[str, Iterable[Scalar]] | Condition = ()

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label:
            raise NasError(f"a choice's label must be a non-empty string, got {self.label!r}")
        if isinstance(self.options, str):  # a tuple of its letters is not what was meant
            raise NasError(f"choice {self.label!r}: options must be several, got {self.options!r}")
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options:
            raise NasError(f"choice {self.label!r} has no options")
        for option in self.options:
            if not _is_scalar(option):
                raise NasError(
                    f"choice {self.label!r}: option {option!r} is a {type(option).__name__}; "
                    "an option must be a string, an integer or a finite float"
                )
        if len(set(self.options)) != len(self.options):
            raise NasError(f"choice {self.label!r} has equal options: {self.options}")
        pairs = list(self.when.items() if isinstance(self.when, Mapping) else self.when)
        for label, values in pairs:
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise NasError(
                    f"choice {self.label!r}: when must map labels to tuples of options, but "
                    f"{label!r} is mapped to {values!r}"
                )
        object.__setattr__(self, "when", tuple((label, tuple(values)) for label, values in pairs))
        if self.label in dict(self.conditions()):
            raise NasError(f"choice {self.label!r} depends on itself")

    def conditions(self) -> Condition:
        """``when`` in the form it is kept in."""
        assert isinstance(self.when, tuple)
        return self.when

    def active(self, picks: Mapping[str, Scalar]) -> bool:
        """Whether the choice is open after these picks."""
        return all(label in picks and picks[label] in values for label, values in self.conditions())

    def index(self, option: Scalar) -> int:
        """The position of an option; raises ``InvalidArchitecture`` for one that is not there."""
        # Strict in type: 3 and 3.0 are equal to Python but not to JSON, and a digest is JSON's.
        for position, candidate in enumerate(self.options):
            if candidate == option and type(candidate) is type(option):
                return position
        raise InvalidArchitecture(
            f"{option!r} is not an option of {self.label!r}: {nearest(option, self.options)}"
        )


@dataclass(frozen=True, slots=True)
class Architecture:
    """A point of a search space: the space's name and version, and the picks in its order.

    Choices that are not active are absent. Values are checked here for form only; whether the
    picks are legal is for the space to say (``nas.space.validate``).
    """

    space: str
    picks: tuple[tuple[str, Scalar], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.space, str) or not self.space:
            raise InvalidArchitecture(f"the space must be a name, got {self.space!r}")
        pairs = self.picks.items() if isinstance(self.picks, Mapping) else self.picks
        picks = tuple((label, value) for label, value in pairs)
        for label, value in picks:
            if not isinstance(label, str):
                raise InvalidArchitecture(f"a pick's label must be a string, got {label!r}")
            if not _is_scalar(value):
                raise InvalidArchitecture(
                    f"the pick of {label!r} must be a string, an integer or a finite float, "
                    f"got {value!r}"
                )
        if len({label for label, _ in picks}) != len(picks):
            raise InvalidArchitecture(f"two picks have the same label: {picks}")
        object.__setattr__(self, "picks", picks)

    def __getitem__(self, label: str) -> Scalar:
        for candidate, value in self.picks:
            if candidate == label:
                return value
        raise KeyError(f"{label!r}: {nearest(label, [name for name, _ in self.picks])}")

    def __iter__(self) -> Iterator[str]:
        return (label for label, _ in self.picks)

    def __str__(self) -> str:
        return " ".join(f"{label}={value}" for label, value in self.picks)

    def as_dict(self) -> dict[str, Scalar]:
        """The picks by label, in the space's order."""
        return dict(self.picks)

    def to_json(self) -> str:
        """Canonical JSON: the same text for the same architecture on every machine."""
        document = {"space": self.space, "picks": [list(pick) for pick in self.picks]}
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Reads what ``to_json`` wrote; raises ``InvalidArchitecture`` for anything else."""
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidArchitecture(f"not an architecture, not even JSON: {error}") from error
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> Architecture:
        """The same from parsed JSON; ``picks`` may be pairs or an object. Other keys are let be."""
        if not isinstance(document, Mapping) or not {"space", "picks"} <= set(document):
            raise InvalidArchitecture(
                f"an architecture is an object with 'space' and 'picks', got {document!r:.200}"
            )
        picks = document["picks"]
        if isinstance(picks, Mapping):
            picks = list(picks.items())
        if not isinstance(picks, list | tuple) or not all(
            isinstance(pick, list | tuple) and len(pick) == 2 for pick in picks
        ):
            raise InvalidArchitecture(
                f"'picks' must be pairs of a label and an option, got {picks!r:.200}"
            )
        return cls(document["space"], tuple((label, value) for label, value in picks))

    @classmethod
    def of_legal(cls, space: str, picks: tuple[tuple[str, Scalar], ...]) -> Architecture:
        """An architecture of picks that a space has just given out, without checking them again.

        For code that makes many (``nas.space`` does); whoever has picks from elsewhere calls
        ``Architecture`` or ``nas.space.from_picks``.
        """
        made = object.__new__(cls)
        _SET_SPACE(made, space)
        _SET_PICKS(made, picks)
        return made

    def digest(self) -> str:
        """A stable name: 16 bytes of blake2b of the canonical JSON, in hex."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=16).hexdigest()


# A frozen value is filled past its own __setattr__; through its slots that is quickest.
_SET_SPACE = vars(Architecture)["space"].__set__
_SET_PICKS = vars(Architecture)["picks"].__set__

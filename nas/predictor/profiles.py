"""How a ridge may share its prior among the blocks of features that ``Inputs`` makes."""

from __future__ import annotations

from collections.abc import Sequence

PROFILES: tuple[dict[str, float], ...] = (
    {"counts": 1, "options": 1, "numbers": 1},
    {"counts": 3, "options": 1, "numbers": 1},
    {"counts": 1, "options": 3, "numbers": 1},
    {"options": 1, "numbers": 1},
    {"counts": 1, "options": 1, "numbers": 1, "pairs": 1},
    {"counts": 3, "options": 1, "numbers": 1, "pairs": 1},
    {"counts": 1, "options": 1, "numbers": 1, "paths": 1},
    {"counts": 1, "options": 1, "numbers": 1, "paths": 1, "pairs": 1},
)
"""Shares of the blocks among which the marginal likelihood chooses."""


def profiles_of(names: Sequence[str]) -> list[tuple[float, ...]]:
    """Those profiles for the blocks there are; one of equal shares is always among them."""
    found = [tuple(float(profile.get(name, 0.0)) for name in names) for profile in PROFILES]
    equal = (1.0,) * len(names)
    return list(dict.fromkeys([*(p for p in found if sum(p) > 0), equal]))

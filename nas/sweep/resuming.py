"""Going on with a sweep: what may have changed in its description since, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.errors import ResumeError
from nas.sweep.files import Sweep, is_sweep, read_sweep, settings, write_sweep


def begin(folder: Path, sweep: Sweep) -> None:
    """Writes down what a sweep is made of, or makes sure that its folder holds the same sweep.

    Labels may have been added, budgets may have grown and executors may differ.

    Raises:
        ResumeError: the folder holds another sweep; the message names what differs.
    """
    if is_sweep(folder):
        difference = _changed(read_sweep(folder), sweep)
        if difference:
            raise ResumeError(
                f"{folder} holds another sweep: {difference}. Labels may be added and budgets may "
                "grow; for anything else choose another folder with --out"
            )
    write_sweep(folder, sweep)


def _changed(old: Sweep, new: Sweep) -> str:
    for axis in old.axes:
        if axis not in new.axes:
            return f"the axis {axis!r} is gone"
    for axis in new.axes:
        if axis not in old.axes:
            return f"the axis {axis!r} is new"
    searches = {one.folder: one for one in new.searches}
    for before in old.searches:
        after = searches.get(before.folder)
        if after is None:
            for axis, label in before.labels.items():
                if label not in new.axes[axis]:
                    return f"axes.{axis} has no {label!r} any more"
            return f"the search {before.name} is gone"
        one, other = settings(before.config), settings(after.config)
        found = _shrunk(one.pop("budget"), other.pop("budget")) or _difference(one, other, "")
        if found:
            return f"in the search {before.name}, {found}"
    return ""


def _shrunk(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for key, after in new.items():
        before = old.get(key)
        if after is not None and (before is None or after < before):
            was = "open" if before is None else f"{before:g}"
            return f"budget.{key} was {was} and is {after:g}"
    return ""


def _difference(old: Any, new: Any, place: str) -> str:
    """The first place in which two configurations differ, in words; empty if they do not."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            where = f"{place}.{key}" if place else str(key)
            if key not in new:
                return f"{where} was {old[key]!r} and is gone"
            if key not in old:
                return f"{where} is new ({new[key]!r})"
            found = _difference(old[key], new[key], where)
            if found:
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        places = (_difference(one, other, f"{place}[{index}]") for index, (one, other) in pairs)
        return next(filter(None, places), "")
    return "" if old == new else f"{place} was {old!r} and is {new!r}"

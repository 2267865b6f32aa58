"""What goes wrong, as values a caller can tell apart.

Every error a user can cause is a ``NasError``: the command line prints its message and exits
with code 2, and a script may catch it as a ``ValueError``. A message names the value, the place
and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(ValueError):
    """Something the caller gave cannot be used."""


class InvalidArchitecture(NasError):
    """Picks that are not a complete, legal architecture of the space."""


class ConfigError(NasError):
    """A configuration, a component's arguments, or a name that does not exist."""


class DataError(NasError):
    """A data set that cannot be read, or does not fit the space."""


class InfeasibleLimit(NasError):
    """A limit that no architecture tried can meet."""


class JournalError(NasError):
    """A run's journal is damaged or cannot be written."""


class ResumeError(NasError):
    """A run is continued with something other than it was started with."""


class ExportError(NasError):
    """A network or trial that cannot be written out."""


class UnsupportedRequest(NasError):
    """A strategy, space, evaluator or executor was asked for what it does not offer."""


class WorkerError(NasError):
    """Processes that work together cannot go on: one of them died, or they disagree."""


def nearest(name: object, valid: Iterable[object]) -> str:
    """The end of an error message: the closest valid name, and all of them where they are few.

    >>> nearest("acuracy", ["accuracy", "macs"])
    "did you mean 'accuracy'? (valid: accuracy, macs)"
    """
    names = [str(candidate) for candidate in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    if close:
        return f"did you mean {close[0]!r}? (valid: {listed})"
    return f"valid: {listed}" if names else "there are none"

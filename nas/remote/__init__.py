"""Run folders at a URL: on an object store, or whatever else fsspec reaches.

Object stores cannot append, so a run is driven in a working copy on the driver's own disk, and a
thread brings what is new to the store every few seconds: the journal in numbered segments
(``nas.remote.segments``), other files whole. Any machine that reaches the store can open the run,
and go on with it once its driver is gone: one at a time, which a lease sees to
(``nas.remote.lease``). If the driver's machine is lost, so are the trials of the last seconds
that had not been brought there; they are run again.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+(?:::[A-Za-z][A-Za-z0-9+.-]+)*):/+(.*)", re.DOTALL)


def url_of(place: str | Path) -> str | None:
    """The URL that a place is, also where it was made a path; ``None`` for a path.

    >>> url_of(Path("s3://bucket/run"))
    's3://bucket/run'
    """
    text = str(place)
    found = _URL.fullmatch(text)
    if found is None:
        return None
    scheme, rest = found.groups()
    local = scheme in ("file", "local")
    return f"{scheme}://{'/' if local else ''}{rest.rstrip('/')}"


def working_copy(url: str) -> Path:
    """Where this machine keeps its copy: below ``NASFORGE_CACHE``, else in the user's cache."""
    cache = os.environ.get("NASFORGE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.blake2b(url.encode(), digest_size=12).hexdigest()
    return (Path(cache) if cache else Path(home) / "nasforge") / "runs" / digest

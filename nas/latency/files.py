"""Whatever tells a latency, from its file: a table of operations, or a fit to whole networks."""

from __future__ import annotations

import json
from pathlib import Path

from nas.errors import ConfigError, DataError
from nas.latency.table import FORMAT as TABLE
from nas.latency.table import LatencyTable, load_for
from nas.latency.whole import FORMAT as FIT
from nas.latency.whole import WholeNetworkFit, read_fit
from nas.space import SearchSpace


def read(
    path: str | Path, space: SearchSpace, backend: str | None = None
) -> LatencyTable | WholeNetworkFit:
    """Reads a table or a fit that is to be used for a space; both have ``predict``.

    Args:
        backend: what a table has to be of, where that is to be made sure.

    Raises:
        DataError: there is no such file, it is damaged, or it is neither.
        ConfigError, UnsupportedRequest: it is of another space or backend.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged, or tells no latencies: {error}") from error
    kind = document.get("format") if isinstance(document, dict) else None
    if kind == FIT:
        if backend is not None:
            raise ConfigError(f"{path} is a fit to whole networks, which is of no backend")
        return read_fit(path, space)
    if kind == TABLE:
        return load_for(path, space, backend)
    raise DataError(
        f"{path} tells no latencies: its format is {kind!r}, not that of a table "
        f"({TABLE!r}) or of a fit ({FIT!r})"
    )

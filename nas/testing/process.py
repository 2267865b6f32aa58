"""A function called in another Python process, with other hashes of strings."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

_CALL = "from nas.testing.process import answer; answer()"


def in_another_process(function: str, **arguments: Any) -> Any:
    """Calls ``module:function`` in a fresh process; arguments and result cross as JSON.

    The other process sees the same ``sys.path`` and hashes strings differently, so that what
    depends on the order of a set, or on ``hash``, gives itself away.

    Raises:
        AssertionError: the process failed; the message is what it wrote.
    """
    seed = 1 if os.environ.get("PYTHONHASHSEED") != "1" else 2
    done = subprocess.run(
        [sys.executable, "-c", _CALL],
        input=json.dumps({"path": sys.path, "function": function, "arguments": arguments}),
        env=os.environ
        | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{function} failed in another process:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def answer() -> None:
    """The other process's side."""
    call = json.loads(sys.stdin.read())
    sys.path[:] = call["path"]
    module, _, name = call["function"].partition(":")
    result = getattr(importlib.import_module(module), name)(**call["arguments"])
    print("\n" + json.dumps(result))

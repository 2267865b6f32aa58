"""A function called in another Python process, with other hashes of strings."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

_SERVE = "from nas.testing.process import serve; serve()"


def in_another_process(function: str, **arguments: Any) -> Any:
    """Calls ``module:function`` in another process; arguments and result cross as JSON.

    The other process sees the same ``sys.path`` and hashes strings differently, so that what
    depends on the order of a set, or on ``hash``, gives itself away. It is fresh, but for torch,
    which takes seconds to import: it is forked from one that has done that and nothing else.

    Raises:
        AssertionError: the function or the process failed; the message is what it wrote.
    """
    global _other
    around = _surroundings()
    if _other is None or _other.around != around or _other.process.poll() is not None:
        _end()
        _other = _started(around)
    sent = json.dumps({"function": function, "arguments": arguments})
    assert _other.process.stdin is not None
    assert _other.process.stdout is not None
    try:
        _other.process.stdin.write(sent + "\n")
        _other.process.stdin.flush()
        line = _other.process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        _other.errors.seek(0)
        raise AssertionError(f"{function} ended the other process:\n{_other.errors.read()}")
    answer = json.loads(line)
    if "error" in answer:
        raise AssertionError(f"{function} failed in another process:\n{answer['error']}")
    return answer["result"]


@dataclass
class _Other:
    """The process that answers, and what was around when it was started."""

    process: subprocess.Popen[str]
    errors: IO[str]
    around: tuple[Any, ...]


_other: _Other | None = None


def _surroundings() -> tuple[Any, ...]:
    # pytest tells in its variable which test is running.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    return os.getcwd(), tuple(sys.path), tuple(sorted(environment.items()))


def _started(around: tuple[Any, ...]) -> _Other:
    seed = 1 if os.environ.get("PYTHONHASHSEED") != "1" else 2
    environment: Mapping[str, str] = os.environ | {
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # kept open for the process
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(sys.path) + "\n")
    return _Other(process, errors, around)


@atexit.register
def _end() -> None:
    global _other
    if _other is None:
        return
    with contextlib.suppress(BrokenPipeError):
        _other.process.communicate()  # it ends with its input
    _other.errors.close()
    _other = None


def serve() -> None:
    """The other side: answers each line with a line, in a process of its own."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what functions print is no answer
    sys.path[:] = json.loads(sys.stdin.readline())
    importlib.import_module("torch")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                answers.write(_answer(**json.loads(line)) + "\n")
                answers.flush()
                code = 0
            finally:
                os._exit(code)  # whatever happens, it must not go on as the other one
        _, status = os.waitpid(child, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            answers.write(json.dumps({"error": f"it ended with code {code}"}) + "\n")
            answers.flush()


def _answer(function: str, arguments: dict[str, Any]) -> str:
    module, _, name = function.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**arguments)
        return json.dumps({"result": result})
    except Exception:
        return json.dumps({"error": traceback.format_exc()})

"""A Ray cluster as the executor meets it: started here or joined, its machines, what they hold."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import RayError

from nas.errors import ConfigError
from nas.execution.code import write_bundle
from nas.execution.need import amounts, places

Code = Literal["auto", "none"]

# Linux gives the whole of 127/8 to the loopback device. Ray takes 127.0.0.1 for "this machine"
# and goes on with the address it has in the network.
_LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_LOOK_EVERY_S = 1.0
_ANSWER_S = 5.0

# It has no annotations.
nodes: Callable[[], list[dict[str, Any]]] = ray.nodes


class Machines:
    """The machines of the cluster as they come and go, looked at again at most once a second.

    Args:
        need: what a trial needs, by Ray's names of resources.

    Attributes:
        places: how many trials they hold.
        alive: the ids of those that are there.
        seen: when that was, by ``time.monotonic``.
    """

    def __init__(self, need: Mapping[str, float]) -> None:
        self.need = need
        self.places = 0
        self.alive: frozenset[str] = frozenset()
        self.seen = 0.0
        self._resources: list[Mapping[str, float]] = []
        self._next = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        there = [node for node in nodes() if node["Alive"]]
        self.seen = now
        self.alive = frozenset(node["NodeID"] for node in there)
        self._resources = [node["Resources"] for node in there]
        self.places = sum(places(machine, self.need) for machine in self._resources)
        # A thousand machines take Ray a while to list: never more than a hundredth of the time.
        self._next = now + max(_LOOK_EVERY_S, 100 * (time.monotonic() - now))

    def missing(self) -> str:
        """What a trial needs and what there is, for a message."""
        there = "; ".join(amounts(machine, self.need) for machine in self._resources)
        return (
            f"a trial needs {amounts(self.need, self.need)}, and no machine of the cluster has "
            f"that: it has {there or 'no machine'}"
        )


def start_local() -> None:
    """A cluster on this machine, which ends with this process."""
    # Ray's processes take these from us; it would report its use to its makers.
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = before or "0"
    try:
        ray.init(
            "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=_LOOPBACK,
        )
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def connect(address: str, code: Code = "auto") -> None:
    """Joins the cluster at an address.

    Args:
        address: ``host:port``, or ``auto`` for the one that this machine is part of.
        code: ``auto`` sends the cluster what is not installed (``nas.execution.code``);
            ``none`` sends nothing: its machines have it.

    Raises:
        ConfigError: nobody answers there, it is a cluster that cannot be joined (another version
            of Python or Ray), or there is too much code.
    """
    if "://" in address:
        raise ConfigError(
            f"address: {address!r} is not one that a search can run at: it is of Ray's client, "
            "which does not tell when a trial starts. Run the search on a machine of the cluster "
            "(the head, say) with address 'auto'"
        )
    if address != "auto" and not address.rpartition(":")[2].isdigit():
        raise ConfigError(f"address: {address!r} has no port; expected host:port, or auto")
    with tempfile.TemporaryDirectory() as folder:
        environment = {}
        if code == "auto" and not _has_code_already():
            bundle = Path(folder) / "code.zip"
            write_bundle(bundle)
            environment = {"working_dir": str(bundle)}
        try:
            _check_answer(str(canonicalize_bootstrap_address(address)))
            ray.init(
                address,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except OSError as error:
            raise ConfigError(f"address: no Ray cluster at {address!r}: {line(error)}") from error
        except (ValueError, RuntimeError, RayError) as error:
            raise ConfigError(
                f"address: the Ray cluster at {address!r} cannot be joined: {line(error)}"
            ) from error


def _check_answer(address: str) -> None:
    """Raises ``OSError`` unless somebody there speaks Ray's language.

    Ray itself tries for minutes, and ends the whole process where nobody answers.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_ANSWER_S) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("0", "false", "False"):
            return  # it takes certificates to go on
        # HTTP/2, as in gRPC: either side begins with its settings.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        answer = connection.recv(9)
    if len(answer) < 4 or answer[3] != 4:
        raise ConnectionError(f"{address} is open, and not Ray's")


def _has_code_already() -> bool:
    """Whether this process is a job that was submitted to the cluster with its code."""
    try:
        environment = json.loads(os.environ.get(_JOB, "{}")).get("runtime_env") or {}
    except (ValueError, AttributeError):
        return False
    return bool(environment.get("working_dir") or environment.get("py_modules"))


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Keeps an interrupt from the keyboard until the end.

    Where Ray is broken off while it starts or ends, some of its processes stay for a minute.
    Whoever is out of patience interrupts three times.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        held.append(signum)
        if len(held) == 3:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def line(error: BaseException) -> str:
    """An error in one line; Ray's own go on with advice."""
    lines: Sequence[str] = [text for text in str(error).splitlines() if text.strip()]
    return lines[0].strip()[:300] if lines else type(error).__name__

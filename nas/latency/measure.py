"""How a latency is measured: rounds over everything that is measured together, until it is tight.

In every round each call is made a few times without being timed (its data are in the cache then,
whatever ran before), and then timed once or, where it is short, as the mean of several. Rounds go
over all calls, so that what else the machine does falls on all alike, and a call is done with when
the interval of its median is tight.

A sample is an outlier, and left out, where it lies more than ``FAR`` deviations from the median; a
deviation is 1.4826 times the median distance from the median (a normal distribution's σ), and at
least ``LEAST`` of the median. The interval of the median is that of its order statistics, which
asks nothing of the distribution: with 95 % the true one lies between the samples of ranks
n/2 ± 0.98·√n.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nas.errors import ConfigError, nearest

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
"""``wall``: the time that passes, waiting for a processor included; ``cpu``: what the one thread
that computes was given, on a machine that does other work as well."""

FAR = 5.0
LEAST = 0.01
_SIGMA = 1.4826
_LEAST_SAMPLES = 9


@dataclass(frozen=True)
class Protocol:
    """How something is measured; kept beside the numbers.

    Args:
        clock: ``wall`` or ``cpu`` (see ``CLOCKS``).
        threads: that the runtime computes with; one for the ``cpu`` clock, which sees no other.
        batch: examples at once.
        warmup: calls before each sample that are not timed.
        sample_ms: a sample is the mean of as many calls as take so long; at least one.
        half_width: tight is a median whose 95 % interval reaches at most this share to each side.
        rounds: samples at least.
        seconds: on average for each thing that is measured; then it is left as it is, not tight.
    """

    clock: Literal["wall", "cpu"] = "wall"
    threads: int = 1
    batch: int = 1
    warmup: int = 2
    sample_ms: float = 0.5
    half_width: float = 0.01
    rounds: int = 20
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise ConfigError(f"there is no clock {self.clock!r}: {nearest(self.clock, CLOCKS)}")
        for name, least in (("threads", 1), ("batch", 1), ("warmup", 0), ("rounds", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"{name} must be a whole number from {least}, got {value!r}")
        for name in ("sample_ms", "half_width", "seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        if self.clock == "cpu" and self.threads > 1:
            raise ConfigError(
                f"the clock 'cpu' counts one thread's time, but threads is {self.threads}: "
                "use the clock 'wall'"
            )


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        ms: the median, in milliseconds.
        p10, p90: the percentiles, in milliseconds.
        samples: that count.
        rejected: outliers, which do not.
        half_width: of the median's 95 % interval, as a share of it.
        tight: whether that is as small as was asked for.
    """

    ms: float
    p10: float
    p90: float
    samples: int
    rejected: int
    half_width: float
    tight: bool


def summary(samples: Sequence[float], half_width: float) -> Timing:
    """What samples in milliseconds come to; see the module.

    Args:
        half_width: that is tight.
    """
    middle = statistics.median(samples)
    deviation = _SIGMA * statistics.median([abs(value - middle) for value in samples])
    reach = FAR * max(deviation, LEAST * middle)
    kept = sorted(value for value in samples if abs(value - middle) <= reach)
    median = statistics.median(kept)
    spread = math.inf
    if len(kept) >= _LEAST_SAMPLES:
        half = 0.98 * math.sqrt(len(kept))
        low = max(0, math.floor(len(kept) / 2 - half) - 1)
        high = min(len(kept) - 1, math.ceil(len(kept) / 2 + half))
        spread = (kept[high] - kept[low]) / 2
    share = spread / median if median > 0 else math.inf
    return Timing(
        ms=median,
        p10=_percentile(kept, 0.1),
        p90=_percentile(kept, 0.9),
        samples=len(kept),
        rejected=len(samples) - len(kept),
        half_width=share if math.isfinite(share) else 1.0,
        tight=share <= half_width,
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def measure(
    calls: Mapping[str, Callable[[], Any]],
    protocol: Protocol,
    clock: Callable[[], float] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Timing]:
    """Times calls beside one another, in this process.

    Args:
        clock: seconds that are counted; the protocol's if not given.
        now: seconds by which the time limit is kept.
    """
    tick = CLOCKS[protocol.clock] if clock is None else clock
    samples: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {name: _repeats(call, protocol, tick) for name, call in calls.items()}
    waiting = dict(calls)
    until = now() + protocol.seconds * len(calls)
    while waiting:
        for name, call in waiting.items():
            samples[name].append(_sample(call, repeats[name], protocol, tick))
        for name in list(waiting):
            many = len(samples[name])
            # Looked at seldom: whoever stops at the first lucky moment finds every moment lucky.
            due = many >= protocol.rounds and many % 5 == 0
            if due and summary(samples[name], protocol.half_width).tight:
                del waiting[name]
        if now() >= until:
            break
    return {name: summary(found, protocol.half_width) for name, found in samples.items()}


def _repeats(call: Callable[[], Any], protocol: Protocol, tick: Callable[[], float]) -> int:
    for _ in range(max(3, protocol.warmup)):
        call()
    start = tick()
    call()
    once = 1000 * (tick() - start)
    return max(1, min(1000, math.ceil(protocol.sample_ms / once))) if once > 0 else 1000


def _sample(
    call: Callable[[], Any], repeats: int, protocol: Protocol, tick: Callable[[], float]
) -> float:
    for _ in range(protocol.warmup):
        call()
    start = tick()
    for _ in range(repeats):
        call()
    return 1000 * (tick() - start) / repeats

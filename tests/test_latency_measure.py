"""The statistics of a measurement, with clocks that say what the test wants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError, UnsupportedRequest
from nas.latency import backends
from nas.latency.measure import Protocol, measure, summary


class Clock:
    """Time passes only where a call lets it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def call_of(clock, milliseconds):
    """A call that takes, in turn, so long; and how often it was made."""
    made = [0]
    takes = itertools.cycle(milliseconds)

    def call():
        made[0] += 1
        clock.seconds += next(takes) / 1000

    return call, made


def test_outliers_are_rejected_and_counted():
    samples = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99, 1.0, 50.0, 0.001]
    found = summary(samples, 0.05)
    assert (found.samples, found.rejected) == (10, 2)
    assert found.ms == pytest.approx(1.0)
    assert found.p10 == pytest.approx(np.percentile(samples[:10], 10))
    assert found.p90 == pytest.approx(np.percentile(samples[:10], 90))
    assert found.tight


def test_equal_samples_are_tight_and_keep_a_hair_of_difference():
    assert summary([2.0] * 20, 0.01).half_width == 0
    found = summary([2.0] * 19 + [2.0001], 0.01)
    assert found.rejected == 0


def test_few_samples_are_never_tight():
    assert not summary([1.0] * 8, 0.01).tight
    assert summary([1.0] * 9, 0.01).tight


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        samples = rng.gamma(9.0, 1.0, 60).tolist()
        found = summary(samples, 0.01)
        half = found.half_width * found.ms
        covered += abs(found.ms - 8.669) <= half
    # 95 %, less what a symmetric half width loses on a skewed distribution.
    assert 0.90 <= covered / 400 <= 1.0


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=60), st.floats(0.1, 10.0))
def test_a_summary_scales_with_its_samples(samples, factor):
    one, other = summary(samples, 0.01), summary([factor * value for value in samples], 0.01)
    assert one.p10 <= one.ms <= one.p90
    assert one.samples + one.rejected == len(samples)
    # Rounding may move a sample over the edge of what is rejected.
    if one.samples == other.samples:
        assert other.ms == pytest.approx(factor * one.ms)


def test_rounds_end_when_all_are_tight():
    clock = Clock()
    steady, made = call_of(clock, [2.0])
    protocol = Protocol(warmup=0, rounds=10, sample_ms=0.5, seconds=1000)
    found = measure({"steady": steady}, protocol, clock, Clock())["steady"]
    assert found.tight
    assert found.ms == pytest.approx(2.0)
    assert found.samples == 10
    assert made[0] == 10 + 4  # to begin with, to see how long one takes


def test_a_time_limit_leaves_the_loose_as_they_are_and_says_so():
    clock, now = Clock(), Clock()
    loose, _ = call_of(clock, [1.0, 5.0, 9.0, 2.0, 7.0])

    def call():
        loose()
        now.seconds += 0.01

    found = measure({"loose": call}, Protocol(warmup=0, sample_ms=0.1, seconds=0.5), clock, now)
    assert not found["loose"].tight
    assert 40 <= found["loose"].samples + found["loose"].rejected <= 51


def test_rounds_go_over_all_and_leave_out_what_is_done():
    clock, now = Clock(), Clock()
    order = []

    def named(name, milliseconds):
        call, _ = call_of(clock, milliseconds)

        def made():
            order.append(name)
            now.seconds += 1.0
            call()

        return made

    calls = {"a": named("a", [1.0]), "b": named("b", [1.0, 3.0, 9.0, 2.0])}
    measure(calls, Protocol(warmup=0, rounds=10, sample_ms=0.1, seconds=60), clock, now)
    rounds = order[8:]  # after what begins
    assert rounds[:20] == ["a", "b"] * 10
    assert set(rounds[20:]) == {"b"}


def test_short_calls_are_timed_several_at_once():
    clock = Clock()
    short, made = call_of(clock, [0.01])
    protocol = Protocol(warmup=1, rounds=10, sample_ms=1.0, seconds=1000)
    found = measure({"short": short}, protocol, clock, Clock())["short"]
    assert found.ms == pytest.approx(0.01)
    assert found.samples == 10
    assert made[0] in (4 + 10 * (1 + 100), 4 + 10 * (1 + 101))  # rounding up


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clock": "walls"}, "did you mean 'wall'"),
        ({"threads": 0}, "threads must be a whole number from 1"),
        ({"batch": 1.5}, "batch must be"),
        ({"half_width": 0.0}, "half_width must be above 0"),
        ({"seconds": float("nan")}, "seconds must be above 0"),
        ({"clock": "cpu", "threads": 2}, "counts one thread's time"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Protocol(**settings)


def test_bad_backends_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        backends.check("onnxruntim", Protocol())
    monkeypatch.setattr(backends.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnsupportedRequest, match="no CUDA device"):
        backends.check("cuda", Protocol())
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install nasforge\[deploy\]"):
        backends.check("onnxruntime", Protocol())

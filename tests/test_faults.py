"""Drivers killed at random moments: no finished trial is lost, none is there twice."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
from workloads import MAIN, Score, driver, family, left, left_by_the_killed, run, wait_until

from nas import journal
from nas.execution.serial import Serial
from nas.history import JOURNAL, History
from nas.trial import Measured

DELAY_S = 0.015


def lines(folder):
    """The whole lines of a journal, without asking the code under test."""
    path = folder / JOURNAL
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def events(whole):
    """What they say, but for the seconds, which differ from run to run."""
    found = [journal.decode_line(line) for line in whole]
    for event in found:
        if event["event"] == "trial":
            event["cost"]["seconds"] = 0
    return found


def numbers(whole):
    return [e["number"] for e in events(whole) if e["event"] == "trial"]


@pytest.mark.parametrize(
    "name", [pytest.param("random", marks=pytest.mark.slow), "regularized_evolution"]
)
def test_a_serial_search_killed_at_random_moments_equals_one_that_was_not(name, tmp_path):
    kills, trials = 20, 200
    folder = tmp_path / "killed"
    arguments = ("serial", str(folder), name, str(trials), str(DELAY_S))
    rng = random.Random(name)
    before = []
    grown = 0
    for kill in range(kills):
        with driver(MAIN, *arguments) as process:
            if kill % 5 < 4:  # else while it starts and reads the journal
                assert process.stdout.readline() == "ready\n"
                wanted, deadline = len(before) + rng.randint(0, 8), time.monotonic() + 60
                while len(lines(folder)) < wanted and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.02))
            else:
                time.sleep(rng.uniform(0.1, 0.5))
            assert process.poll() is None, "the search was over too soon to be killed"
            process.send_signal(signal.SIGKILL)
            process.wait()
        after = lines(folder)
        assert after[: len(before)] == before, f"kill {kill} changed what was there"
        grown += len(after) > len(before)
        before = after
    assert grown >= kills // 3, "most kills came before anything happened"
    with driver(MAIN, *arguments) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.endswith("done\n")
    after = lines(folder)
    assert after[: len(before)] == before
    assert numbers(after) == list(range(trials))

    # Trial by trial, ask by ask: the journal of a search that nobody disturbed.
    run(name, Score(), Serial(), trials, History(tmp_path / "whole"))
    assert events(after)[1:] == events(lines(tmp_path / "whole"))[1:]


def test_a_ray_search_whose_driver_is_killed_loses_nothing_and_leaves_nothing(tmp_path):
    kills, trials = 3, 30
    arguments = ("ray", str(tmp_path), "random", str(trials), "0.1")
    rng = random.Random(1)
    before = []
    for kill in range(kills):
        with driver(MAIN, *arguments) as process:
            done = len(numbers(before))
            begun = wait_until(lambda at=done: len(numbers(lines(tmp_path))) > at)
            assert begun, errors_of(process)
            time.sleep(rng.uniform(0, 0.25))
            assert process.poll() is None, "the search was over too soon to be killed"
            members = family(process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            # The cluster shares the driver's fate; its workers notice within seconds.
            rest = partial(left_by_the_killed, process, members)
            assert wait_until(lambda rest=rest: not rest(), 20), rest()
        after = lines(tmp_path)
        assert after[: len(before)] == before, f"kill {kill} changed what was there"
        assert len(members) > 4, "there was no cluster"
        assert len(set(numbers(after))) == len(numbers(after))
        before = after
    with driver(MAIN, *arguments) as process:
        out, errors = process.communicate(timeout=120)
        assert wait_until(lambda: not left(process, set()), 5)
    assert process.returncode == 0, errors
    assert out.endswith("done\n")
    after = lines(tmp_path)
    assert after[: len(before)] == before
    assert sorted(numbers(after)) == list(range(trials))
    found = sorted(History(tmp_path).trials, key=lambda trial: trial.number)
    expected = run("random", Score(), Serial(), trials)
    assert all(isinstance(trial.outcome, Measured) for trial in found)
    assert [(t.proposal, t.outcome) for t in found] == [(t.proposal, t.outcome) for t in expected]
    costs = {replace(trial.cost, seconds=0.0) for trial in found}
    assert costs == {replace(expected[0].cost, seconds=0.0)}


def errors_of(process):
    process.kill()
    return process.communicate()[1]

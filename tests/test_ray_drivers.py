"""Drivers that start a cluster of their own: what reaches it, and what is left where they end."""

from __future__ import annotations

import signal

import pytest
from workloads import FaultAt, driver, family, left, left_by_the_killed, wait_until

from nas.history import History

PRELUDE = """
import sys
import warnings
import workloads
from nas.execution.ray import RayExecutor
from nas.history import History
"""


def test_what_a_script_defines_reaches_the_workers(tmp_path):
    """Classes of the script itself and of a module beside it, whatever the working folder."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text(
        "from workloads import Score\nclass Beside(Score):\n    pass\n"
    )
    script = tmp_path / "scripts" / "main.py"
    script.write_text(
        PRELUDE
        + """
from beside import Beside
class Here(workloads.Score):
    pass
if __name__ == "__main__":
    executor = RayExecutor()
    for make in (Here, Beside):
        for trial in workloads.run("random", make(), executor, 3):
            print(make.__name__, type(trial.outcome).__name__, trial.outcome)
        executor.close()
    import ray
    print("initialised", ray.is_initialized())
"""
    )
    with driver(script) as process:
        out, errors = process.communicate(timeout=120)
        members = family(process)
    words = [line.split()[:2] for line in out.splitlines()]
    assert words == [["Here", "Measured"]] * 3 + [["Beside", "Measured"]] * 3 + [
        ["initialised", "False"]
    ], out + errors
    assert members == set()


INTERRUPTED = (
    PRELUDE
    + """
warnings.simplefilter("error")
evaluator = workloads.FaultAt(sys.argv[2], sys.argv[1], number=5)
executor = RayExecutor()
workloads.run("random", evaluator, executor, 9, History(sys.argv[1] + "/run"))
"""
)


@pytest.mark.parametrize(
    ("sign", "how"),
    [
        (signal.SIGINT, "hang in C"),
        pytest.param(signal.SIGTERM, "hang", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, "hang in C", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_driver_leaves_no_process_and_a_whole_journal(sign, how, tmp_path):
    with driver(INTERRUPTED, str(tmp_path), how) as process:
        evaluator = FaultAt(how, str(tmp_path))
        assert wait_until(lambda: evaluator.attempts() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        members = family(process)
        assert any(pid == evaluator.attempts()[0] for pid, _ in members)
        process.send_signal(sign)
        _, errors = process.communicate(timeout=60)
        # Killed, the driver ends nothing: the others find out for themselves.
        rest, seconds = (left_by_the_killed, 20) if sign == signal.SIGKILL else (left, 5)
        assert wait_until(lambda: not rest(process, members), seconds), rest(process, members)
    assert process.returncode != 0
    if sign == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
    history = History(tmp_path / "run")
    assert history.trials
    assert 5 not in [trial.number for trial in history.trials]


@pytest.mark.slow
def test_an_interrupt_while_the_cluster_starts_leaves_no_process(tmp_path):
    with driver(INTERRUPTED, str(tmp_path), "hang") as process:
        assert wait_until(lambda: any("raylet" in command for command in left(process, set())))
        members = family(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert wait_until(lambda: not left(process, members), 5), left(process, members)
    assert "KeyboardInterrupt" in errors
    assert not FaultAt("hang", str(tmp_path)).attempts()


MEMORY = (
    PRELUDE
    + """
trial, = workloads.run("random", workloads.Score(60), RayExecutor(workers=1), 1)
print(trial.outcome.cause, "|", trial.outcome.message)
"""
)


def test_what_the_memory_monitor_ends_has_failed_for_memory():
    """Ray is told that the machine is full when a hundredth of its memory is in use."""
    with driver(
        MEMORY, RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100"
    ) as process:
        out, errors = process.communicate(timeout=120)
    assert out.startswith("memory |"), out + errors


def test_an_address_where_there_is_no_cluster_is_refused():
    code = PRELUDE + "RayExecutor(address='127.0.0.1:1').free"
    with driver(code) as process:
        _, errors = process.communicate(timeout=120)
    assert "ConfigError: address: no Ray cluster at '127.0.0.1:1'" in errors

"""The built-in executors hold the executor contract."""

from __future__ import annotations

from nas.execution.serial import Serial
from nas.testing import ExecutorContract


class TestSerial(ExecutorContract):
    def make(self):
        return Serial()

    def make_limited(self, time_limit_s):
        return Serial(time_limit_s=time_limit_s)

"""The built-in executors hold the executor contract."""

from __future__ import annotations

import pytest

from nas.execution.ray import RayExecutor
from nas.execution.serial import Serial
from nas.testing import ExecutorContract


class TestSerial(ExecutorContract):
    def make(self):
        return Serial()

    def make_limited(self, time_limit_s):
        return Serial(time_limit_s=time_limit_s)


@pytest.mark.usefixtures("local_ray")
class TestRay(ExecutorContract):
    most = 2

    def make(self):
        return RayExecutor(cpus=1)

    def make_limited(self, time_limit_s):
        return RayExecutor(cpus=1, time_limit_s=time_limit_s)

"""The searches of a sweep, several at a time: on a Ray cluster, or one by one in this process.

Who shares the cluster: a search whose own executor is serial is one job on one core (or
``Place.cpus`` of them) of any machine, and writes to its run folder on storage that all machines
share. Of a search whose executor is ``ray``, the loop runs on this machine, and its trials wherever
there is room: each such search gets an equal share of the places, unless it names its ``workers``.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nas.budget import Budget
from nas.components import create, describe, objective_from
from nas.errors import ConfigError, DataError
from nas.history import write_file
from nas.remote import url_of
from nas.sweep.files import Sweep, SweepSearch, held, is_done
from nas.sweep.following import Following
from nas.sweep.grid import Plan
from nas.sweep.one import TOKEN, attempt, run_in_worker, run_search
from nas.sweep.place import Place
from nas.sweep.resuming import begin

if TYPE_CHECKING:
    from nas.execution.ray_sweep import Ended, RayJobs

_LOOK_EVERY_S = 0.5
_MOST_LOSSES = 20


class Watcher(Protocol):
    """Is told of what happens."""

    def begin(self, sweep: Sweep, done: int) -> None: ...

    def started(self, one: SweepSearch, following: Following) -> None: ...

    def looked(self) -> None: ...

    def ended(self, one: SweepSearch, error: str | None) -> None: ...


def run_searches(plan: Plan, folder: Path, watcher: Watcher) -> dict[str, str]:
    """Runs the searches of a sweep that are not done yet; gives the errors by search.

    Whatever ends it (Ctrl-C, say), nothing runs on; and called again it goes on where it was.

    Args:
        folder: the sweep's. Made where it is not there.

    Raises:
        ResumeError: the folder holds another sweep, or another process runs this one.
        ConfigError: the folder is a run's or a URL; there is no such cluster, or it has no room
            for a search.
        DataError: a machine of the cluster does not see the folder.
    """
    if url_of(folder) is not None:
        raise ConfigError(
            f"{url_of(folder)}: a sweep's folder must be a path; machines that share it mount it"
        )
    folder = folder.absolute()
    with held(folder):
        begin(folder, plan.sweep)
        left = [one for one in plan.sweep.searches if not is_done(folder / one.folder, one.config)]
        watcher.begin(plan.sweep, len(plan.sweep.searches) - len(left))
        if not left:
            return {}
        if plan.place.name == "serial":
            return _one_by_one(folder, left, watcher)
        from nas.execution.ray_sweep import RayJobs

        jobs = RayJobs(plan.place.address, plan.place.code)
        try:
            return _OnRay(jobs, plan, folder, watcher).run(left)
        finally:
            jobs.close()


def _following(folder: Path, one: SweepSearch) -> Following:
    objectives = [
        objective_from(document, f"objectives[{index}]")
        for index, document in enumerate(one.config["objectives"])
    ]
    following = Following(folder / one.folder, objectives, Budget(**one.config["budget"]))
    following.look()
    return following


# -------------------------------------------------------------------------- in this process


def _one_by_one(folder: Path, left: list[SweepSearch], watcher: Watcher) -> dict[str, str]:
    errors: dict[str, str] = {}
    for one in left:
        run, following = folder / one.folder, _following(folder, one)
        watcher.started(one, following)

        def look(_: Any, following: Following = following) -> None:
            following.look()
            watcher.looked()

        def job(one: SweepSearch = one, run: Path = run, look: Any = look) -> None:
            run_search(run, one.config, one.config.get("executor", "serial"), look)

        error = attempt(run, job)
        if error is not None:
            errors[one.folder] = error
        watcher.ended(one, error)
    return errors


# ------------------------------------------------------------------------------ on a cluster


class _Started:
    """A search that runs.

    Attributes:
        trials: how many it had finished when its present attempt began.
        deaths: how often in a row its process died without a trial in between.
        losses: how often the machine did.
    """

    def __init__(self, one: SweepSearch, following: Following) -> None:
        self.one = one
        self.following = following
        self.trials = following.trials
        self.deaths = self.losses = 0

    def again(self, machine: bool, retries: int) -> bool:
        """Whether it is gone on with after its process died, or its machine."""
        if self.following.trials > self.trials:
            self.deaths = self.losses = 0
        self.trials = self.following.trials
        self.deaths += 1
        self.losses += machine
        # Machines are lost for no fault of the search; but one that exhausts them would end all.
        return self.deaths - self.losses <= retries and self.losses <= _MOST_LOSSES


class _OnRay:
    def __init__(self, jobs: RayJobs, plan: Plan, folder: Path, watcher: Watcher) -> None:
        self.jobs = jobs
        self.place: Place = plan.place
        self.parallel = plan.parallel
        self.folder = folder
        self.watcher = watcher
        self.token = secrets.token_hex(8)
        self.waiting: deque[SweepSearch] = deque()
        self.running: dict[str, _Started] = {}
        self.errors: dict[str, str] = {}

    def run(self, left: list[SweepSearch]) -> dict[str, str]:
        write_file(self.folder / TOKEN, self.token.encode())
        self.waiting.extend(left)
        for one in left:
            self.jobs.check(self._need(one))
        looked = 0.0
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self._room(self.waiting[0]):
                one = self.waiting.popleft()
                started = _Started(one, _following(self.folder, one))
                self.running[one.folder] = started
                self._start(started)
                self.watcher.started(one, started.following)
            for ended in self.jobs.wait(_LOOK_EVERY_S):
                self._hear(ended)
            if time.monotonic() - looked > _LOOK_EVERY_S:
                for started in self.running.values():
                    started.following.look()
                self.watcher.looked()
                looked = time.monotonic()
        return self.errors

    def _room(self, one: SweepSearch) -> int:
        """How many searches may run, if the next is this one."""
        # Never none: on a cluster that has lost its machines, a search waits for new ones.
        return self.parallel or max(1, self.jobs.places(self._need(one)))

    def _need(self, one: SweepSearch) -> Mapping[str, float]:
        """What a search takes of a machine, or each of its trials where those are tasks."""
        executor = _on_ray(one)
        if executor is None:
            return {"CPU": self.place.cpus, "GPU": self.place.gpus}
        memory = float(executor["memory_bytes"] or 0)
        own = executor["resources"] or {}
        return {"CPU": executor["cpus"], "GPU": executor["gpus"], "memory": memory, **own}

    def _start(self, started: _Started) -> None:
        """Starts a search, or goes on with it."""
        one = started.one
        need = self._need(one)
        executor = _on_ray(one)
        # Whatever lies in other processes and on other machines is found by these alone.
        where = (str(self.folder), self.token, one.folder, dict(one.config))
        if executor is None:
            own = one.config.get("executor", "serial")
            self.jobs.start(
                one.folder,
                run_in_worker,
                *where,
                own,
                cpus=self.place.cpus,
                gpus=self.place.gpus,
            )
            return
        places = max(1, self.jobs.places(need))
        rivals = min(len(self.running) + len(self.waiting), self.parallel or places)
        share = max(1, places // rivals)
        own = {**executor, "workers": executor["workers"] or share, "address": None}
        self.jobs.start_here(one.folder, run_in_worker, *where, own)

    def _hear(self, ended: Ended) -> None:
        from nas.execution.ray_sweep import JobLost

        started = self.running[ended.key]
        started.following.look()
        error = ended.result
        if isinstance(ended.error, DataError):
            raise ended.error
        if isinstance(ended.error, JobLost):
            if started.again(ended.error.machine, self.place.retries):
                self._start(started)
                return
            error = f"its process died {started.deaths} times in a row: {ended.error}"
        elif ended.error is not None:
            error = f"{type(ended.error).__name__}: {ended.error}"
        del self.running[ended.key]
        if error is not None:
            self.errors[ended.key] = error
        self.watcher.ended(started.one, error)


def _on_ray(one: SweepSearch) -> dict[str, Any] | None:
    """The description of a search's executor, all arguments filled in, if its trials are tasks."""
    executor = one.config.get("executor", "serial")
    name = executor if isinstance(executor, str) else executor.get("name")
    if name != "ray":
        return None
    described: dict[str, Any] = describe(create("executors", executor, "executor"))
    return described

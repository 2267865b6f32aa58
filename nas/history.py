"""The record of a search: every trial, the Pareto front, the best, and the way back into it."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import journal
from nas.budget import Cost
from nas.checkpoints import PART, Checkpoints
from nas.errors import JournalError, NasError, ResumeError, UnsupportedRequest, nearest
from nas.front import ParetoFront as ParetoFront
from nas.objective import Objective
from nas.remote import url_of
from nas.strategy import Strategy
from nas.trial import CHECKPOINT, Failed, Measured, Proposal, Trial

if TYPE_CHECKING:
    from nas.remote.mirror import Mirror

JOURNAL = "journal.jsonl"
SNAPSHOT = "strategy.pt"
ARTIFACTS = "trials"
_MAY_CHANGE = ("budget", "executor", "machine")


class History:
    """All trials of a run, in memory and, with a folder, in its journal.

    A folder that already holds a journal is read; a search over such a history continues it.
    Nothing is created on disk before the search begins.

    Args:
        folder: the run folder, or ``None`` to keep everything in memory. A URL
            (``s3://bucket/run``, whatever fsspec reaches) is kept through a working copy on
            this machine: see ``nas.remote``.
        snapshot_every_s: at most so often, and rarer where that takes long, the strategy's state
            is put beside the journal, so that resuming need not replay the whole run.

    Attributes:
        folder: the run folder or, of a run at a URL, its working copy here.
        place: where the run is, as a user names it: the folder or the URL.
        checkpoints: what trials may be continued from.

    Raises:
        JournalError: a line of the journal is damaged (the last, torn one excepted), or a part
            of it is missing at the URL.
        ConfigError: the URL cannot be reached.
    """

    def __init__(self, folder: str | Path | None = None, *, snapshot_every_s: float = 30.0) -> None:
        url = None if folder is None else url_of(folder)
        self._mirror: Mirror | None = None
        if url is not None:
            from nas.remote.mirror import Mirror

            self._mirror = Mirror(url)
            folder = self._mirror.folder
        self.folder = None if folder is None else Path(folder)
        self.place = url or str(self.folder)
        self.snapshot_every_s = snapshot_every_s
        self.header: dict[str, Any] | None = None
        self.trials: list[Trial] = []
        self.spent = Cost()
        self._steps: list[journal.Step] = []
        self._asked = 0
        self._by_number: dict[int, Trial] = {}
        self.checkpoints = Checkpoints(None if self.folder is None else self.folder / ARTIFACTS)
        self._driven: Strategy | None = None  # the strategy that has seen all steps
        self._writer: journal.JournalWriter | None = None
        self._plan_snapshot(0.0)
        self._read = journal.Reader((self.folder or Path()) / JOURNAL)
        if self.folder is not None and self._read.path.exists():
            self._load()

    def _load(self) -> None:
        path, events = self._read.path, iter(self._read)
        header = next(events, None)
        if header is None:
            return
        if header["event"] != "run" or header.get("format") != journal.FORMAT:
            raise JournalError(
                f"{path}: line 1 must describe a run in format {journal.FORMAT}, "
                f"got {header.get('event')!r} in format {header.get('format')!r}"
            )
        self.header = {key: value for key, value in header.items() if key != "event"}
        for step in journal.replayed(path, events):
            self._steps.append(step)
            if isinstance(step, Trial):
                self._remember(step)
            else:
                self._asked += len(step[1])

    def _remember(self, trial: Trial) -> None:
        self.trials.append(trial)
        self._by_number[trial.number] = trial
        self.spent += trial.cost

    # -------------------------------------------------------------------- writing

    def begin(self, header: Mapping[str, Any]) -> None:
        """Starts the run, or makes sure that it is the one being continued.

        Raises:
            ResumeError: the journal is of a run with another space, strategy, seed, evaluator
                or version; the message names what differs.
        """
        document = {"format": journal.FORMAT, **header}
        if self.header is not None:
            # How much to spend, and where, may change on the way; what is searched may not.
            fixed = [key for key in {**self.header, **document} if key not in _MAY_CHANGE]
            difference = _difference(
                {key: self.header[key] for key in fixed if key in self.header},
                {key: document[key] for key in fixed if key in document},
                "",
            )
            if difference:
                raise ResumeError(f"{self.place} holds another run: {difference}")
        if self.folder is None:
            self.header = document
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{self.folder} cannot be made: {error.strerror}") from error
        writer = journal.JournalWriter(self.folder / JOURNAL, self._read)
        if self._mirror is not None:
            try:
                self._mirror.begin(self._read.length)
            except BaseException:
                writer.close()
                raise
        self._writer = writer
        if self.header is None:
            writer.append({"event": "run", **document}, durable=True)
            self.header = document
        self.checkpoints.find()

    def asked(self, n: int, proposals: Sequence[Proposal]) -> None:
        """Records what the strategy proposed, before any of it is evaluated.

        Raises:
            UnsupportedRequest: the numbers of the proposals do not continue this history's.
        """
        for number, proposal in enumerate(proposals, start=self._asked):
            if proposal.number != number:
                raise UnsupportedRequest(
                    f"the strategy numbers a proposal {proposal.number} where {number} is next: "
                    "it counts them wrongly, or was not put where this history is"
                )
        if self._writer is not None:
            self._writer.append(journal.ask_event(n, proposals), durable=False)
            if self._mirror is not None:
                self._mirror.appended(self._writer.length)
        self._asked += len(proposals)
        self._steps.append((n, tuple(proposals)))

    def append(self, trial: Trial) -> Trial:
        """Puts a finished trial on disk, its artifacts first, and returns it without them.

        Without a folder it keeps its artifacts but for a checkpoint, which ``checkpoints`` hold.
        """
        trial = self.checkpoints.take(trial)
        if self._writer is not None and self.folder is not None:
            left_files = isinstance(trial.outcome, Measured) and bool(trial.outcome.artifacts)
            if isinstance(trial.outcome, Measured) and left_files:
                for name, content in trial.outcome.artifacts.items():
                    write_file(self.folder / ARTIFACTS / str(trial.number) / name, content)
                trial = replace(trial, outcome=replace(trial.outcome, artifacts={}))
            self._writer.append(journal.trial_event(trial), durable=True)
        self._steps.append(trial)
        self._remember(trial)
        if self._writer is not None and self._mirror is not None:
            self._mirror.appended(self._writer.length, trial.number if left_files else None)
        return trial

    def earlier(self, proposal: Proposal) -> Trial | None:
        """The trial that a proposal continues, with such of its artifacts as can be read.

        Raises:
            UnsupportedRequest: there is no such trial, it was not measured, or it is of another
                architecture.
        """
        if proposal.continues is None:
            return None
        trial = self._by_number.get(proposal.continues)
        if trial is None or not isinstance(trial.outcome, Measured) or trial.arch != proposal.arch:
            if trial is None:
                why = "is not finished"
            elif trial.arch != proposal.arch:
                why = f"is of {trial.arch}"
            else:
                why = "was not measured"
            raise UnsupportedRequest(
                f"proposal {proposal.number} of {proposal.arch} continues trial "
                f"{proposal.continues}, which {why}"
            )
        return self._with_artifacts(trial, trial.outcome)

    def parent(self, proposal: Proposal) -> Trial | None:
        """The trial that a proposal was made from, with such of its artifacts as can be read.

        ``None`` where it was made from none, or from one that was not measured.
        """
        trial = None if proposal.parent is None else self._by_number.get(proposal.parent)
        if trial is None or not isinstance(trial.outcome, Measured):
            return None
        return self._with_artifacts(trial, trial.outcome)

    def _with_artifacts(self, trial: Trial, outcome: Measured) -> Trial:
        artifacts = {**outcome.artifacts, **self.checkpoints.artifacts(trial.number)}
        return replace(trial, outcome=replace(outcome, artifacts=artifacts))

    def close(self) -> None:
        """Lets go of the journal, so that another process may resume the run.

        Raises:
            JournalError: the disk or the URL did not take all of it; the message says what.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        self._read = writer.read()
        try:
            if self._mirror is not None:
                self._mirror.close(writer.length)
        finally:
            writer.close()

    def write(self, name: str, content: bytes) -> None:
        """Puts a file into the run's folder, and at its URL if it has one: a picture, a report.

        Raises:
            JournalError: the disk or the URL does not take it.
        """
        if self.folder is not None:
            write_file(self.folder / name, content)
            if self._mirror is not None:
                self._mirror.put(name)

    # ------------------------------------------------------------------- resuming

    def replay(self, strategy: Strategy) -> list[Proposal]:
        """Puts a strategy where this run left it; returns what was proposed and not finished.

        A new strategy starts from the newest snapshot of its state and repeats what was asked and
        told since. One that this history drove here itself is where it has to be.

        Raises:
            ResumeError: the strategy proposes something else than the journal holds.
        """
        done = len(self._steps) if self._driven is strategy else self._restore(strategy)
        pending: dict[int, Proposal] = {}
        for index, step in enumerate(self._steps):
            if isinstance(step, Trial):
                pending.pop(step.number, None)
                if index >= done:
                    strategy.tell(step)
                continue
            n, proposals = step
            pending |= {proposal.number: proposal for proposal in proposals}
            if index >= done:
                again = list(strategy.ask(n))
                if [replace(p, spent=Cost()) for p in again] != [
                    replace(p, spent=Cost()) for p in proposals
                ]:
                    raise ResumeError(
                        f"{self.place}: the strategy now proposes {_brief(again)} where the "
                        f"journal holds {_brief(proposals)}: its code or its settings changed"
                    )
        self._driven = strategy
        return list(pending.values())

    def snapshot(self, strategy: Strategy, *, now: bool = False) -> None:
        """Saves the strategy's state beside the journal, if it is time to."""
        if self._writer is None or self.folder is None:
            return
        begun = time.monotonic()
        if not now and begun < self._next_snapshot:
            return
        import io

        import torch

        buffer = io.BytesIO()
        snapshot = {
            "steps": len(self._steps),
            "length": self._writer.length,
            "checksum": self._writer.crc,
            "state": strategy.state_dict(),
        }
        torch.save(snapshot, buffer)
        write_file(self.folder / SNAPSHOT, buffer.getvalue())
        self._plan_snapshot(time.monotonic() - begun)

    def _plan_snapshot(self, took: float) -> None:
        # A state may grow with the run; what is saved of it never takes more than a fiftieth.
        every = self.snapshot_every_s and max(self.snapshot_every_s, 50 * took)
        self._next_snapshot = time.monotonic() + every

    def _restore(self, strategy: Strategy) -> int:
        if self.folder is None or self._writer is None or not self._steps:
            return 0
        path = self.folder / SNAPSHOT
        if not path.exists():
            return 0
        import torch

        try:
            snapshot = torch.load(path, weights_only=True)
            steps, state = int(snapshot["steps"]), snapshot["state"]
            length, checksum = int(snapshot["length"]), snapshot["checksum"]
        except Exception as error:  # whatever a damaged file makes torch raise
            warnings.warn(
                f"{path} cannot be read ({type(error).__name__}); replaying the whole journal",
                stacklevel=2,
            )
            return 0
        if length > self._writer.length or self._writer.checksum(length) != checksum:
            return 0  # of a journal that was cut or replaced behind the snapshot's back
        strategy.load_state_dict(state)
        return steps

    # -------------------------------------------------------------------- reading

    def front(self, objectives: Sequence[Objective]) -> list[Trial]:
        """The Pareto front under these objectives and their limits, best first by the first."""
        front = ParetoFront(objectives)
        for trial in self.trials:
            front.add(trial)
        return front.trials()

    def best(self, objective: Objective | str, among: Sequence[Trial] | None = None) -> Trial:
        """The measured trial best in one objective, the earliest of equals.

        A metric's name means to maximise it unless the run's objectives say otherwise.

        Raises:
            NasError: no trial was measured, or none has that metric.
        """
        if isinstance(objective, str):
            objective = self._objective(objective)
        best: Trial | None = None
        metrics: dict[str, None] = {}
        for trial in self.trials if among is None else among:
            metrics |= dict.fromkeys(trial.values)
            value = trial.values.get(objective.metric)
            if value is None:
                continue
            if best is None or objective.better(value, best.values[objective.metric]):
                best = trial
        if best is None:
            if not metrics:
                raise NasError(f"no trial of {len(self.trials)} was measured, so none is best")
            raise NasError(
                f"no trial measured {objective.metric!r}: {nearest(objective.metric, metrics)}"
            )
        return best

    def _objective(self, metric: str) -> Objective:
        for document in objectives_of(self.header or {}):
            for direction in ("maximize", "minimize"):
                if document.get(direction) == metric:
                    return Objective(metric, direction)
        return Objective(metric, "maximize")

    def trial(self, number: int) -> Trial:
        """The finished trial of that number; raises ``NasError`` if there is none."""
        if number in self._by_number:
            return self._by_number[number]
        raise NasError(f"there is no finished trial {number}; {len(self.trials)} are finished")

    def artifact(self, trial: Trial, name: str) -> bytes | None:
        """A file that belongs to a trial, or ``None``."""
        if isinstance(trial.outcome, Measured) and name in trial.outcome.artifacts:
            return trial.outcome.artifacts[name]
        if self.folder is None:
            return self.checkpoints.held(trial.number) if name == CHECKPOINT else None
        path = self.folder / ARTIFACTS / str(trial.number) / name
        if self._mirror is not None:
            self._mirror.fetch(f"{ARTIFACTS}/{trial.number}/{name}")
        return path.read_bytes() if path.exists() else None

    def failures(self) -> list[Trial]:
        """The trials that failed, in order."""
        return [trial for trial in self.trials if isinstance(trial.outcome, Failed)]


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; raises ``JournalError`` when the disk does not take it."""
    temporary = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise JournalError(
            f"{path}: cannot be written: {error.strerror}. All trials finished until now are on "
            "disk; make room and resume"
        ) from error


def objectives_of(header: Mapping[str, Any]) -> list[Any]:
    """The descriptions of the objectives in a journal's header; none where it has none."""
    strategy = header.get("strategy") or {}
    while "objectives" not in strategy and isinstance(strategy.get("strategy"), Mapping):
        strategy = strategy["strategy"]  # a layer around the strategy that has them
    return list(strategy.get("objectives") or [])


def _brief(proposals: Sequence[Proposal]) -> str:
    return ", ".join(f"#{proposal.number} {proposal.arch}" for proposal in proposals) or "nothing"


def _difference(old: Any, new: Any, where: str) -> str:
    """The first place in which two JSON documents differ, in words; empty if they do not."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in new or key not in old:
                side = "the journal" if key in old else "this search"
                return f"{place} is only in {side}"
            found = _difference(old[key], new[key], place)
            if found:
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            found = _difference(one, other, f"{where}[{index}]")
            if found:
                return found
        return ""
    return "" if old == new else f"{where} is {old!r} in the journal and {new!r} in this search"

"""Who decides, as the scheduler sees it: a process that takes reports and gives plans.

The policy and gRPC run beside the scheduler and never in it: a thread of theirs would hold the GIL
when the scheduler needs it, and a step would wait for them.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from laps.engine.types import Plan, PolicySpec, Snapshot, StepReport
from laps.wire import WorkerIdentity
from laps_sglang.lengths.prompts import PromptLog
from laps_sglang.pipe import Bell, Pipe

logger = logging.getLogger(__name__)

SnapshotSource = Callable[[], Snapshot]
"""Gives what the scheduler holds now; called in the scheduler's thread only."""

RESTART_S = 2.0
"""Shortest time between two starts of a planner process that dies; doubles with each start, ..."""
RESTART_MAX_S = 60.0
"""... up to this, and is the shortest again after a process that lived for as long."""
NOBODY = "nobody"
"""Who decides until the planner process has made a first plan: the last plan stays."""
SILENCE_S = 60.0
"""Longest time without a plan for a report, before a planner process that hangs is replaced."""


class Planner(Protocol):
    """Takes reports, gives plans, never blocks; in the scheduler's thread of the entry rank."""

    def submit(self, report: StepReport | None) -> None:
        """Take the newest report; called at every iteration, with None if nothing happened."""

    def newest(self) -> Plan:
        """Return the plan to use now; the very same one as long as its order stays."""

    @property
    def seq(self) -> int:
        """Number of the plan in force, for reports; 0 if no service made it."""

    def describe(self) -> dict[str, object]:
        """Return the planner's state for `/server_info`."""

    def close(self) -> None:
        """Let go of processes and connections."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a planner process is told first."""

    identity: WorkerIdentity
    policy: PolicySpec
    """The policy of its own engine until a service says otherwise."""
    endpoint: str | None = None
    """host:port of the service; None if its own engine decides."""
    length_model: Path | None = None
    """The file in which what is learnt of lengths is kept; None if nothing is to be learnt."""
    saves_length_model: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """From the planner process: a stream or an engine begins, and needs all there is."""


class PlannerProcess:
    """The scheduler's end of a planner process (`laps_sglang.decider`); one that dies is replaced.

    The worker is the truth: a new process is given a snapshot, and nothing has to be remembered.
    """

    def __init__(
        self, setup: Setup, snapshot: SnapshotSource, prompts: PromptLog | None = None
    ) -> None:
        self._setup = setup
        self._snapshot = snapshot
        self._prompts = prompts
        self._plan = Plan()
        self._description: dict[str, object] = {"decided_by": NOBODY, "policy": setup.policy.name}
        self._restarts = -1
        self._restart_s = RESTART_S
        self._start()

    def _start(self) -> None:
        """Start a process. Raises OSError if the machine has no room for one more."""
        self._started = time.monotonic()
        with ExitStack() as undo:
            ours, its = socket.socketpair()
            undo.callback(ours.close)
            with its, open(os.memfd_create("laps-bell"), "r+b", buffering=0) as memory:
                for end in (ours, its):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                fds = [its.fileno(), memory.fileno()]
                command = [sys.executable, "-m", "laps_sglang.decider", *map(str, fds)]
                self._process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
                self._bell = Bell(memory.fileno())
            undo.pop_all()
        self._taken = 0
        self._restarts += 1
        self._wants_snapshot = False
        self._gone = False
        self._awaited: tuple[int, float] | None = None
        self._pipe = Pipe(ours)
        try:
            self._pipe.send(self._setup)
        except EOFError:
            self._lost("died")

    @property
    def pid(self) -> int:
        """Process id of the planner process."""
        return self._process.pid

    @property
    def seq(self) -> int:
        # One that has been sent counts from when it has been taken in.
        return self._bell.seq if self._bell.sent == self._taken else self._plan.seq

    @property
    def step(self) -> int:
        """The newest report that the plan has seen."""
        return self._bell.step

    def submit(self, report: StepReport | None) -> None:
        if self._gone or (report is None and not self._wants_snapshot and not self._pipe.unsent):
            return
        try:
            if report is not None:
                if self._prompts is not None and (told := self._prompts.take()) is not None:
                    self._pipe.send(told)
                self._pipe.send(tuple(report))
            if self._wants_snapshot:
                self._wants_snapshot = False
                self._pipe.send(self._snapshot())
            self._pipe.flush()
        except EOFError:
            self._lost("died")
            return
        if report is not None and self._silent(report):
            self._lost("hangs")

    def _silent(self, report: StepReport) -> bool:
        """Return whether a report has waited for its plan for too long; `report` is the newest."""
        if self._awaited is None or self._bell.step >= self._awaited[0]:
            self._awaited = report.step, report.time_s
        return report.time_s - self._awaited[1] > SILENCE_S

    def newest(self) -> Plan:
        if self._gone:
            if time.monotonic() - self._started >= self._restart_s:
                self._restart()
        elif self._bell.sent != self._taken:
            self._receive()
        return self._plan

    def _restart(self) -> None:
        self._restart_s = min(2 * self._restart_s, RESTART_MAX_S)
        try:
            self._start()
        except OSError as error:
            logger.error("laps: cannot start a planner process, will try again: %s", error)

    def _receive(self) -> None:
        try:
            values = self._pipe.receive()
        except EOFError:
            self._lost("died")
            return
        self._taken += len(values)
        for value in values:
            if isinstance(value, tuple):
                self._plan = Plan(*value)
            elif isinstance(value, SnapshotWanted):
                self._wants_snapshot = True
            else:
                self._description.update(value)

    def _lost(self, why: str) -> None:
        logger.error("laps: the planner process %s: the last plan stays until a new one is up", why)
        self._gone = True
        if time.monotonic() - self._started >= RESTART_MAX_S:
            self._restart_s = RESTART_S
        self._description["decided_by"] = NOBODY
        self._stop()

    def _stop(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def describe(self) -> dict[str, object]:
        endpoint = self._setup.endpoint
        mode = (
            {"mode": "embedded"} if endpoint is None else {"mode": "service", "endpoint": endpoint}
        )
        return {**mode, **self._description, "planner_restarts": self._restarts}

    def close(self) -> None:
        if not self._gone:
            self._gone = True
            self._stop()

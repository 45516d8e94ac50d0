"""The planner process: it never makes the scheduler wait, and never outlives it."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import psutil
import pytest

from laps.engine.types import Arrival, Capacity, Plan, PolicySpec, Snapshot, StepReport
from laps.wire import WorkerIdentity
from laps_sglang import planner as planner_module
from laps_sglang.planner import (
    NOBODY,
    RESTART_MAX_S,
    RESTART_S,
    SILENCE_S,
    PlannerProcess,
    Setup,
)

PATIENCE_S = 120.0
"""Longest wait for something that must come; a busy machine may be very slow."""
SETUP = Setup(WorkerIdentity("w", 1), PolicySpec("fcfs"))


class FakeClock:
    """The planner's `time`, put forward by the test alone."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(planner_module, "time", clock)
    return clock


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def snapshot_of(requests: int) -> Snapshot:
    arrivals = tuple(Arrival(h, f"r{h}", 0.0, 10, 100) for h in range(1, requests + 1))
    return Snapshot(0, 0.0, Capacity(4, 8), arrivals)


def planned(planner: PlannerProcess) -> bool:
    planner.submit(None)
    return bool(planner.newest().order)


@pytest.fixture
def planner() -> Iterator[PlannerProcess]:
    process = PlannerProcess(SETUP, lambda: snapshot_of(20))
    yield process
    process.close()


def test_it_plans_from_a_snapshot_and_reports(planner: PlannerProcess) -> None:
    assert planner.describe()["decided_by"] == NOBODY
    assert until(lambda: planned(planner))
    assert planner.newest().order == tuple(range(1, 13))  # as many as a plan names
    assert planner.describe()["decided_by"] == "embedded engine"
    planner.submit(StepReport(1, 1.0, finished=(1, 2)))
    assert until(lambda: planner.newest().order[0] == 3)
    assert planner.step == 1


def test_a_plan_stays_the_same_object_while_its_order_stays(planner: PlannerProcess) -> None:
    assert until(lambda: planned(planner))
    before = planner.newest()
    planner.submit(StepReport(1, 1.0, prefilled=(1,)))
    assert until(lambda: planner.step == 1)
    assert planner.newest() is before


def test_a_snapshot_larger_than_the_sockets_goes_over_in_pieces() -> None:
    planner = PlannerProcess(SETUP, lambda: snapshot_of(100_000))
    try:
        assert until(lambda: planned(planner))
        planner.submit(StepReport(1, 1.0, finished=(1,)))
        assert until(lambda: planner.newest().order[:1] == (2,) and planner.step == 1)
    finally:
        planner.close()


def test_one_that_hangs_never_makes_the_scheduler_wait(
    clock: FakeClock, planner: PlannerProcess
) -> None:
    assert until(lambda: planned(planner))
    plan, hung = planner.newest(), planner.pid
    os.kill(hung, signal.SIGSTOP)
    clock.now = 2 * RESTART_S
    many = snapshot_of(1000).requests
    for step in range(1, 100):
        planner.submit(StepReport(step, SILENCE_S * step / 99, arrived=many))
    assert planner.newest() == plan
    assert planner.pid == hung
    planner.submit(StepReport(100, SILENCE_S * 1.1))
    assert planner.newest() == plan  # and the next one starts
    assert planner.pid != hung
    assert until(lambda: planned(planner) and planner.describe()["decided_by"] != NOBODY)


def test_one_that_rested_does_not_hang(planner: PlannerProcess) -> None:
    assert until(lambda: planned(planner))
    before = planner.pid
    for step in range(1, 5):
        planner.submit(StepReport(step, 2 * SILENCE_S * step))
        assert until(lambda step=step: planner.step == step)  # type: ignore[misc]
    assert planner.pid == before
    assert planner.describe()["decided_by"] != NOBODY


def no_room(*args: Any, **kw: Any) -> None:
    raise OSError(errno.EAGAIN, "no room for a process")


def dead_at_once(command: Any, start: Any = subprocess.Popen, **kw: Any) -> Any:
    process = start([sys.executable, "-c", ""], **kw)
    process.wait()
    return process


@pytest.mark.parametrize("failing", [no_room, dead_at_once])
def test_a_start_that_fails_is_tried_again(
    clock: FakeClock,
    planner: PlannerProcess,
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[..., Any],
) -> None:
    assert until(lambda: planned(planner))
    plan, files = planner.newest(), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", failing)
        os.kill(planner.pid, signal.SIGKILL)
        steps = count(1)
        assert until(lambda: _lost(planner, next(steps)))
        for _ in range(10):
            clock.now += 2 * RESTART_MAX_S
            assert planner.newest() == plan
            assert planner.describe()["decided_by"] == NOBODY
        assert len(os.listdir("/proc/self/fd")) <= files
    clock.now += 2 * RESTART_MAX_S
    assert until(lambda: planned(planner) and planner.describe()["decided_by"] != NOBODY)


def _lost(planner: PlannerProcess, step: int) -> bool:
    planner.submit(StepReport(step, 1.0))
    return planner.describe()["decided_by"] == NOBODY


def test_one_that_dies_again_and_again_is_started_ever_more_rarely(
    clock: FakeClock, planner: PlannerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []

    def dying(command: Any, **kw: Any) -> Any:
        starts.append(clock.now)
        return dead_at_once(command, **kw)

    def pauses(span_s: float) -> list[float]:
        """Kill it, and return the times between starts in the next `span_s` seconds."""
        assert until(lambda: planned(planner) and planner.describe()["decided_by"] != NOBODY)
        starts[:] = [clock.now]
        os.kill(planner.pid, signal.SIGKILL)
        steps = count(1)
        assert until(lambda: _lost(planner, next(steps)))
        for _ in range(int(span_s)):
            clock.now += 1.0
            planner.newest()
        return [b - a for a, b in itertools.pairwise(starts)]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", dying)
        assert pauses(300.0) == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    clock.now += RESTART_MAX_S
    planner.newest()  # starts one
    clock.now += RESTART_MAX_S  # that lives
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", dying)
        assert pauses(30.0)[1:] == [4.0, 8.0, 16.0]


def test_it_ends_with_a_scheduler_that_is_killed() -> None:
    code = """
import time
from laps.engine.types import Capacity, PolicySpec, Snapshot
from laps.wire import WorkerIdentity
from laps_sglang.planner import PlannerProcess, Setup

setup = Setup(WorkerIdentity("w", 1), PolicySpec("fcfs"))
planner = PlannerProcess(setup, lambda: Snapshot(0, 0.0, Capacity(4, 8)))
print(planner.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as scheduler:
        assert scheduler.stdout is not None
        pid = int(scheduler.stdout.readline())
        scheduler.kill()
    assert until(lambda: _has_ended(pid))


def _has_ended(pid: int) -> bool:
    """Whether it is gone, or a zombie whose status nobody has asked for."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_an_empty_plan_is_in_force_before_the_first(planner: PlannerProcess) -> None:
    assert planner.newest() == Plan()

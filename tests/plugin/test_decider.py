"""What the planner process tells its scheduler, and what it need not tell."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from laps.engine.types import Arrival, Capacity, Handle, Plan, PolicySpec, Snapshot, StepReport
from laps.wire import WorkerIdentity
from laps_sglang.decider import Decider, serve
from laps_sglang.pipe import Bell, Pipe
from laps_sglang.planner import Setup

SETUP = Setup(WorkerIdentity("w", 1), PolicySpec("fcfs"))


def fresh_bell() -> Bell:
    with open(os.memfd_create("bell"), "r+b", buffering=0) as memory:
        return Bell(memory.fileno())


def snapshot_of(requests: int, max_running: int) -> Snapshot:
    arrivals = tuple(Arrival(h, f"r{h}", 0.0, 10, 100) for h in range(1, requests + 1))
    return Snapshot(0, 0.0, Capacity(max_running, 2 * requests), arrivals)


class FakeEngine:
    """Plans the order that the test puts in."""

    def __init__(self, *order: Handle) -> None:
        self.order = order
        self.step = 0

    def observe(self, report: StepReport) -> None:
        self.step = report.step

    def plan(self) -> Plan:
        return Plan(self.step, self.step, self.order, 4)


def test_only_an_order_among_those_that_run_need_not_be_told() -> None:
    sent: list[Any] = []
    bell = fresh_bell()
    decider = Decider(SETUP, bell, sent.append)
    decider.take(snapshot_of(4, max_running=2))
    engine: Any = FakeEngine(1, 2, 3, 4)
    decider._engine = engine

    def told(*order: Handle, **happened: Any) -> bool:
        """Whether the scheduler is told of `order` after a report of what happened."""
        engine.order = order
        sent.clear()
        decider.take(tuple(StepReport(engine.step + 1, 0.0, **happened)))
        assert bell.step == engine.step
        return [value[2] for value in sent if isinstance(value, tuple)] == [order]

    assert not told(1, 2, 3, 4, decoded=(1, 2))
    assert not told(2, 1, 3, 4, decoded=(1, 2))
    assert told(2, 1, 4, 3, decoded=(1, 2))  # who comes next
    assert told(2, 4, 1, 3, decoded=(1, 2))  # who runs
    assert told(4, 2, 1, 3, decoded=(1, 2))  # 4 is yet to be admitted or resumed
    assert not told(2, 4, 1, 3, decoded=(2, 4))
    assert told(2, 4, 1, 3, requeued=(2, 4))  # retracted: they are admitted in this order


def test_a_plan_larger_than_the_sockets_goes_out_whole() -> None:
    ours, its = socket.socketpair()
    its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    scheduler, requests = Pipe(ours), 10_000
    decider = threading.Thread(target=serve, args=(Pipe(its), fresh_bell()))
    decider.start()
    try:
        scheduler.send(SETUP)
        scheduler.send(snapshot_of(requests, max_running=requests))
        received: list[Any] = []
        deadline = time.monotonic() + 120.0
        while not any(isinstance(value, tuple) for value in received):
            assert time.monotonic() < deadline, "the rest waits for the next value"
            scheduler.flush()
            received += scheduler.receive()
            time.sleep(0.001)
        plan = next(value for value in received if isinstance(value, tuple))
        assert plan[2] == tuple(range(1, requests + 1))
    finally:
        scheduler.close()
        decider.join()

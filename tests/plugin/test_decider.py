"""What the planner process tells its scheduler, and what it need not tell."""

from __future__ import annotations

import os
from typing import Any

from laps.engine.types import Arrival, Capacity, Handle, Plan, PolicySpec, Snapshot, StepReport
from laps.wire import WorkerIdentity
from laps_sglang.decider import Decider
from laps_sglang.pipe import Bell
from laps_sglang.planner import Setup


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
    with open(os.memfd_create("bell"), "r+b", buffering=0) as memory:
        bell = Bell(memory.fileno())
    decider = Decider(Setup(WorkerIdentity("w", 1), PolicySpec("fcfs")), bell, sent.append)
    arrivals = tuple(Arrival(handle, f"r{handle}", 0.0, 10, 100) for handle in range(1, 5))
    decider.take(Snapshot(0, 0.0, Capacity(2, 8), arrivals))
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

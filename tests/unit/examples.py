"""Requests and engines that tests begin with."""

from __future__ import annotations

from laps.engine.engine import Engine
from laps.engine.types import (
    Arrival,
    Capacity,
    PolicySpec,
    Snapshot,
    StepReport,
)

EMPTY = Snapshot(step=0, time_s=100.0, capacity=Capacity(max_running=2, max_resident=4))


def arrival(handle: int, **changes: object) -> Arrival:
    known = {"rid": f"r{handle}", "arrival_s": 100.0, "prompt_tokens": 7, "max_new_tokens": 64}
    return Arrival(handle=handle, **(known | changes))  # type: ignore[arg-type]


def engine_with(*handles: int, policy: str = "laps-sd") -> Engine:
    """Return an engine whose requests have had their prefill and one round of 2 tokens."""
    engine = Engine(EMPTY, PolicySpec(policy))
    engine.observe(
        StepReport(
            step=1,
            time_s=101.0,
            arrived=tuple(map(arrival, handles)),
            prefilled=handles,
            decoded=handles,
            committed=(2,) * len(handles),
            drafts=3,
            round_s=0.05,
        )
    )
    return engine

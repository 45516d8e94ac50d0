"""Static priority: what SGLang does with `--enable-priority-scheduling`, preemptive throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.policies.base import OneQueue


@dataclass(frozen=True)
class Priority(OneQueue):
    """The client's priority, then order of arrival (SGLang's `_sort_by_priority_and_fcfs`).

    SGLang preempts only while it admits, only once all slots are taken, and only for a difference
    above a threshold (10); the victim loses its KV cache. Here any higher priority goes first at
    the next round, and what gives way is paused in place.
    """

    name: ClassVar[str] = "priority"
    queues: ClassVar[tuple[str, ...]] = ("priority",)
    key_parts: ClassVar[tuple[str, ...]] = ("-priority", "arrival_s", "handle")
    rule: ClassVar[str] = "highest priority first"

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by priority."""
        # 1. Higher priority.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        return (-request.hints.priority, request.arrival_s, request.handle)

"""First come, first served: what SGLang does without this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.policies.base import OneQueue


@dataclass(frozen=True)
class Fcfs(OneQueue):
    """Order of arrival.

    Nothing that happens to a request changes its key, so whatever runs goes before whatever came
    later, and nothing is paused for a newcomer. A request is paused only for an *older* one that
    comes back: one that lost its KV cache under memory pressure and was prefilled again, or one
    whose prefill took longer than that of a later request. It needs no starvation bound: the
    requests before another one only ever get fewer.
    """

    name: ClassVar[str] = "fcfs"
    queues: ClassVar[tuple[str, ...]] = ("arrival",)
    key_parts: ClassVar[tuple[str, ...]] = ("arrival_s", "handle")
    rule: ClassVar[str] = "earliest arrival first"

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place in the order of arrival."""
        # 1. Earlier arrival.
        # 2. Smaller handle.
        return (request.arrival_s, request.handle)

"""Shortest job first by predicted length, without preemption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.policies.base import OneQueue


@dataclass(frozen=True)
class Sjf(OneQueue):
    """Shortest predicted output first; what has begun goes on (SSJF, Qiu et al. 2024).

    A request has begun with its first token, which its prefill brings. There are never more of
    these than run at a time, unless another policy left them behind or some lost their KV cache
    and come back: then the earlier ones go first.
    """

    name: ClassVar[str] = "sjf"
    queues: ClassVar[tuple[str, ...]] = ("predicted length",)
    key_parts: ClassVar[tuple[str, ...]] = ("tokens if not begun", "arrival_s", "handle")
    rule: ClassVar[str] = "what has begun, then shortest predicted output, first"

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by predicted length."""
        # 1. Begun; of the others, fewer predicted tokens.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        tokens = 0.0 if request.output_tokens else float(request.predicted_tokens)
        return (tokens, request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return whether it has not begun."""
        return not request.output_tokens

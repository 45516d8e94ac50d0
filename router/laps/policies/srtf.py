"""Shortest remaining output first, with preemption: the order of TRAIL and ELIS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.policies.base import OneQueue


@dataclass(frozen=True)
class Srtf(OneQueue):
    """Fewest predicted tokens still to come first (TRAIL, Shahout et al. 2025; ELIS, 2025).

    Blind to acceptance: of two requests with as many tokens to come, the one that gets four a
    round is done first, and this order does not know it. TRAIL predicts anew from the model's
    hidden states and lets no request be preempted near its end, ELIS decides every 50 tokens; here
    the prediction is the engine's own, and the order is made anew at every round.
    """

    name: ClassVar[str] = "srtf"
    queues: ClassVar[tuple[str, ...]] = ("remaining length",)
    key_parts: ClassVar[tuple[str, ...]] = ("tokens left", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest predicted tokens left first"

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by remaining length."""
        # 1. Fewer predicted tokens left.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        return (float(request.remaining_tokens), request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return True: every key is of a prediction."""
        return True

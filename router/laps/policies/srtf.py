"""Shortest remaining output first, with preemption: the order of TRAIL and ELIS."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from laps.engine.table import Request
from laps.policies.base import RECOMPUTE, OneQueue


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
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

    recompute: Annotated[float, Field(ge=0.0)] = RECOMPUTE
    """Rounds that a prefill of 1,000 tokens takes, for who would be demoted."""

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by remaining length."""
        # 1. Fewer predicted tokens left.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        return (float(request.remaining_tokens), request.arrival_s, request.handle)

    def key_of_resident(self, request: Request, cost: float) -> tuple[float, ...]:
        """Return its place with as many tokens less as it gets in `cost` rounds."""
        tokens = cost * max(request.acceptance.accept_length, 1.0)
        return (request.remaining_tokens - tokens, request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return True: every key is of a prediction."""
        return True

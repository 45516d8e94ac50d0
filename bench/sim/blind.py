"""The best form of LAPS-SD without what makes it one: to see what knowing acceptance is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.engine.types import Phase
from laps.policies.base import OneQueue
from laps.policies.laps_sd_plus import LapsSdPlus

SIGHTED = LapsSdPlus()
"""What it is held against."""


@dataclass(frozen=True)
class Blind(OneQueue):
    """`laps-sd+` by tokens left instead of rounds left, all else equal.

    It does not count what demotions cost: for workers with memory to spare.
    """

    name: ClassVar[str] = "laps-sd+ blind"
    queues: ClassVar[tuple[str, ...]] = ("tokens left",)
    key_parts: ClassVar[tuple[str, ...]] = ("log tokens left + lateness", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest tokens left, less for those that came earlier, first"
    weighs_hints: ClassVar[bool] = True

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by tokens left and age."""
        # 1. Smaller logarithm of the expected tokens left (of one that runs, less the margin) plus
        #    the turnover of requests before it came, over the patience.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        tokens = float(request.remaining_tokens)
        if request.phase is Phase.RUNNING:
            tokens *= 1.0 - SIGHTED.margin
        place = math.log(tokens) + request.came_after / SIGHTED.patience
        return (place, request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return True: every key is of a prediction."""
        return True

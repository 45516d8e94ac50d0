"""LAPS-SD+: fewest rounds left, of which hints are but evidence; and who has waited goes ahead."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from laps.engine.table import Request
from laps.engine.types import Phase
from laps.policies.base import RECOMPUTE, OneQueue


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class LapsSdPlus(OneQueue):
    """Fewest verify rounds left, by the posterior mean of the length, on a logarithmic scale.

    LAPS-SD without its unperceived phase: before a request has shown anything, its length is told
    by its hint and by what finished (`laps.engine.hinted`), its acceptance by those that left
    (`laps.engine.prior`). On the logarithmic scale a request moves ahead at a constant pace while
    it waits (for a known tail of sizes this is the boost of Yu and Scully 2024, arXiv 2404.08826).
    All move alike, so that the order of two that rest never changes, and none needs a clock.

    Age goes by requests that left the worker, not by seconds, so that one `patience` suits every
    size of batch and of model. Each counts by the share of the live ones that could run then: in a
    backlog, where the order matters most, age is slow and does not become the order.
    """

    name: ClassVar[str] = "laps-sd+"
    queues: ClassVar[tuple[str, ...]] = ("rounds left",)
    key_parts: ClassVar[tuple[str, ...]] = ("log rounds left + lateness", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest rounds left, less for those that came earlier, first"
    weighs_hints: ClassVar[bool] = True

    patience: Annotated[float, Field(gt=0.0)] = 100.0
    """Requests that leave (no backlog) until one that is e times as long goes before a newcomer."""
    margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share by which another one's rounds must be fewer than those of a request that runs."""
    recompute: Annotated[float, Field(ge=0.0)] = RECOMPUTE
    """Rounds that a prefill of 1,000 tokens takes, for who would be demoted."""

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by rounds left and age."""
        # 1. Smaller logarithm of the expected rounds left (of one that runs, less the margin) plus
        #    the turnover of requests before it came, over the patience.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        rounds = request.remaining_rounds
        if request.phase is Phase.RUNNING:
            rounds *= 1.0 - self.margin
        place = math.log(rounds) + request.came_after / self.patience
        return (place, request.arrival_s, request.handle)

    def key_of_resident(self, request: Request, cost: float) -> tuple[float, ...]:
        """Return its place with `cost` rounds less, but a round at least if it had as many."""
        rounds = request.remaining_rounds
        if request.phase is Phase.RUNNING:
            rounds *= 1.0 - self.margin
        rounds = max(rounds - cost, min(rounds, 1.0))
        place = math.log(rounds) + request.came_after / self.patience
        return (place, request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return True: every key is of a prediction."""
        return True

"""The clairvoyant policy: what no scheduler can know, as the limit for those that cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laps.engine.table import Request
from laps.policies.base import OneQueue
from sim.workload import Ints


@dataclass(frozen=True)
class Oracle(OneQueue):
    """Shortest remaining processing time, with the true number of verify rounds that are left.

    All requests of a round take the same time, so fewest rounds left is least time left. Optimal
    for the mean on one server (Schrage 1968); with several running at once it is the usual yard-
    stick, not a proven limit.
    """

    rounds: Ints
    """Rounds that each request takes, by handle less 1."""

    name: ClassVar[str] = "oracle"
    queues: ClassVar[tuple[str, ...]] = ("rounds left",)
    key_parts: ClassVar[tuple[str, ...]] = ("rounds left", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest rounds left first"

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by rounds left."""
        # 1. Fewer rounds left.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        left = int(self.rounds[request.handle - 1]) - request.rounds
        return (left, request.arrival_s, request.handle)

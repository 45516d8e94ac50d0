"""Least attained service: the order that needs to know nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from laps.engine.table import Request
from laps.policies.base import OneQueue


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class Las(OneQueue):
    """Fewest verify rounds had first, in whole quanta (foreground-background, Kleinrock 1976).

    By single rounds all requests would take turns, each paused after every round of its own.
    """

    name: ClassVar[str] = "las"
    queues: ClassVar[tuple[str, ...]] = ("attained service",)
    key_parts: ClassVar[tuple[str, ...]] = ("rounds", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest rounds got first"

    quantum: Annotated[int, Field(ge=1)] = 32
    """Rounds that a request runs before it gives way to those that had fewer."""

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by attained service."""
        # 1. Fewer whole quanta had.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        rounds = float(request.rounds // self.quantum * self.quantum)
        return (rounds, request.arrival_s, request.handle)

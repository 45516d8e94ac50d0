"""Skip-join multi-level feedback queues: FastServe."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from laps.engine.acceptance import StabilityTest
from laps.engine.table import Request


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class Mlfq:
    """FastServe (Wu et al. 2023): join by prefill cost, sink with each quantum used up.

    FastServe counts milliseconds: a base quantum of 10, doubled from level to level. Here a unit is
    a verify round, which takes about that long, and a prefill costs as many as its prompt holds
    `prefill_tokens`. FastServe lifts what has not run for 3 s to the top level, with its count
    begun anew; here it goes before all queues for `boost_rounds`, about the sum of the first four
    quanta, and then back to its own. Inside a level the earlier *arrival* goes first.
    """

    name: ClassVar[str] = "mlfq"
    key_parts: ClassVar[tuple[str, ...]] = ("arrival_s", "handle")
    rule: ClassVar[str] = "highest level, then earliest arrival, first"
    weighs_hints: ClassVar[bool] = False
    perceives: ClassVar[bool] = False
    stability: ClassVar[StabilityTest] = StabilityTest()

    quantum: Annotated[int, Field(ge=1)] = 1
    """Rounds that a request gets in level 0."""
    ratio: Annotated[float, Field(ge=1.0, le=1000.0)] = 2.0
    """Quantum of a level over that of the level before."""
    levels: Annotated[int, Field(ge=1, le=32)] = 8
    """Number of queues; the last one has no end."""
    prefill_tokens: Annotated[int, Field(ge=1)] = 512
    """Prompt tokens whose prefill takes as long as a verify round."""
    max_wait_s: Annotated[float, Field(ge=0.0)] = 3.0
    """Seconds without a round after which a request is starving; 0: no bound."""
    boost_rounds: Annotated[int, Field(ge=1)] = 16
    """Rounds that a starving request runs before all others."""

    @property
    def queues(self) -> tuple[str, ...]:
        """Return the names of the levels."""
        return tuple(f"level {level}" for level in range(self.levels))

    def queue(self, request: Request) -> int:
        """Return the request's level: where its prefill fits in, or as far down as it has sunk."""
        prefill = request.prompt_tokens / self.prefill_tokens
        quantum, level, last = float(self.quantum), 0, self.levels - 1
        while level < last and prefill > quantum:
            quantum *= self.ratio
            level += 1
        attained = request.rounds + (prefill if request.output_tokens else 0.0)
        while level < last and attained >= quantum:
            attained -= quantum
            quantum *= self.ratio
            level += 1
        return level

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place in its level."""
        # 1. Earlier arrival.
        # 2. Smaller handle.
        return (request.arrival_s, request.handle)

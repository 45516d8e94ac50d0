"""LAPS-SD: least attained service until a request is perceived, then shortest remaining time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from laps.engine.acceptance import StabilityTest
from laps.engine.table import Request
from laps.policies.base import RECOMPUTE


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class LapsSd:
    """Algorithm 1 of LAPS-SD (Li, Chen, Li; IJCAI 2025), with our choices where it leaves one.

    Service is counted in verify rounds. A round takes all requests of a worker the same time, so
    the order by rounds is the order by seconds, and it holds still while the round time changes.
    """

    name: ClassVar[str] = "laps-sd"
    key_parts: ClassVar[tuple[str, ...]] = ("rounds", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest rounds got, or left if perceived, first"
    weighs_hints: ClassVar[bool] = False
    perceives: ClassVar[bool] = True

    order: Literal["one-scale", "strict"] = "one-scale"
    """`one-scale`: all requests in one order. `strict`: queues by attained service come first."""
    quantum: Annotated[int, Field(ge=1)] = 32
    """Rounds that an unperceived request runs before it gives way; strict: quantum of level 0."""
    ratio: Annotated[float, Field(ge=1.0, le=1000.0)] = 2.0
    """strict: quantum of a level over that of the level before."""
    levels: Annotated[int, Field(ge=1, le=32)] = 4
    """strict: number of queues."""
    min_rounds: Annotated[int, Field(ge=2)] = 4
    """Stability test: fewest rounds to judge by."""
    tolerance: Annotated[float, Field(gt=0.0)] = 0.2
    """Stability test: standard error of the mean accept length allowed, as a share of the mean."""
    inflation: Annotated[float, Field(ge=1.0)] = 2.0
    """Stability test: factor on the variance of the mean, for rounds that are not independent."""
    max_wait_s: Annotated[float, Field(ge=0.0)] = 30.0
    """Seconds without a round after which a request is starving; 0: no bound."""
    boost_rounds: Annotated[int, Field(ge=1)] = 16
    """Rounds that a starving request runs before all others."""
    recompute: Annotated[float, Field(ge=0.0)] = RECOMPUTE
    """Rounds that a prefill of 1,000 tokens takes, for who would be demoted."""

    @property
    def queues(self) -> tuple[str, ...]:
        """Return the names of the queues: one, or one for each level."""
        if self.order == "one-scale":
            return ("one scale",)
        return tuple(f"level {level}" for level in range(self.levels))

    @property
    def stability(self) -> StabilityTest:
        """Return the test that makes a request perceived."""
        return StabilityTest(self.min_rounds, self.tolerance, self.inflation)

    def queue(self, request: Request) -> int:
        """Return the request's level: 0 on one scale, else by what it attained unperceived."""
        if self.order == "one-scale":
            return 0
        attained = float(request.perceived_at or request.rounds)
        quantum, level = float(self.quantum), 0
        while level < self.levels - 1 and attained >= quantum:
            attained -= quantum
            quantum *= self.ratio
            level += 1
        return level

    def key(self, request: Request) -> tuple[float, ...]:
        """Return its place among perceived and unperceived requests."""
        # 1. Fewer rounds: of a perceived request the estimated rounds left, of an unperceived one
        #    the rounds it has had, in whole quanta, as a lower bound of what it will take.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        if request.perceived_at:
            rounds = request.remaining_rounds
        else:
            rounds = float(request.acceptance.rounds // self.quantum * self.quantum)
        return (rounds, request.arrival_s, request.handle)

    def key_of_resident(self, request: Request, cost: float) -> tuple[float, ...]:
        """Return its place with `cost` rounds less."""
        if request.perceived_at:
            rounds = request.remaining_rounds
        else:
            rounds = float(request.acceptance.rounds // self.quantum * self.quantum)
        return (rounds - cost, request.arrival_s, request.handle)

    def ranks_by_length(self, request: Request) -> bool:
        """Return whether it is perceived."""
        return request.perceived_at > 0

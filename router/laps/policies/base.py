"""What a scheduling policy is: a pure rule that puts requests in order."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

from laps.engine.acceptance import StabilityTest
from laps.engine.table import Request


class PolicyError(ValueError):
    """A policy or a parameter that does not exist, or a value that it cannot take."""


class Policy(Protocol):
    """An order over requests, from their state alone: no clock, no memory, no side effect.

    A policy is a frozen dataclass of its parameters. Requests go by `queue`, then by `key`. Both
    must depend only on what changes as the request runs or stops, and on its predicted length: the
    engine computes them anew for running requests and keeps them for resting ones.
    """

    @property
    def name(self) -> str:
        """Name in a `PolicySpec`."""

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the queues, in the order in which they are served."""

    @property
    def key_parts(self) -> tuple[str, ...]:
        """Names of the parts of `key`, units included."""

    @property
    def rule(self) -> str:
        """What puts a request before another, in a few words for operators."""

    @property
    def weighs_hints(self) -> bool:
        """Whether a hint is weighed against what finished; else it is taken at its word."""

    @property
    def perceives(self) -> bool:
        """Whether it waits for a request to become stable; else it estimates from the first."""

    @property
    def stability(self) -> StabilityTest:
        """When the acceptance of a request is stable."""

    @property
    def max_wait_s(self) -> float:
        """Seconds without a round after which a request goes before all queues. 0: never."""

    @property
    def boost_rounds(self) -> int:
        """Rounds that a starving request gets before it is back in its queue."""

    def queue(self, request: Request) -> int:
        """Return the index of the request's queue in `queues`."""

    def key(self, request: Request) -> tuple[float, ...]:
        """Return its place inside the queue, smaller first, ending in arrival time and handle."""


@runtime_checkable
class RanksByLength(Protocol):
    """What a policy has besides if its keys depend on predicted lengths.

    The prediction of a request for which this holds while it rests is kept up to date with what
    the others teach that finish. For a policy without it none has to be.
    """

    def ranks_by_length(self, request: Request) -> bool:
        """Return whether the request's key, as it is now, depends on its predicted length."""


RECOMPUTE = 6.0
"""Default of `CountsDemotions.recompute`: 30 us a token on an H200 with a model of 135M, against
rounds of 5 ms."""


@runtime_checkable
class CountsDemotions(Protocol):
    """What a policy has besides if it counts what it costs to take a request's KV cache away.

    While memory is short, who runs in place of a resident request costs its demotion: its tokens
    are prefilled again before it goes on, and meanwhile nobody decodes.
    """

    @property
    def recompute(self) -> float:
        """Rounds that a prefill of 1,000 tokens takes. 0: demotions cost nothing."""

    def key_of_resident(self, request: Request, cost: float) -> tuple[float, ...]:
        """Return the key of a resident request while memory is short.

        `cost` is that of its demotion, in rounds of one request: whoever goes before it must be
        shorter by as much.
        """


class OneQueue:
    """What policies share that have one queue, no bound on starvation, and perceive nothing."""

    weighs_hints: ClassVar[bool] = False
    perceives: ClassVar[bool] = False
    stability: ClassVar[StabilityTest] = StabilityTest()
    max_wait_s: ClassVar[float] = 0.0
    boost_rounds: ClassVar[int] = 0

    def queue(self, request: Request) -> int:
        """Return the only queue."""
        return 0

"""What a worker costs: the time of a verify round, of a prefill, and the memory that it has."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol


class RoundTime(Protocol):
    """Seconds that a verify round takes, by the number of requests in it."""

    def seconds(self, batch: int) -> float:
        """Return the time of a round of `batch` requests, 1 or more."""


@dataclass(frozen=True)
class Linear:
    """base_s + per_request_s * batch."""

    base_s: float
    per_request_s: float = 0.0

    def seconds(self, batch: int) -> float:
        return self.base_s + self.per_request_s * batch


@dataclass(frozen=True)
class Buckets:
    """Measured times: a round takes as long as one of the next larger measured batch.

    That is how CUDA graphs behave: a batch is padded to the next size that was captured.
    """

    points: tuple[tuple[int, float], ...]
    """(batch, seconds), ascending."""

    def seconds(self, batch: int) -> float:
        for size, seconds in self.points:
            if batch <= size:
                return seconds
        raise ValueError(f"no round time for {batch} requests; the last one is {self.points[-1]}")


@dataclass(frozen=True)
class Pace:
    """A worker that is slower at some times than at others."""

    factors: tuple[float, ...] = ()
    """What all times are multiplied by, window by window from time 0; it is 1 before and after."""
    window_s: float = 1.0
    """Length of a window, in seconds."""

    def at(self, now_s: float) -> float:
        """Return the factor of what begins at `now_s`."""
        window = math.floor(now_s / self.window_s)
        return self.factors[window] if 0 <= window < len(self.factors) else 1.0


STEADY = Pace()


@dataclass(frozen=True)
class Physics:
    """One worker; all of a case are alike. The defaults are those of the reference case."""

    round_time: RoundTime = Linear(8e-3, 0.15e-3)
    max_running: int = 16
    """Most requests in a round."""
    max_resident: int = 0
    """Most requests that hold KV cache and a slot; 0: no limit."""
    kv_tokens: int = 0
    """KV cache, in tokens; 0: no limit."""
    prefill_s: float = 0.0
    """Seconds that an iteration with a prefill takes, however many tokens it has."""
    prefill_token_s: float = 0.0
    """Seconds per token that is prefilled."""
    plan_delay: int = 0
    """Iterations by which a plan is late: 0, or 1 as in SGLang's overlap loop."""

    share_prefills: ClassVar[bool] = True
    """Whether newcomers share prefills (`laps.engine.company`), where one takes time."""

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise ValueError(f"max_running must be at least 1, got {self.max_running}")
        if self.max_resident and self.max_resident < self.max_running:
            raise ValueError("requests that run are resident: raise max_resident to max_running")
        if self.plan_delay not in (0, 1):
            raise ValueError(f"plan_delay must be 0 or 1 iteration, got {self.plan_delay}")

    def prefill_seconds(self, tokens: int) -> float:
        """Return the time of a prefill of `tokens`, in one iteration."""
        return self.prefill_s + self.prefill_token_s * tokens


@dataclass(frozen=True)
class PrefillsAtOnce(Physics):
    """A worker that admits every newcomer as soon as it deserves to run, as SGLang does."""

    share_prefills: ClassVar[bool] = False

    @classmethod
    def of(cls, physics: Physics) -> Physics:
        """Return such a worker that is like `physics` in all else."""
        return cls(**{part.name: getattr(physics, part.name) for part in fields(physics)})

"""What goes into the engine and what comes out: plain values, no behaviour beyond their own shape.

The same types cross every host; `laps.wire` turns them into protobuf.
Times are seconds on the worker's monotonic clock. Service is counted in verify rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

Handle = int
"""Names a request on its worker: ascending with arrival, never reused within an incarnation."""


class Phase(IntEnum):
    """Where a request is. Values are those of `laps.v1.Phase`."""

    WAITING = 1
    RUNNING = 2
    PAUSED = 3
    FINISHED = 4
    ABORTED = 5

    @property
    def resident(self) -> bool:
        """Whether the request holds KV cache and a slot on the worker."""
        return self in (Phase.RUNNING, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class Hints:
    """What the client said about a request; zero and empty mean "not said"."""

    tenant: str = ""
    priority: int = 0
    predicted_tokens: int = 0
    """Client's estimate of the output length, in tokens."""
    deadline_s: float = 0.0
    """Wanted end-to-end latency, in seconds after arrival."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a request has got so far, as the worker counts it."""

    output_tokens: int = 0
    rounds: int = 0
    """Verify rounds done: the attained service."""
    proposed: int = 0
    """Draft tokens offered to verification."""
    accepted: int = 0
    """Draft tokens accepted, bonus tokens not counted."""
    accepted_sq: int = 0
    """Sum over rounds of (accepted drafts in the round) squared."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that the engine is to know: new, or (in a snapshot) as it stands."""

    handle: Handle
    rid: str
    arrival_s: float
    prompt_tokens: int
    max_new_tokens: int
    hints: Hints = Hints()
    phase: Phase = Phase.WAITING
    progress: Progress = Progress()


class StepReport(NamedTuple):
    """What happened on a worker since the report before it (see `laps.v1.StepReport`).

    A tuple, because a scheduler makes one in every step.
    """

    step: int
    time_s: float
    arrived: tuple[Arrival, ...] = ()
    prefilled: tuple[Handle, ...] = ()
    decoded: tuple[Handle, ...] = ()
    committed: tuple[int, ...] = ()
    """Accept length of each of `decoded`: accepted drafts and the bonus token."""
    drafts: int = 0
    """Draft tokens offered per request in this round; 0 in plain decoding."""
    round_s: float = 0.0
    requeued: tuple[Handle, ...] = ()
    finished: tuple[Handle, ...] = ()
    aborted: tuple[Handle, ...] = ()
    plan_seq: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker can hold at once."""

    max_running: int
    """Most requests in one verify round."""
    max_resident: int
    """Most requests that hold KV cache and a slot."""
    kv_tokens: int = 0
    """Size of the KV pool, in tokens; 0 if not known."""
    batch_sizes: tuple[int, ...] = ()
    """Sizes that a batch is padded to (captured CUDA graphs), in requests; empty if not known."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a worker holds at one step: an engine can be built from it alone."""

    step: int
    time_s: float
    capacity: Capacity
    requests: tuple[Arrival, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The order in which requests deserve to run: see `laps.v1.Plan`, `laps.engine.selection`."""

    seq: int = 0
    step: int = 0
    order: tuple[Handle, ...] = ()
    horizon: Handle = 0


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A policy by name, with the parameters that differ from its defaults."""

    name: str = "laps-sd"
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)


class UnknownRequestError(KeyError):
    """The engine holds no request of that id."""

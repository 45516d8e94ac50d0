"""What the client takes and returns: plain values, times in seconds, lengths in tokens."""

from __future__ import annotations

from dataclasses import dataclass

from laps.engine.types import Hints, Phase, PolicySpec


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; what is None takes the worker's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a generation."""

    rid: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that is new since the event before."""

    text: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Last event of a generation."""

    finish_reason: str
    """"stop", "length" or "abort"."""
    prompt_tokens: int
    completion_tokens: int


Event = Started | Delta | Completed


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole generation."""

    rid: str
    worker_id: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """A request as the scheduler sees it."""

    rid: str
    worker_id: str
    phase: Phase
    hints: Hints
    prompt_tokens: int
    output_tokens: int
    max_new_tokens: int
    rounds: int
    """Verify rounds got so far: the attained service."""
    accept_length: float
    """Mean tokens committed per verify round, bonus included; 0 before the first round."""
    accept_rate: float
    """Accepted drafts over proposed drafts; 0 before the first round."""
    perceived: bool
    """Whether its acceptance is stable, so that its remaining time can be estimated."""
    predicted_tokens: int
    """Predicted output length."""
    remaining_s: float
    """Estimated remaining time (T~); 0 if not known."""
    preemptions: int
    age_s: float
    """Since arrival, on the worker's clock; stands still once the request has left."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker as the service knows it. Counts are since this stream of it began."""

    worker_id: str
    incarnation: int
    attached: bool
    model: str
    http_url: str
    sglang_version: str
    algorithm: str
    """SGLang's name of the speculative algorithm; empty for plain decoding."""
    max_running: int
    max_resident: int
    running: int
    paused: int
    waiting: int
    step: int
    round_s: float
    """Expected wall time of the next verify round, from those of its size; 0 before the first."""
    preemptions: int
    finished: int
    plans: int
    policy: PolicySpec
    fresh_share: float
    """Share of verify rounds that ran on the newest plan there could be, 0 to 1."""
    estimates: int
    """Requests that finished after their remaining time had been estimated."""
    estimate_error: float
    """Mean size of the relative error of these estimates; 0 if there are none."""
    estimate_bias: float
    """Mean of the signed error, above 0 where times were overestimated; 0 if there are none."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of one worker; queues come in the order in which they are served."""

    worker_id: str
    name: str
    running: int
    paused: int
    waiting: int
    rids: tuple[str, ...]
    """Its requests, best first."""


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One part of an ordering key; smaller goes first."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request runs, or what it waits for. A departed one has no queue and no key."""

    request: RequestStatus
    policy: str
    queue: str
    rank: int
    """Position among the worker's requests; 0 is served first."""
    key: tuple[KeyPart, ...]
    reason: str

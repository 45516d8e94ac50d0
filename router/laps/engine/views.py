"""What the engine shows of itself: values that no longer change, for operators and clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from laps.engine.accuracy import EstimateError
from laps.engine.table import Request
from laps.engine.timing import remaining_s
from laps.engine.types import Capacity, Hints, Phase


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """A request as the scheduler sees it: `laps.v1.RequestStatus` without the worker."""

    rid: str
    phase: Phase
    hints: Hints
    prompt_tokens: int
    output_tokens: int
    max_new_tokens: int
    rounds: int
    accept_length: float
    accept_rate: float
    perceived: bool
    predicted_tokens: int
    remaining_s: float
    """T~ in seconds; 0 if it is not perceived, has left, or no round was timed yet."""
    preemptions: int
    age_s: float


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue, its requests best first, and how many of them are in each phase."""

    name: str
    rids: tuple[str, ...]
    running: int
    paused: int
    waiting: int


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One part of an ordering key; smaller goes first."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request runs, or what it waits for. A departed one has no queue and no key."""

    status: RequestStatus
    policy: str
    queue: str
    rank: int
    """Requests before it; 0 is served first."""
    key: tuple[KeyPart, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counts of one engine: requests now, events since it was built."""

    running: int
    paused: int
    waiting: int
    preemptions: int
    finished: int
    aborted: int
    plans: int
    """Plans that differed from the one before."""
    round_s: float
    """Expected wall time of the next verify round, from those of its size; 0 before the first."""
    estimates: EstimateError
    """How far T~ was off, of those that finished."""
    step: int
    ignored: int
    """Things reported that made no sense here, such as unknown handles and repetitions."""


def status_of(request: Request, now_s: float, round_s: float) -> RequestStatus:
    """Return the status of a request at `now_s`, with rounds of `round_s` seconds."""
    acceptance = request.acceptance
    alive = request.phase < Phase.FINISHED
    return RequestStatus(
        rid=request.rid,
        phase=request.phase,
        hints=request.hints,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        max_new_tokens=request.max_new_tokens,
        rounds=acceptance.rounds,
        accept_length=acceptance.accept_length,
        accept_rate=acceptance.accept_rate,
        perceived=request.perceived_at > 0,
        predicted_tokens=request.predicted_tokens,
        remaining_s=(
            remaining_s(request.remaining_rounds, round_s)
            if alive and request.perceived_at
            else 0.0
        ),
        preemptions=request.preemptions,
        age_s=max((now_s if alive else request.left_s) - request.arrival_s, 0.0),
    )


def queue_of(name: str, requests: Sequence[Request]) -> QueueView:
    """Return the view of a queue whose requests are `requests`, best first."""
    phases = Counter(request.phase for request in requests)
    return QueueView(
        name=name,
        rids=tuple(request.rid for request in requests),
        running=phases[Phase.RUNNING],
        paused=phases[Phase.PAUSED],
        waiting=phases[Phase.WAITING],
    )


def reason(
    request: Request, rank: int, rule: str, capacity: Capacity, now_s: float, round_s: float
) -> str:
    """Return one sentence for operators: why the request runs, or what it waits for."""
    if request.phase >= Phase.FINISHED:
        how = "finished" if request.phase is Phase.FINISHED else "was aborted"
        tokens, rounds = _count(request.output_tokens, "token"), _count(request.rounds, "round")
        return f"left: {how} after {tokens} in {rounds}"
    slots = capacity.max_running
    place = f"place {rank + 1} of {slots}"
    before = f"{_count(rank, 'request')} go{'es' * (rank == 1)} first, {slots} at a time ({rule})"
    chosen = rank < slots
    if request.phase is Phase.RUNNING:
        what = f"runs: {place}" if chosen else f"runs until the worker takes the new plan: {before}"
    elif request.phase is Phase.PAUSED:
        what = f"resumes with the next round: {place}" if chosen else f"paused: {before}"
    elif chosen:
        what = f"waits for its prefill: {place}, once the worker has a slot and memory for it"
    else:
        what = f"waits: {before}"
    parts = [what]
    if request.boost_left:
        parts.append(
            f"starving: had not run for {_since(request, now_s)}, "
            f"goes before all queues for {_count(request.boost_left, 'more round')}"
        )
    parts.append(_service(request, round_s))
    return "; ".join(parts)


def _service(request: Request, round_s: float) -> str:
    if not request.perceived_at:
        return f"unperceived, {_count(request.rounds, 'round')} got"
    rounds = request.remaining_rounds
    seconds = f" ({remaining_s(rounds, round_s):.1f} s)" if round_s else ""
    return f"perceived, about {_count(ceil(rounds), 'round')}{seconds} left"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _since(request: Request, now_s: float) -> str:
    return f"{max(now_s - request.since_s, 0.0):.1f} s"

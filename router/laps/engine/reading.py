"""What an engine shows of its requests and of itself: the half of it that changes nothing."""

from __future__ import annotations

from laps.engine.accuracy import EstimateErrors
from laps.engine.ordering import Ordering
from laps.engine.shortage import Shortage
from laps.engine.table import Request, RequestTable
from laps.engine.timing import RoundTimer
from laps.engine.types import Capacity, Handle, Phase, Plan
from laps.engine.views import (
    EngineStats,
    Explanation,
    KeyPart,
    QueueView,
    RequestStatus,
    queue_of,
    reason,
    status_of,
)
from laps.policies.base import Policy


class Reading:
    """The views of an engine, from the state that `laps.engine.engine` keeps."""

    ignored: int
    _capacity: Capacity
    _policy: Policy
    _table: RequestTable
    _ordering: Ordering
    _timer: RoundTimer
    _errors: EstimateErrors
    _plan: Plan | None
    _step: int
    _now_s: float
    _preemptions: int
    _shortage: Shortage

    def handle_of(self, rid: str) -> Handle:
        """Return the handle of a request, live or lately departed, or raise UnknownRequestError."""
        return self._table.named(rid).handle

    def status(self, handle: Handle) -> RequestStatus:
        """Return the status of a request, live or lately departed, or raise UnknownRequestError."""
        return self._status(self._table.find(handle))

    def statuses(self, include_departed: bool = False) -> list[RequestStatus]:
        """Return the live requests, best first; then those that left lately, newest first."""
        requests = self._ranked()
        if include_departed:
            requests.extend(self._table.departed())
        round_s = self._next_round_s
        return [status_of(request, self._now_s, round_s) for request in requests]

    def queues(self) -> list[QueueView]:
        """Return the queues in the order in which they are served, that of the starving first."""
        members: list[list[Request]] = [[] for _ in self._ordering.queues]
        for request in self._ranked():
            members[self._ordering.queue(request)].append(request)
        return list(map(queue_of, self._ordering.queues, members))

    def explain(self, rid: str) -> Explanation:
        """Return why a request runs or waits, or raise UnknownRequestError."""
        request = self._table.named(rid)
        alive = request.phase < Phase.FINISHED
        rank = self._ordering.rank(request) if alive else 0
        queue = ""
        key: tuple[KeyPart, ...] = ()
        if alive:
            queue = self._ordering.queues[self._ordering.queue(request)]
            key = tuple(self._ordering.key_parts(request))
        return Explanation(
            status=self._status(request),
            policy=self._policy.name,
            queue=queue,
            rank=rank,
            key=key,
            reason=reason(
                request,
                rank,
                self._policy.rule,
                self._capacity,
                self._now_s,
                self._next_round_s,
            ),
        )

    def stats(self) -> EngineStats:
        """Return the engine's counts."""
        count = self._table.count
        return EngineStats(
            running=count(Phase.RUNNING),
            paused=count(Phase.PAUSED),
            waiting=count(Phase.WAITING),
            preemptions=self._preemptions,
            finished=count(Phase.FINISHED),
            aborted=count(Phase.ABORTED),
            plans=self._plan.seq if self._plan else 0,
            round_s=self._next_round_s,
            estimates=self._errors.summary(),
            step=self._step,
            ignored=self.ignored,
        )

    def _ranked(self) -> list[Request]:
        """Return the live requests, best first."""
        ordering = self._ordering
        return [r for r in map(self._table.get, ordering.first(len(ordering))) if r is not None]

    def _status(self, request: Request) -> RequestStatus:
        return status_of(request, self._now_s, self._next_round_s)

    @property
    def _next_round_s(self) -> float:
        """Seconds of a round of as many requests as there will be in one: all that can run.

        While memory is short, fewer fit than may run: then as many as in the newest round.
        """
        can_run = min(self._capacity.max_running, len(self._table))
        batch = len(self._ordering.running) if self._shortage.crowd else can_run
        return self._timer.seconds(max(batch, 1))

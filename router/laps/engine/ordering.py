"""Keeps the requests of one worker in the order of a policy, touching only what moves.

The rule, for every host:

1. Starving requests go first: by how long they have rested, then arrival, then handle.
2. The rest go by the policy's queue, then by its key.

Requests that do not run have a key that stands still: they rest in a sorted structure, and only a
transition moves them in it. Those that run are few and are sorted anew at every plan.

Two things may change for a resting request. It may have rested for the policy's `max_wait_s`:
those that do not run are held in the order in which they stopped, so only the head is looked at.
And its predicted length may have changed because another request finished: `REFRESH` requests a
report get a new prediction, the one with the oldest first. Both happen as reports come in and
never at a plan, so the order depends on the reports alone, not on how often a plan was asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from sortedcontainers import SortedKeyList

from laps.engine.predictor import LengthPredictor
from laps.engine.table import Request
from laps.engine.types import Handle
from laps.policies.base import Policy

REFRESH = 4
"""Resting requests whose prediction is renewed for each report, where it is out of date."""

STARVING = "starving"
"""Name of the queue that is served before those of the policy."""

_rank_key = attrgetter("rank_key")


class Ordering:
    """The order of requests under one policy. `plan_size` is the most that a plan ever names."""

    def __init__(self, policy: Policy, predictor: LengthPredictor, plan_size: int) -> None:
        self.running: dict[Handle, Request] = {}
        """The requests of the newest verify round."""
        self.queues = (STARVING, *policy.queues)
        """Names of the queues, in the order in which they are served."""
        self._policy = policy
        self._predictor = predictor
        self._plan_size = plan_size
        self._finishes = 0
        self._starving = 0
        self._resting: SortedKeyList = SortedKeyList(key=_rank_key)
        self._waiters: OrderedDict[Handle, Request] = OrderedDict()
        self._predicted: OrderedDict[Handle, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self.running) + len(self._resting)

    def rest(self, request: Request, since_s: float) -> None:
        """Take in a request that does not run: new, or one that has just stopped.

        `since_s` never goes back from call to call. A starving request keeps its place.
        """
        self.running.pop(request.handle, None)
        if not request.boost_left:
            request.since_s = since_s
        self._place(request)
        if request.perceived_at:
            self._predicted[request.handle] = request
        if self._policy.max_wait_s and not request.boost_left:
            self._waiters[request.handle] = request

    def run(self, request: Request) -> None:
        """Take note that a request was in the newest verify round."""
        if request.handle not in self.running:
            self._leave_rest(request)
            self.running[request.handle] = request
        if request.boost_left:
            request.boost_left -= 1
            self._starving -= not request.boost_left

    def move(self, request: Request) -> None:
        """Find the new place of a resting request whose state has changed."""
        self._resting.remove(request)
        self._place(request)
        if request.handle in self._predicted:
            self._predicted.move_to_end(request.handle)  # its prediction is the newest now

    def remove(self, request: Request) -> None:
        """Forget a request that has left."""
        if self.running.pop(request.handle, None) is None:
            self._leave_rest(request)
        if request.boost_left:
            self._starving -= 1
            request.boost_left = 0

    def relearn(self) -> None:
        """Take note that a request finished, so that predictions made before are out of date."""
        self._finishes += 1

    def settle(self, now_s: float) -> None:
        """Bring resting requests up to date, after the events of a report."""
        self._promote(now_s)
        for _ in range(min(REFRESH, len(self._predicted))):
            request = next(iter(self._predicted.values()))
            if request.prediction == self._finishes:
                return
            self.move(request)

    def first(self, count: int) -> list[Request]:
        """Return the best `count` requests, best first."""
        running = self._ranked_running()
        ranked = list(islice(self._resting, count))
        ranked += running
        ranked.sort(key=_rank_key)  # two sorted runs: a merge
        return ranked[:count]

    def rank(self, request: Request) -> int:
        """Return how many requests go before this one."""
        running = self._ranked_running()
        ahead: int = self._resting.bisect_key_left(request.rank_key)
        return ahead + bisect_left(running, request.rank_key, key=_rank_key)

    def __iter__(self) -> Iterator[Request]:
        """Iterate over all requests, best first."""
        return iter(self.first(len(self)))

    def queue(self, request: Request) -> int:
        """Return the index of the request's queue in `queues`."""
        return 0 if request.boost_left else self._policy.queue(request) + 1

    def key_parts(self, request: Request) -> tuple[str, ...]:
        """Return the names of the parts of the request's `rank_key`."""
        if request.boost_left:
            return ("queue", "resting since_s", "arrival_s", "handle")
        return ("queue", *self._policy.key_parts)

    def renew(self, request: Request) -> None:
        """Write a running request's prediction and key as they are now."""
        request.predicted_tokens = self._predictor.predict(
            request.output_tokens, request.max_new_tokens, request.hints.predicted_tokens
        )
        request.prediction = self._finishes
        if request.boost_left:
            request.rank_key = (0, request.since_s, request.arrival_s, request.handle)
        else:
            policy = self._policy
            request.rank_key = (policy.queue(request) + 1, *policy.key(request))

    def _promote(self, now_s: float) -> None:
        """Make those starving that have rested for too long, the longest first.

        There are no more of them than a plan names, plus those that came to rest in one report:
        the others are behind these anyway and follow as they leave. So a great overload is not
        moved at once, and nobody who follows goes before one who is starving already.
        """
        since_s = -math.inf
        while self._waiters:
            request = next(iter(self._waiters.values()))
            enough = self._starving >= self._plan_size and request.since_s > since_s
            if enough or now_s - request.since_s < self._policy.max_wait_s:
                return
            since_s = request.since_s
            del self._waiters[request.handle]
            request.boost_left = self._policy.boost_rounds
            self._starving += 1
            self.move(request)

    def _ranked_running(self) -> list[Request]:
        running = list(self.running.values())
        for request in running:
            self.renew(request)
        running.sort(key=_rank_key)
        return running

    def _place(self, request: Request) -> None:
        self.renew(request)
        self._resting.add(request)

    def _leave_rest(self, request: Request) -> None:
        self._resting.remove(request)
        self._waiters.pop(request.handle, None)
        self._predicted.pop(request.handle, None)

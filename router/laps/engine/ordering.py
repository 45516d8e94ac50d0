"""Keeps the requests of one worker in the order of a policy, touching only what moves.

The rule, for every host:

1. Starving requests go first: by how long they have rested, then arrival, then handle.
2. The rest go by the policy's queue, then by its key.

Each request has a rank key, a tuple that ends in its handle. That of a request that does not run
stands still: it rests in a sorted list, and only a transition moves it in there. Those that run are
few: each gets a new key with each of its rounds, and they are merged in when a plan is asked for.

Predictions are made anew where they may have changed. A running request outgrows its prediction
(`Prediction.until`). A resting one does not grow, but others finish: `REFRESH` requests a report
get a new prediction, the one with the oldest first. Where the number of drafts changes, the best
`MOST_RESTATED` of those that rest are put in terms of the new one, `RESTATE` a report. And a
request may have rested for the policy's `max_wait_s`: those that do not run are held in the order
in which they stopped, so only the head is looked at. All this happens as reports come in and never
at a plan, so the order depends on the reports alone, not on how often a plan was asked for.

While memory is short, the keys of those that hold KV cache count what it costs to take it away, if
the policy does so (`CountsDemotions`); that begins and ends with a new key for each of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from operator import itemgetter

from sortedcontainers import SortedList

from laps.engine.predictor import LengthPredictor
from laps.engine.table import Request
from laps.engine.types import Capacity, Handle, Phase
from laps.engine.views import KeyPart
from laps.policies.base import CountsDemotions, Policy, RanksByLength

REFRESH = 2
"""Resting requests whose prediction is renewed for each report, where it is out of date."""

RESTATE = 16
"""Resting requests that are put in terms of a new number of drafts for each report."""
MOST_RESTATED = 1024
"""Of all: those behind are put in terms of it when they move, and do not run before they do."""

STARVING = "starving"
"""Name of the queue that is served before those of the policy."""

RankKey = tuple[float, ...]

_FOR_GOOD = -1
"""In place of a predictor's version: the prediction rests on nothing learnt."""

_STARVING_KEY = ("resting since_s", "arrival_s", "handle")

_WAITING = Phase.WAITING

_handle = itemgetter(-1)


class Ordering:
    """The order of requests under one policy; `find` returns the live request of a handle."""

    def __init__(
        self,
        policy: Policy,
        predictor: LengthPredictor,
        capacity: Capacity,
        find: Callable[[Handle], Request | None],
    ) -> None:
        self.plan_size = max(capacity.max_resident + capacity.max_running, 0)
        """The most requests that a plan names: more cannot matter before the next one."""
        self.running: dict[Handle, Request] = {}
        """The requests of the newest verify round."""
        self.queues = (STARVING, *policy.queues)
        """Names of the queues, in the order in which they are served."""
        self._policy = policy
        self._key_with_memory = self._key_with_queue if len(policy.queues) > 1 else policy.key
        self._policy_key = self._key_with_memory
        self._many_queues = len(policy.queues) > 1
        self._recompute = 0.0
        if isinstance(policy, CountsDemotions):
            self._recompute = policy.recompute
            self._key_of_resident = policy.key_of_resident
        self._cost_per_token = 0.0
        self._ranks_by_length = (
            policy.ranks_by_length if isinstance(policy, RanksByLength) else _never
        )
        self._weighs_hints = policy.weighs_hints
        self._predictor = predictor
        self._find = find
        self._drafts: int | None = None
        self._to_restate: list[Handle] = []
        self._starving = 0
        self._resting: SortedList = SortedList()
        self._waiters: OrderedDict[Handle, Request] = OrderedDict()
        self._predicted: OrderedDict[Handle, Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self.running) + len(self._resting)

    def enter(self, request: Request, since_s: float) -> None:
        """Take in a request that is new here, as one that rests since `since_s`."""
        if self._drafts is not None:
            request.acceptance.offer(self._drafts)
        self._predict(request)
        self.stop(request, since_s)

    def stop(self, request: Request, since_s: float) -> None:
        """Take note that a request, in its new phase by now, does not run any more.

        `since_s` never goes back from call to call. A starving request keeps its place.
        """
        handle = request.handle
        self.running.pop(handle, None)
        request.rank_key = self._key(request)
        self._resting.add(request.rank_key)
        if not request.boost_left:
            request.since_s = since_s
            if self._policy.max_wait_s:
                self._waiters[handle] = request
        self._watch(request)

    def start(self, request: Request) -> None:
        """Take note that a request that rested runs; `ran` is then to be called."""
        self._leave_rest(request)
        self.running[request.handle] = request

    def ran(self, request: Request) -> None:
        """Take note of what a running request got in the newest verify round."""
        if request.boost_left:
            request.boost_left -= 1
            self._starving -= not request.boost_left
        if request.output_tokens >= request.predict_at:
            self._predict(request)
        request.rank_key = self._key(request) if request.boost_left else self._policy_key(request)

    def move(self, request: Request) -> None:
        """Find the new place of a resting request whose state has changed."""
        if self._drafts is not None:
            request.acceptance.offer(self._drafts)
        self._predict(request)
        self._watch(request)
        self.place(request)

    def place(self, request: Request) -> None:
        """Find the new place of a resting request whose key has changed."""
        key = self._key(request)
        if key != request.rank_key:
            self._resting.remove(request.rank_key)
            self._resting.add(key)
            request.rank_key = key

    def remove(self, request: Request) -> None:
        """Forget a request that has left."""
        if self.running.pop(request.handle, None) is None:
            self._leave_rest(request)
        if request.boost_left:
            self._starving -= 1
            request.boost_left = 0

    def offer(self, drafts: int) -> None:
        """Take note that so many drafts are offered in a round from now on."""
        if self._drafts is not None:
            best = list(map(_handle, islice(self._resting, MOST_RESTATED)))
            self._to_restate = best[::-1]
        self._drafts = drafts

    def set_short(self, crowd: int, paused: Iterable[Request]) -> None:
        """Take note that memory is short from now on, with so many live requests, or (0) is not.

        All of them wait for a prefill, whoever it is of: a round of it costs one for each.
        """
        if not self._recompute:
            return
        self._cost_per_token = self._recompute / 1000.0 * crowd
        self._policy_key = self._key_in_shortage if crowd else self._key_with_memory
        for request in paused:
            self.place(request)
        for request in self.running.values():
            request.rank_key = self._key(request)

    def settle(self, now_s: float) -> None:
        """Bring resting requests up to date, after the events of a report."""
        self._promote(now_s)
        if self._to_restate:
            self._restate()
        version = self._predictor.version
        for _ in range(min(REFRESH, len(self._predicted))):
            request = next(iter(self._predicted.values()))
            if request.prediction == version:
                return
            self.move(request)

    def first(self, count: int) -> list[Handle]:
        """Return the handles of the best `count` requests, best first."""
        running = sorted([request.rank_key for request in self.running.values()])
        resting = list(islice(self._resting, count))
        # Most of what runs goes before all that rests: only from there on it is a merge.
        ahead = bisect_left(running, resting[0]) if resting else len(running)
        ranked = running[:ahead]
        ranked += sorted(resting + running[ahead:]) if ahead < len(running) else resting
        return list(map(_handle, ranked[:count]))

    def rank(self, request: Request) -> int:
        """Return how many requests go before this one."""
        ahead: int = self._resting.bisect_left(request.rank_key)
        return ahead + sum(other.rank_key < request.rank_key for other in self.running.values())

    def queue(self, request: Request) -> int:
        """Return the index of the request's queue in `queues`."""
        return 0 if request.boost_left else self._policy.queue(request) + 1

    def key_parts(self, request: Request) -> list[KeyPart]:
        """Return what places the request inside its queue, by name."""
        names = _STARVING_KEY if request.boost_left else self._policy.key_parts
        return list(map(KeyPart, names, request.rank_key[-len(names) :]))

    def _key(self, request: Request) -> RankKey:
        """Return the request's key as it is now."""
        if request.boost_left:
            # Before all queues, and before the keys of a policy that has one queue and names none.
            return (-math.inf, request.since_s, request.arrival_s, request.handle)
        return self._policy_key(request)

    def _key_with_queue(self, request: Request) -> RankKey:
        return (self._policy.queue(request), *self._policy.key(request))

    def _key_in_shortage(self, request: Request) -> RankKey:
        """Return the key while memory is short: that of a resident counts its demotion."""
        if request.phase is _WAITING:
            return self._key_with_memory(request)
        cost = self._cost_per_token * (request.prompt_tokens + request.output_tokens)
        key = self._key_of_resident(request, cost)
        return (self._policy.queue(request), *key) if self._many_queues else key

    def _restate(self) -> None:
        """Put the next few resting requests in terms of the drafts that are offered now."""
        best = self._to_restate[: -RESTATE - 1 : -1]
        del self._to_restate[-RESTATE:]
        for handle in best:
            request = self._find(handle)
            if request is not None and handle not in self.running:
                self.move(request)

    def _predict(self, request: Request) -> None:
        """Write the request's predicted length as it is now."""
        request.predicted_tokens, request.predict_at, learnt = self._predictor.predict(
            request.output_tokens,
            request.max_new_tokens,
            request.hints.predicted_tokens,
            request.request_class,
            self._weighs_hints,
        )
        request.prediction = self._predictor.version if learnt else _FOR_GOOD

    def _watch(self, request: Request) -> None:
        """Have the prediction of a resting request renewed, if others that finish change it."""
        handle = request.handle
        if request.prediction == _FOR_GOOD or not self._ranks_by_length(request):
            self._predicted.pop(handle, None)
            return
        self._predicted[handle] = request
        # Those that are out of date go first, so that the head tells whether there are any.
        current = request.prediction == self._predictor.version
        self._predicted.move_to_end(handle, last=current)

    def _promote(self, now_s: float) -> None:
        """Make those starving that have rested for too long, the longest first.

        There are no more of them than a plan names, plus those that came to rest in one report:
        the others are behind these anyway and follow as they leave. So a great overload is not
        moved at once, and nobody who follows goes before one who is starving already.
        """
        since_s = -math.inf
        while self._waiters:
            request = next(iter(self._waiters.values()))
            enough = self._starving >= self.plan_size and request.since_s > since_s
            if enough or now_s - request.since_s < self._policy.max_wait_s:
                return
            since_s = request.since_s
            del self._waiters[request.handle]
            request.boost_left = self._policy.boost_rounds
            self._starving += 1
            self.move(request)

    def _leave_rest(self, request: Request) -> None:
        self._resting.remove(request.rank_key)
        self._waiters.pop(request.handle, None)
        self._predicted.pop(request.handle, None)


def _never(request: Request) -> bool:
    return False

"""The requests of one worker, by handle and by id, and those that left lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from laps.engine.acceptance import AcceptanceTracker
from laps.engine.classes import RequestClass, class_of
from laps.engine.types import Arrival, Handle, Phase, UnknownRequestError

_PAUSED = Phase.PAUSED


class Request:
    """A request as the engine knows it. Slotted: there may be a million of them."""

    __slots__ = (
        "acceptance",
        "arrival_s",
        "boost_left",
        "came_after",
        "estimate_s",
        "handle",
        "hints",
        "left_s",
        "max_new_tokens",
        "output_tokens",
        "perceived_at",
        "phase",
        "predict_at",
        "predicted_tokens",
        "prediction",
        "preemptions",
        "prompt_tokens",
        "rank_key",
        "request_class",
        "rid",
        "seen_in",
        "since_s",
        "timed_s",
    )

    def __init__(self, arrival: Arrival) -> None:
        self.handle = arrival.handle
        self.rid = arrival.rid
        self.arrival_s = arrival.arrival_s
        self.prompt_tokens = arrival.prompt_tokens
        self.max_new_tokens = arrival.max_new_tokens
        self.hints = arrival.hints
        self.request_class: RequestClass = class_of(arrival.hints, arrival.max_new_tokens)
        self.phase = arrival.phase
        self.output_tokens = max(arrival.progress.output_tokens, 0)
        self.acceptance = AcceptanceTracker.restored(arrival.progress)
        self.perceived_at = 0
        """Rounds it had when its acceptance became stable; 0 while it is not perceived."""
        self.predicted_tokens = 0
        """Predicted output length; as fresh as `rank_key`."""
        self.predict_at = 0
        """Output tokens from which on that prediction is out of date."""
        self.prediction = 0
        """Version of the predictor when that prediction was made; -1: of no version, it stays."""
        self.seen_in = 0
        """Number of the newest verify round that it was in, as the engine counts rounds."""
        self.came_after = 0.0
        """Requests that had left when it came, each counted by the share of the live ones that
        could run then: its age, by a clock that is slow in a backlog."""
        self.since_s = 0.0
        """While it does not run: since when."""
        self.boost_left = 0
        """Rounds it may still run before all others; 0 unless it is starving."""
        self.rank_key: tuple[float, ...] = ()
        """Place in the order of requests, smaller first; written by `laps.engine.ordering` only."""
        self.preemptions = 0
        self.estimate_s = 0.0
        """T~ when it was noted, to be held against what it took; 0: it was not."""
        self.timed_s = 0.0
        """What it ran since then; `laps.engine.accuracy` reads and writes it."""
        self.left_s = 0.0
        """When it finished or was aborted."""

    @property
    def rounds(self) -> int:
        """Attained service, in verify rounds."""
        return self.acceptance.rounds

    @property
    def remaining_tokens(self) -> int:
        """Predicted tokens still to come: at least 1, as predictions are above the output."""
        return self.predicted_tokens - self.output_tokens

    @property
    def remaining_rounds(self) -> float:
        """R, the rounds that these take at the accept length that is expected of them."""
        tokens = self.predicted_tokens - self.output_tokens
        acceptance = self.acceptance
        weight = acceptance.weight
        return tokens / (1.0 + acceptance.weighted / weight) if weight else float(tokens)


class RequestTable:
    """All live requests of a worker and the newest `history` departed ones."""

    def __init__(self, history: int = 1024) -> None:
        self._history = history
        self._live: dict[Handle, Request] = {}
        self._departed: OrderedDict[Handle, Request] = OrderedDict()
        self._by_rid: dict[str, Request] = {}
        self._counts = [0] * (max(Phase) + 1)
        self.paused: dict[Handle, Request] = {}
        """The live requests that are paused."""
        self.get: Callable[[Handle], Request | None] = self._live.get
        """Returns the live request of a handle, or None. The dict's own: it is called the most."""

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, handle: Handle) -> bool:
        """Whether the handle is taken, by a live request or one that left lately."""
        return handle in self._live or handle in self._departed

    def find(self, handle: Handle) -> Request:
        """Return the request of that handle, live or departed.

        Raises UnknownRequestError where there is none, or it left too long ago.
        """
        request = self._live.get(handle) or self._departed.get(handle)
        if request is None:
            raise UnknownRequestError(f"no request with handle {handle}")
        return request

    def named(self, rid: str) -> Request:
        """Return the request of that id, live or departed; errors as for `find`."""
        request = self._by_rid.get(rid)
        if request is None:
            raise UnknownRequestError(f"no request {rid!r}, or it left too long ago")
        return request

    def live(self) -> Iterator[Request]:
        """Iterate over the live requests, in no order that matters."""
        return iter(self._live.values())

    def departed(self) -> Iterator[Request]:
        """Iterate over the departed requests that are remembered, newest first."""
        return reversed(self._departed.values())

    def count(self, phase: Phase) -> int:
        """Return how many requests are in `phase` (finished and aborted: since the start)."""
        return self._counts[phase]

    def add(self, request: Request) -> None:
        """Take in a live request. Of two with one id, the newer is found by it."""
        self._live[request.handle] = request
        self._by_rid[request.rid] = request
        self._counts[request.phase] += 1
        if request.phase is _PAUSED:
            self.paused[request.handle] = request

    def move(self, request: Request, phase: Phase) -> None:
        """Put a live request into another phase."""
        self._counts[request.phase] -= 1
        self._counts[phase] += 1
        if phase is _PAUSED:
            self.paused[request.handle] = request
        elif request.phase is _PAUSED:
            del self.paused[request.handle]
        request.phase = phase

    def depart(self, request: Request, phase: Phase, now_s: float) -> None:
        """Move a live request into the history, as finished or aborted."""
        self.move(request, phase)
        request.left_s = now_s
        del self._live[request.handle]
        self._departed[request.handle] = request
        while len(self._departed) > self._history:
            _, oldest = self._departed.popitem(last=False)
            if self._by_rid.get(oldest.rid) is oldest:
                del self._by_rid[oldest.rid]

"""The KV cache and the slots of a simulated worker, and who gives way when they are short.

The rules are those of the worker plugin (docs/worker.md, "When memory is short"):

- Newcomers are admitted only if they rank among the best `max_running` of all, or come along with
  one (`laps.engine.company`), which demotes nobody. One of the best that lacks a slot or tokens
  gets those of paused requests that are not among the best, if that is enough; else admission is
  closed for this iteration.
- A round that does not fit takes from any paused request, then from running ones, but never from
  the last.
- Who gives way is the one with the least loss, its tokens; of equals the newest. It waits again,
  and is prefilled whole, output so far included, when it is admitted again.
- Paused requests whose last result is still in flight cannot give way.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice

from laps.engine.types import Handle
from sim.physics import Physics
from sim.request import SimRequest

UNLIMITED = 1 << 62
TOO_SMALL = "kv_tokens is too few for one request alone; raise it"


class Memory:
    """Who is resident on one worker, and how many tokens they hold."""

    def __init__(self, physics: Physics, drafts: int) -> None:
        self.used = 0
        """KV cache in use, in tokens."""
        self.peak = 0
        """The most that was in use."""
        self.demotions = 0
        self.demoted: list[Handle] = []
        """Who gave way since the list was last cleared."""
        self.limited = bool(physics.kv_tokens or physics.max_resident)
        self._residents: dict[Handle, SimRequest] = {}
        self._kv_tokens = physics.kv_tokens or UNLIMITED
        self._slots = physics.max_resident or UNLIMITED
        self._delay = physics.plan_delay
        self._round_tokens = drafts + 1

    @property
    def residents(self) -> int:
        """Requests that hold KV cache."""
        return len(self._residents)

    def grow(self, tokens: int) -> None:
        """Note `tokens` more in the residents' contexts."""
        self.used += tokens
        if self.used > self.peak:
            self.peak = self.used

    def release(self, request: SimRequest) -> None:
        request.resident = False
        del self._residents[request.handle]
        self.used -= request.context

    def choose(
        self,
        ranked: Iterator[SimRequest],
        wanted: int,
        batch: Container[Handle],
        iteration: int,
    ) -> tuple[list[SimRequest], list[SimRequest]]:
        """Return the first `wanted` of those that can run, and those of them admitted just now."""
        best = list(islice(ranked, wanted))
        kept = {request.handle for request in best}
        chosen: list[SimRequest] = []
        newcomers: list[SimRequest] = []
        refused = False
        for request in best:
            if not request.resident:
                if refused or not self._make_way(request, chosen, kept, batch, iteration):
                    refused = True
                    continue
                self._admit(request)
                newcomers.append(request)
            chosen.append(request)
        if refused:
            others = (request for request in ranked if request.resident)
            missing = min(wanted, len(self._residents)) - len(chosen)
            chosen += islice(others, missing)
        if not chosen:
            raise ValueError(TOO_SMALL)
        return chosen, newcomers

    def admit(self, requests: Iterator[SimRequest], batch: int) -> list[SimRequest]:
        """Admit the first of `requests`, as long as they fit beside a round of `batch` as it is."""
        admitted = []
        for request in requests:
            tokens = self.used + request.context + self._round_tokens * (batch + 1)
            if tokens > self._kv_tokens or self.residents >= self._slots:
                break
            self._admit(request)
            admitted.append(request)
        return admitted

    def short(self, batch: int) -> bool:
        """Whether the tokens of a round of `batch` requests do not fit."""
        return self.used + self._round_tokens * batch > self._kv_tokens

    def victim(self, batch: dict[Handle, SimRequest], next_round: int, iteration: int) -> Handle:
        """Return who gives way for the round number `next_round` of `batch`."""
        if paused := self._victims(batch, (), iteration):
            return paused[0].handle
        if len(batch) == 1:
            raise ValueError(TOO_SMALL)
        return min(batch, key=lambda handle: (batch[handle].context_at(next_round), -handle))

    def demote(self, handle: Handle) -> None:
        """Take the KV cache of a request that is not in the batch."""
        self.release(self._residents[handle])
        self.demotions += 1
        self.demoted.append(handle)

    def _admit(self, request: SimRequest) -> None:
        request.resident = True
        self._residents[request.handle] = request
        self.grow(request.context)

    def _make_way(
        self,
        newcomer: SimRequest,
        chosen: list[SimRequest],
        kept: Container[Handle],
        batch: Container[Handle],
        iteration: int,
    ) -> bool:
        """Whether `newcomer` fits beside a round of `chosen`, others having given way if needed."""
        tokens = self.used + newcomer.context + self._round_tokens * (len(chosen) + 1)
        slots = len(self._residents) + 1
        leaving = []
        if tokens > self._kv_tokens or slots > self._slots:
            for request in self._victims(batch, kept, iteration):
                leaving.append(request)
                tokens -= request.context
                slots -= 1
                if tokens <= self._kv_tokens and slots <= self._slots:
                    break
            else:
                return False
        for request in leaving:
            self.demote(request.handle)
        return True

    def _victims(
        self, batch: Container[Handle], kept: Container[Handle], iteration: int
    ) -> list[SimRequest]:
        """Return the paused requests that may give way, least loss first."""
        paused = (
            request
            for handle, request in self._residents.items()
            if handle not in batch
            and handle not in kept
            and iteration - request.left >= self._delay
        )
        return sorted(paused, key=lambda request: (request.context, -request.handle))

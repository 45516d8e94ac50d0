"""One simulated worker: applies plans and reports what came of it, as the worker plugin does.

An iteration starts at a boundary, the end of the one before:

1. What that iteration did is reported to the engine, and the engine makes a plan.
2. Requests that arrived meanwhile are received. The plan does not know them yet: by `rank_by` they
   run only where it leaves room. They are in the next report.
3. The first `max_running` of those that can run are chosen, by rank. A request can run if it is
   resident or there is memory to admit it, unless it waits for company (`laps.engine.company`).
   With newcomers those come along who are next in line; they are resident, and do not run.
4. If some of these are not resident and a prefill takes time, the iteration is their prefill, and
   nobody decodes. Else it is a verify round (and a prefill that takes no time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice

from laps.engine.company import SHORT, Company
from laps.engine.engine import Engine
from laps.engine.selection import rank_by
from laps.engine.types import Arrival, Capacity, Handle, Snapshot, StepReport
from sim.memory import Memory
from sim.physics import STEADY, Pace, Physics
from sim.request import SimRequest

OnFinish = Callable[[Handle, float], None]


class SimWorker:
    """Hosts one engine and plays the GPU's part."""

    def __init__(
        self,
        physics: Physics,
        drafts: int,
        make_engine: Callable[[Snapshot], Engine],
        on_finish: OnFinish,
        pace: Pace = STEADY,
    ) -> None:
        self.live: dict[Handle, SimRequest] = {}
        """Requests received and not finished."""
        self.inbox: list[SimRequest] = []
        """Requests to be received at the next boundary, by arrival."""
        self.awake = False
        """Whether an iteration is under way, or about to be."""
        self.memory = Memory(physics, drafts)
        self.rounds = 0
        """Verify rounds done."""
        self.iterations = 0
        self.busy_s = 0.0
        """Seconds spent in prefills and rounds."""
        self.live_s = 0.0
        """Integral over time of the number of received requests, in request-seconds."""
        capacity = Capacity(
            physics.max_running, physics.max_resident or physics.max_running, physics.kv_tokens
        )
        self.engine = make_engine(Snapshot(step=0, time_s=0.0, capacity=capacity))
        self._physics = physics
        self._pace = pace
        self._round_s = [
            physics.round_time.seconds(batch) for batch in range(1, physics.max_running + 1)
        ]
        self._drafts = drafts
        self._on_finish = on_finish
        self._company = Company()
        self._share = physics.share_prefills and physics.prefill_s > 0.0
        self._plan = self._newest = self.engine.plan()
        # The batch, the accept lengths still to come for each in it, and when the next one is due.
        self._batch: dict[Handle, SimRequest] = {}
        self._coming: list[Iterator[int]] = []
        self._next_due = -1
        self._settled = False
        """Whether nothing has happened since the batch was chosen that could change the choice."""
        # The iteration under way.
        self._begun_s = 0.0
        self._decodes = False
        self._in_prefill: list[SimRequest] = []
        # What the next report says beside the round.
        self._arrived: list[Arrival] = []
        self._prefilled: list[Handle] = []

    def advance(self, now_s: float) -> float | None:
        """End the iteration under way at `now_s` and begin the next one; return when that ends.

        None if there is nothing to run; the worker then sleeps until a request arrives.
        """
        if self._decodes or self._in_prefill:
            self._end(now_s)
        if self.inbox:
            self._receive()
        self.awake = bool(self.live)
        if not self.awake:
            return None
        return now_s + self._pace.at(now_s) * self._begin(now_s)

    def _receive(self) -> None:
        for request in self.inbox:
            self.live[request.handle] = request
            self._arrived.append(request.arrival)
        self.inbox.clear()
        self._settled = False

    # --- the end of an iteration ------------------------------------------------------------------

    def _end(self, now_s: float) -> None:
        spent_s = now_s - self._begun_s
        self.busy_s += spent_s
        self.live_s += spent_s * len(self.live)
        self.iterations += 1
        committed: tuple[int, ...] = ()
        decoded: tuple[Handle, ...] = ()
        finished: list[Handle] = []
        if self._decodes:
            decoded = tuple(self._batch)
            committed = tuple(map(next, self._coming))
            self.memory.grow(sum(committed))
            if self.rounds == self._next_due:
                finished = [h for h, request in self._batch.items() if request.due == self.rounds]
            self.rounds += 1
            self._leave(finished)
            self._decodes = False
        else:
            self._prefill(self._in_prefill)
            self._in_prefill = []
        for handle in finished:
            self.memory.release(self.live.pop(handle))
            self._on_finish(handle, now_s)
        self._settled = self._settled and not finished
        self._report(
            StepReport(
                step=self.iterations,
                time_s=now_s,
                arrived=tuple(self._arrived),
                prefilled=tuple(self._prefilled),
                decoded=decoded,
                committed=committed,
                drafts=self._drafts,
                round_s=spent_s if decoded else 0.0,
                requeued=tuple(self.memory.demoted),
                finished=tuple(finished),
                plan_seq=self._plan.seq,
            )
        )
        self._arrived, self._prefilled, self.memory.demoted = [], [], []

    def _report(self, report: StepReport) -> None:
        """Tell the engine, and put a plan into force: the one it makes now, or the one before."""
        self.engine.observe(report)
        late, self._newest = self._newest, self.engine.plan()
        plan = late if self._physics.plan_delay else self._newest
        self._settled = self._settled and plan.order == self._plan.order
        self._plan = plan

    def _prefill(self, requests: list[SimRequest]) -> None:
        for request in requests:
            request.prefill()
            self._prefilled.append(request.handle)
        self.memory.grow(len(requests))

    # --- the beginning of an iteration ------------------------------------------------------------

    def _begin(self, now_s: float) -> float:
        """Choose who runs, and return how long the iteration takes at the usual pace."""
        self._begun_s = now_s
        if not self._settled:
            candidates, all_may = self._candidates()
            chosen, newcomers = self.memory.choose(
                candidates, self._physics.max_running, self._batch, self.iterations
            )
            if newcomers:
                newcomers += self._next_in_line(len(newcomers))
                self._company.admitted(len(newcomers), self.iterations)
                tokens = sum(request.context for request in newcomers)
                if seconds := self._physics.prefill_seconds(tokens):
                    self._in_prefill = newcomers
                    return seconds
                self._prefill(newcomers)
            self._swap(chosen)
            self._settled = all_may
        if self.memory.limited:
            self._make_room()
        self._decodes = True
        return self._round_s[len(self._batch) - 1]

    def _candidates(self) -> tuple[Iterator[SimRequest], bool]:
        """Return those that may run, by rank, and whether these are all that are live.

        If not, newcomers wait for company while residents fill the batch.
        """
        ranked = self._ranked()
        if not self._share:
            return ranked, True
        wanted = self._physics.max_running
        best = list(islice(ranked, wanted))
        newcomers = 0
        if self.memory.residents >= wanted:
            newcomers = sum(not request.resident for request in best)
        if self._company.waits(newcomers, wanted, self.iterations):
            return (request for request in chain(best, ranked) if request.resident), False
        return chain(best, ranked), True

    def _next_in_line(self, newcomers: int) -> list[SimRequest]:
        """Admit those who come along with so many newcomers."""
        if not self._share:
            return []
        count = self._company.size(self._physics.max_running, self.iterations) - newcomers
        waiting = (request for request in self._ranked() if not request.resident)
        along = (r for r in islice(waiting, max(count, 0)) if r.context <= SHORT)
        return self.memory.admit(along, len(self._batch) + newcomers)

    def _ranked(self) -> Iterator[SimRequest]:
        """Iterate over the live requests in the order of `rank_by`, sorting no more than needed."""
        live = self.live
        named = 0
        for handle in self._plan.order:
            if handle in live:
                named += 1
                yield live[handle]
        if named < len(live):
            rest = live.keys() - set(self._plan.order)
            for handle in sorted(rest, key=rank_by(self._plan)):
                yield live[handle]

    def _swap(self, chosen: list[SimRequest]) -> None:
        """Let those leave the batch that are not `chosen`, and the others of these join it."""
        wanted = {request.handle for request in chosen}
        self._leave([handle for handle in self._batch if handle not in wanted])
        for request in chosen:
            if request.handle not in self._batch:
                request.enter(self.rounds)
                self._batch[request.handle] = request
                self._coming.append(iter(request.accept_lengths[request.done :]))
        self._next_due = min(request.due for request in self._batch.values())

    def _leave(self, handles: list[Handle]) -> None:
        if not handles:
            return
        rows = zip(self._batch, self._coming, strict=True)
        self._coming = [coming for handle, coming in rows if handle not in handles]
        for handle in handles:
            request = self._batch.pop(handle)
            request.leave(self.rounds)
            request.left = self.iterations
        self._settled = False

    def _make_room(self) -> None:
        """Demote until the round's tokens fit."""
        while self.memory.short(len(self._batch)):
            handle = self.memory.victim(self._batch, self.rounds, self.iterations)
            if handle in self._batch:
                self._leave([handle])
            self.memory.demote(handle)
            self._settled = False

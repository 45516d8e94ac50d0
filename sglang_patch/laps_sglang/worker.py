"""One scheduler process under plans: who is admitted, who pauses, who resumes.

The moves are made just before SGLang launches a batch, and only rows that change place move:

    admit   (around get_new_batch_prefill)  offers SGLang only the waiting requests of high rank
    decode  (around update_running_batch)   swaps rows so that the best `max_running` decode

Everything here depends only on what all tensor-parallel ranks share (plans ride on SGLang's own
broadcast, handles follow the order of arrival), so that all ranks move the same rows at the same
iteration. Clocks and plans' origins are for the entry rank, behind the planner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from laps.engine.types import Capacity, Handle, Plan, Snapshot
from laps_sglang.compat import Engine as SglangEngine
from laps_sglang.ledger import Ledger, handle_of
from laps_sglang.memory import Memory
from laps_sglang.paused import PausedBatch, Req
from laps_sglang.planner import Planner
from laps_sglang.ranking import best_of
from laps_sglang.sharing import Sharing
from laps_sglang.surgery import Batch, drop_finished, merge


class Worker:
    """The state of one scheduler process, and the moves."""

    def __init__(
        self,
        scheduler: Any,
        engine: SglangEngine,
        max_running: int | None,
        batch_sizes: tuple[int, ...] = (),
    ) -> None:
        self.scheduler = scheduler
        self.engine = engine
        resident = int(scheduler.max_running_requests)
        self.capacity = Capacity(
            max_running=max_running or resident,
            max_resident=resident,
            kv_tokens=int(scheduler.max_total_num_tokens),
            batch_sizes=batch_sizes,
        )
        self.paused = PausedBatch()
        self.ledger = Ledger()
        self.planner: Planner | None = None
        """Set on the entry rank only."""
        self.plan = Plan()
        self.memory = Memory(scheduler, engine, self.paused, self.ledger)
        self.counters = {"pauses": 0, "resumes": 0, "plans": 0}
        self._sharing = Sharing(scheduler, self.paused, self.ledger)
        self._speculative = not scheduler.spec_algorithm.is_none()
        self._filtered: object = None
        self._nothing_to_offer: object = None
        self._nothing_to_swap: object = None
        self._refused: object = None
        self._iteration = 0
        self._last_round = (0, 0.0)

    # --- plans -----------------------------------------------------------------------------------

    def next_plan(self) -> Plan | None:
        """Return the plan to broadcast, or None if the one in force stays. Entry rank only."""
        if self.planner is None:
            return None
        plan = self.planner.newest()
        return None if plan is self.plan else plan

    def use(self, plan: Plan) -> None:
        """Put `plan` into force; called on every rank in the same iteration."""
        self.plan = plan
        self.counters["plans"] += 1

    # --- choices ---------------------------------------------------------------------------------

    def _state(self) -> object:
        """Return a value that stays the same as long as who deserves to run cannot change."""
        return (
            self.counters["plans"],
            self.ledger.changes,
            self.paused.changes,
            self.capacity.max_running,
        )

    def _urgent(self, reqs: Iterable[Req]) -> list[Req]:
        """Return those of `reqs` that no plan orders: they run before all others.

        Health probes, and aborted requests, whose last round frees their memory.
        """
        live = self.ledger.live
        return [r for r in reqs if r.to_finish is not None or r.laps_handle not in live]

    def _best(
        self, urgent: Sequence[Req], among: Any, skip: Iterable[Handle | None] = ()
    ) -> list[Req]:
        """Return the requests that deserve to run, best first: the first `max_running`.

        First `urgent`, then those of the ledger's table `among`, but for `skip`. A health probe is
        no load, and takes no place.
        """
        probes = [req for req in urgent if handle_of(req) is None]
        count = self.capacity.max_running + len(probes)
        best = [*probes, *(req for req in urgent if handle_of(req) is not None)][:count]
        known = {handle_of(req) for req in urgent}.union(skip)
        best += [among[h].req for h in best_of(self.plan, count - len(best), among, known)]
        return best

    # --- moves -----------------------------------------------------------------------------------

    def admit(self, prefill: Callable[[Batch], Any], running: Batch) -> Any:
        """Let SGLang admit from the waiting queue, but only who deserves a slot or comes along.

        `prefill` is SGLang's get_new_batch_prefill; returns its NextBatchPlan. Called once in every
        scheduling decision, before `decode`.
        """
        self._iteration += 1
        scheduler = self.scheduler
        self.ledger.reconcile(scheduler.waiting_queue)
        self.paused.drop_finished()
        if self._filtered != self.ledger.changes:
            # A finished row takes no slot, and a batch of nothing else must be known to be empty.
            drop_finished(running)
            self._filtered = self.ledger.changes
        queue: list[Req] = scheduler.waiting_queue
        best = self._deserving(running)
        offered = [req for req in best if self.ledger.is_waiting(req)]
        cap, iteration = self.capacity.max_running, self._iteration
        waits = self._sharing.waits(
            [] if self._urgent(offered) else offered, running, cap, iteration
        )
        if waits:
            offered = []
        keep = {id(req) for req in best}
        if offered:
            if self._state() != self._refused:
                running.batch_is_full = False  # SGLang looks again only when a row has left
            if scheduler.chunked_req is None:
                self.memory.free_slots(len(offered), lambda: self._victims(keep), running)
                offered += self._sharing.next_in_line(self.plan, best, offered, cap, iteration)
        elif not waits:
            self._nothing_to_offer = self._state()
        scheduler.waiting_queue = list(offered)
        self.memory.adder = None
        out = prefill(running)
        left = scheduler.waiting_queue
        scheduler.waiting_queue = _without_taken(queue, offered, left)
        if offered and left[:1] == offered[:1]:
            self.memory.free_tokens(left[0], lambda: self._victims(keep), out.running_batch)
            self._refused = self._state()
        self.memory.requeue()
        if out.batch_to_run is not None:
            self.ledger.admitted(out.batch_to_run.reqs)
            some_left = any(id(req) in keep for req in left)
            self._sharing.admitted(len(set(offered).difference(left)), iteration, some_left)
        elif self.paused and out.running_batch.is_empty():
            # SGLang decodes, and knows that it is not idle, only if a batch of its own holds a row.
            best = self._best(self.paused.ending(), self.ledger.resident)
            back = [req for req in best if req in self.paused]
            out.running_batch = self.paused.give_back(back or self.paused.reqs)
            self.counters["resumes"] += len(out.running_batch.reqs)
        return out

    def _deserving(self, running: Batch) -> list[Req]:
        """Return the best of all requests; nothing if none of them can be waiting."""
        ledger = self.ledger
        if not ledger.waiting or self._state() == self._nothing_to_offer:
            return []
        urgent = self._urgent(running.reqs) + self.paused.ending()
        if self.scheduler.chunked_req is not None:
            urgent += self._urgent([self.scheduler.chunked_req])
        return self._best(urgent + ledger.waiting_first, ledger.live)

    def _victims(self, keep: Container[int] = ()) -> list[Req]:
        return self.memory.victims(self.plan, self._iteration, keep)

    def decode(self, update: Callable[[Batch], Any], batch: Batch) -> Any:
        """Swap rows so that the best residents decode, then let SGLang prepare the round.

        `update` is SGLang's update_running_batch: the one place where a decode is about to be
        launched, so nothing pauses for the sake of an iteration that runs a prefill.
        """
        if not batch.is_empty():
            self._swap(batch)
            self._make_room(batch)
        rows = batch.reqs
        out = update(batch)
        if len(batch.reqs) < len(rows):
            self.ledger.reconcile_rows(req for req in rows if not self.engine.holds_kv(req))
        self.memory.requeue()
        return out

    def _swap(self, batch: Batch) -> None:
        if not self.paused and len(batch.reqs) <= self.capacity.max_running:
            return
        # Rows that the result in flight will finish leave this round by themselves.
        leaving = {handle_of(r) for r in self.engine.finishing(self.scheduler, batch)}
        if not leaving and self._state() == self._nothing_to_swap:
            return
        rows = [(row, req) for row, req in enumerate(batch.reqs) if handle_of(req) not in leaving]
        urgent = self._urgent(req for _, req in rows) + self.paused.ending()
        if self.scheduler.chunked_req is not None:
            leaving.add(handle_of(self.scheduler.chunked_req))
        best = self._best(urgent, self.ledger.resident, leaving)
        chosen = {id(req) for req in best}
        pause = [row for row, req in rows if id(req) not in chosen]
        resume = [req for req in best if req in self.paused]
        # Resumed rows are appended first, so that the batch is at no time empty.
        if resume:
            batch.merge_batch(self.paused.give_back(resume))
            self.counters["resumes"] += len(resume)
        if pause:
            self.paused.take_in(batch, pause, self._iteration)
            self.counters["pauses"] += len(pause)
        self._nothing_to_swap = self._state()

    def _make_room(self, batch: Batch) -> None:
        """Demote paused requests until the round's KV cache fits.

        Before SGLang sees the shortage: it knows nothing of paused requests and would retract
        running ones, or abort the last of them. If none can be demoted now, all go back into the
        batch, above the cap for this round, so that SGLang can choose among all when it retracts.
        """
        if not self.paused or self.engine.fits_surely(batch):
            return
        while self.paused and not batch.check_decode_mem():
            victims = self._victims()
            if not victims:
                self.counters["resumes"] += len(self.paused)
                batch.merge_batch(self.paused.give_back(self.paused.reqs))
                return
            self.memory.demote(victims[0], batch)

    def resume_all(self) -> None:
        """Put every paused request back into SGLang's running batch."""
        if self.paused:
            back = self.paused.give_back(self.paused.reqs)
            self.scheduler.running_batch = merge(self.scheduler.running_batch, back)

    # --- reports ---------------------------------------------------------------------------------

    def took_result(self, batch: Batch, result: Any) -> None:
        """Note a batch result that SGLang has just processed, and report it."""
        now = time.monotonic()
        if batch.forward_mode.is_decode():
            accepted, drafts = [0] * len(batch.reqs), 0
            if self._speculative:
                accepted = result.num_correct_drafts_per_req_cpu
                drafts = result.speculative_num_draft_tokens - 1
            self.ledger.decoded(batch.reqs, accepted, drafts, self._round_s(now))
        elif batch.forward_mode.is_extend():
            self.ledger.prefilled(batch.reqs)
        self.report(now)

    def _round_s(self, now: float) -> float:
        """Return the time since the previous round's result; 0 if something else came between."""
        iteration, then = self._last_round
        self._last_round = (self._iteration, now)
        return now - then if iteration == self._iteration - 1 else 0.0

    def report(self, now: float) -> None:
        """Hand what happened since the last report to the planner (nowhere on other ranks)."""
        seq = self.planner.seq if self.planner is not None else 0
        report = self.ledger.flush(now, seq)
        if self.planner is not None:
            self.planner.submit(report)

    def snapshot(self) -> Snapshot:
        """Return everything this scheduler holds, as of the last report."""
        return self.ledger.snapshot(
            time.monotonic(), self.capacity, self.scheduler.running_batch.reqs
        )

    def describe(self) -> dict[str, Any]:
        """Return the `laps` block of `/server_info`."""
        planner = self.planner.describe() if self.planner is not None else {}
        return {
            **planner,
            "max_running": self.capacity.max_running,
            "max_resident": self.capacity.max_resident,
            "running": len(self.scheduler.running_batch.reqs),
            "paused": len(self.paused),
            "bad_hints": self.ledger.bad_hints,
            **self.counters,
            "demotions": self.memory.demotions,
        }


def _without_taken(queue: list[Req], offered: list[Req], left: list[Req]) -> list[Req]:
    """Return the waiting queue in order of arrival, where `left` remained of `offered`.

    Requests in `left` that `queue` does not know joined meanwhile: their grammar got ready.
    """
    if left == offered:
        return queue
    known = set(offered)
    taken = known.difference(left)
    joined = [req for req in left if req not in known]
    return [req for req in queue if req not in taken] + joined

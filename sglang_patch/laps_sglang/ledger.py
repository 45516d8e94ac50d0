"""What happened on this scheduler, request by request: the source of reports and snapshots.

Every rank of a tensor-parallel group keeps the same ledger, because handles are given in the order
in which SGLang broadcasts requests; only the entry rank reports.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sortedcontainers import SortedDict

from laps.engine.types import Arrival, Capacity, Handle, Phase, Progress, Snapshot, StepReport
from laps_sglang.hints import NO_HINTS, HintError, parse_hints
from laps_sglang.lengths.prompts import PromptLog

logger = logging.getLogger(__name__)

Req = Any
"""A `sglang.srt.managers.schedule_batch.Req`."""

HEALTH_CHECK = "HEALTH_CHECK"
"""Prefix of SGLang's own health probes (sglang/srt/constants.py): they always run, as no load."""


@dataclass(slots=True)
class _Entry:
    arrival: Arrival
    req: Req
    shared_prefix: int = -1
    """Prompt tokens that the first prefill found in the radix cache; -1 before it."""
    output_tokens: int = 0
    """Output tokens when the request last entered the waiting queue."""


def handle_of(req: Req) -> Handle | None:
    """Return the handle of a request that has been queued; None for one that no plan orders."""
    handle: Handle | None = req.laps_handle
    return handle


class Ledger:
    """Requests of one scheduler by handle, and the events since the last report."""

    def __init__(self) -> None:
        self.step = 0
        self.prompts: PromptLog | None = None
        """Set on the entry rank only, and only if lengths are to be learnt."""
        self.bad_hints = 0
        self.changes = 0
        """Goes up whenever a request arrives, leaves, or moves between queue and memory."""
        self.live: MutableMapping[Handle, _Entry] = SortedDict()
        """Requests that have arrived and not left, ascending: a SortedDict, for `Ranking`."""
        self.resident: MutableMapping[Handle, _Entry] = SortedDict()
        """Those of them that SGLang has taken off its waiting queue; a SortedDict, too."""
        self.waiting_first: list[Req] = []
        """Waiting requests that no plan orders: health probes, and those that SGLang refuses."""
        self._next: Handle = 1
        self._probes = 0
        self._prefilling: set[Handle] = set()
        self._drafts = 0
        self._events: defaultdict[str, list[Any]] = defaultdict(list)
        """What happened since the last report, by field of StepReport."""
        self._round_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests in SGLang's waiting queue, health probes included."""
        return len(self.live) - len(self.resident) + self._probes

    def is_waiting(self, req: Req) -> bool:
        """Return whether `req` is in SGLang's waiting queue."""
        handle = handle_of(req)
        if handle in self.live:
            return handle not in self.resident
        return req in self.waiting_first

    def shared_prefix(self, req: Req) -> int:
        """Return how many tokens of `req` were in the radix cache before it came."""
        handle = handle_of(req)
        entry = self.live.get(handle) if handle is not None else None
        return max(0, entry.shared_prefix) if entry is not None else 0

    def queued(self, req: Req, now_s: float) -> None:
        """Note that SGLang put `req` into its waiting queue, for the first time or again."""
        self.changes += 1
        handle: Handle | None = getattr(req, "laps_handle", None)
        entry = self.live.get(handle) if handle is not None else None
        if entry is not None and handle is not None:
            entry.output_tokens = len(req.output_ids)
            self._prefilling.discard(handle)
            self.resident.pop(handle, None)
            self._events["requeued"].append(handle)
        elif not req.rid.startswith(HEALTH_CHECK):
            self._arrive(req, now_s)
        else:
            req.laps_handle = None
            self._probes += 1
        if handle_of(req) is None or req.to_finish is not None:
            self.waiting_first.append(req)

    def _arrive(self, req: Req, now_s: float) -> None:
        try:
            hints = parse_hints(req.sampling_params.custom_params)
        except HintError as error:
            self.bad_hints += 1
            hints = NO_HINTS
            logger.warning("laps: ignored the hints of request %s: %s", req.rid, error)
        arrival = Arrival(
            handle=self._next,
            # Protobuf takes no lone surrogates; Python's JSON does.
            rid=req.rid.encode("utf-8", "replace").decode(),
            arrival_s=now_s,
            prompt_tokens=len(req.origin_input_ids),
            # SGLang caps max_new_tokens to what the context has room for before it queues.
            max_new_tokens=max(1, req.sampling_params.max_new_tokens or 1),
            hints=hints,
        )
        self._next += 1
        req.laps_handle = arrival.handle
        self.live[arrival.handle] = _Entry(arrival, req)
        self._events["arrived"].append(arrival)
        if self.prompts is not None:
            self.prompts.arrived(arrival.handle, req.origin_input_ids)

    def admitted(self, reqs: Iterable[Req]) -> None:
        """Note that SGLang took `reqs` off its waiting queue into an extend batch."""
        self.changes += 1
        for req in reqs:
            handle = handle_of(req)
            if handle is not None and handle in self.live and handle not in self.resident:
                self.resident[handle] = self.live[handle]
                self._prefilling.add(handle)
            if req in self.waiting_first:
                self._unqueue_first(req)

    def _unqueue_first(self, req: Req) -> None:
        self.waiting_first.remove(req)
        self._probes -= handle_of(req) is None

    def prefilled(self, reqs: Iterable[Req]) -> None:
        """Note the result of an extend batch; a chunk that is not the last one changes nothing."""
        for req in reqs:
            handle = handle_of(req)
            entry = self.live.get(handle) if handle is not None else None
            if entry is None or handle is None:
                self.changes += 1  # a health probe may have finished
                continue
            if entry.shared_prefix < 0:
                entry.shared_prefix = req.cached_tokens
            if handle in self._prefilling and len(req.output_ids) > entry.output_tokens:
                self._prefilling.discard(handle)
                self._events["prefilled"].append(handle)
            self._depart_if_done(handle, req)

    def decoded(
        self, reqs: Sequence[Req], accepted: Sequence[int], drafts: int, round_s: float
    ) -> None:
        """Note the result of a verify round: at most one between two reports.

        `accepted` are the accepted drafts of each request, bonus not counted; `drafts` the draft
        tokens offered to each; `round_s` the round's wall time in seconds, 0 if not known. Rows
        that had left before the result came are passed over: the overlap loop runs them one round
        too many.
        """
        self._drafts = drafts
        self._round_s = round_s
        # In every step for every row: whole lists at a time.
        resident = self.resident
        handles = [req.laps_handle for req in reqs]
        if not all(map(resident.__contains__, handles)):
            self.changes += 1  # a health probe may have finished
            rows = [row for row, handle in enumerate(handles) if handle in resident]
            handles = [handles[row] for row in rows]
            accepted = [accepted[row] for row in rows]
            reqs = [reqs[row] for row in rows]
        if handles:
            self._events["decoded"] = handles
            self._events["committed"] = [drafts + 1 for drafts in accepted]
        for req in [req for req in reqs if req.finished_reason is not None]:
            self._depart(req.laps_handle, req)

    def _depart_if_done(self, handle: Handle, req: Req) -> None:
        if req.finished():
            self._depart(handle, req)

    def _depart(self, handle: Handle, req: Req) -> None:
        from sglang.srt.managers.schedule_batch import FINISH_ABORT

        aborted = isinstance(req.finished_reason, FINISH_ABORT)
        self._events["aborted" if aborted else "finished"].append(handle)
        if self.prompts is not None and not aborted:
            self.prompts.finished(handle, len(req.output_ids_through_stop))
        self._forget(handle)

    def _forget(self, handle: Handle) -> None:
        self.changes += 1
        del self.live[handle]
        self.resident.pop(handle, None)
        self._prefilling.discard(handle)

    def reconcile(self, queue: Sequence[Req]) -> None:
        """Note the requests that left without a result: aborts and timeouts before the first token.

        `queue` is SGLang's waiting queue. Whatever joins it is noted (`queued`), so equal numbers
        are equal sets, and a long queue is only walked when something left it.
        """
        for handle in [h for h in self._prefilling if self.live[h].req.finished()]:
            self._depart_if_done(handle, self.live[handle].req)
        if self.waiting == len(queue):
            return
        queued = set(queue)
        for req in [req for req in self.waiting_first if req not in queued]:
            self._unqueue_first(req)
        gone = [h for h in self.live if h not in self.resident and self.live[h].req not in queued]
        for handle in gone:
            self.rejected(self.live[handle].req)

    def reconcile_rows(self, released: Iterable[Req]) -> None:
        """Note the requests that SGLang aborted in a running batch, for want of memory.

        `released` are rows that hold no KV cache any more: finished and retracted ones, too.
        """
        for req in released:
            handle = handle_of(req)
            if handle in self.resident and not req.finished():
                self.rejected(req)

    def rejected(self, req: Req) -> None:
        """Note that SGLang dropped `req`, if it was known."""
        # A newcomer that found the queue full was never queued.
        handle: Handle | None = getattr(req, "laps_handle", None)
        if handle is not None and handle in self.live:
            self._events["aborted"].append(handle)
            self._forget(handle)

    def flush(self, now_s: float, plan_seq: int) -> StepReport | None:
        """Return what happened since the last report, or None if nothing did."""
        if not self._events:
            return None
        self.step += 1
        fields = {name: tuple(values) for name, values in self._events.items()}
        decoded = "decoded" in fields
        self._events.clear()
        return StepReport(
            self.step,
            now_s,
            plan_seq=plan_seq,
            drafts=self._drafts if decoded else 0,
            round_s=self._round_s if decoded else 0.0,
            **fields,
        )

    def snapshot(self, now_s: float, capacity: Capacity, running: Iterable[Req]) -> Snapshot:
        """Return everything this scheduler holds, as of the last report (flush first)."""
        in_batch = {handle_of(req) for req in running}
        return Snapshot(
            step=self.step,
            time_s=now_s,
            capacity=capacity,
            requests=tuple(
                _as_it_stands(entry, self._phase(handle, in_batch), self._drafts)
                for handle, entry in self.live.items()
            ),
        )

    def _phase(self, handle: Handle, in_batch: set[Handle | None]) -> Phase:
        if handle not in self.resident or handle in self._prefilling:
            return Phase.WAITING
        return Phase.RUNNING if handle in in_batch else Phase.PAUSED


def _as_it_stands(entry: _Entry, phase: Phase, drafts: int) -> Arrival:
    req = entry.req
    # SGLang counts rounds only where it speculates; a plain decode step commits one token.
    rounds = req.spec_verify_ct or max(0, len(req.output_ids) - 1)
    histogram = req.spec_correct_drafts_histogram
    progress = Progress(
        output_tokens=len(req.output_ids),
        rounds=rounds,
        # As if it had always been offered as many as now.
        proposed=rounds * drafts,
        accepted=req.spec_num_correct_drafts,
        accepted_sq=sum(count * accepted**2 for accepted, count in enumerate(histogram)),
    )
    return replace(entry.arrival, phase=phase, progress=progress)

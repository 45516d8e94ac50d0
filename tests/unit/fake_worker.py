"""A worker made up for tests: it applies plans with `rank_by` and reports what came of it.

It has no model, no clock of its own and no delay: requests have a given length and commit a given
number of tokens in each verify round. A prefill and the round after it are one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from laps.engine.selection import rank_by
from laps.engine.types import (
    Arrival,
    Capacity,
    Handle,
    Hints,
    Phase,
    Plan,
    Progress,
    Snapshot,
    StepReport,
)


@dataclass
class FakeRequest:
    """What the worker knows of a request, its future included."""

    arrival: Arrival
    length: int
    accept_lengths: Sequence[int]
    """Tokens committed in round k: item k, cyclic."""
    phase: Phase = Phase.WAITING
    progress: Progress = field(default_factory=Progress)

    @property
    def handle(self) -> Handle:
        return self.arrival.handle


class FakeWorker:
    """Runs the first `max_running` requests by rank; admits and demotes as these need slots."""

    def __init__(self, capacity: Capacity, round_s: float = 0.02, drafts: int = 3) -> None:
        self.capacity = capacity
        self.requests: dict[Handle, FakeRequest] = {}
        self.step = 0
        self.time_s = 0.0
        self.demotions = 0
        self._round_s = round_s
        self.drafts = drafts
        self._handle = 0
        self._arrived: list[Arrival] = []
        self._aborted: list[Handle] = []
        self._requeued: list[Handle] = []

    def submit(
        self,
        length: int,
        accept_lengths: Sequence[int] = (1,),
        hint: int = 0,
        limit: int = 2048,
        prompt: int = 10,
        priority: int = 0,
    ) -> Handle:
        """Take in a request whose output will be `length` tokens; return its handle."""
        self._handle += 1
        arrival = Arrival(
            handle=self._handle,
            rid=f"r{self._handle}",
            arrival_s=self.time_s,
            prompt_tokens=prompt,
            max_new_tokens=limit,
            hints=Hints(predicted_tokens=hint, priority=priority),
        )
        self.requests[self._handle] = FakeRequest(arrival, length, accept_lengths)
        self._arrived.append(arrival)
        return self._handle

    def abort(self, handle: Handle) -> None:
        """Drop a request, as when its client goes away."""
        del self.requests[handle]
        self._aborted.append(handle)

    def demote(self, handle: Handle) -> None:
        """Take a resident request's KV cache away; `flush` must report it before a round."""
        self.requests[handle].phase = Phase.WAITING
        self._requeued.append(handle)
        self.demotions += 1

    def advance(self, seconds: float) -> None:
        """Let time pass without a round."""
        self.time_s += seconds

    def run(self, plan: Plan) -> StepReport:
        """Do one step by `plan` and report it."""
        rank = rank_by(plan)
        ranked = sorted(self.requests, key=rank)
        chosen = [self.requests[handle] for handle in ranked[: self.capacity.max_running]]
        prefilled = [request for request in chosen if request.phase is Phase.WAITING]
        for request in prefilled:
            request.phase = Phase.RUNNING
            self._advance(request, tokens=1)
        self._demote_down_to_capacity(ranked)
        committed, finished = self._verify(chosen)
        self.time_s += self._round_s if chosen else 0.0
        return self.flush(
            prefilled=tuple(request.handle for request in prefilled),
            decoded=tuple(request.handle for request in chosen),
            committed=tuple(committed),
            drafts=self.drafts,
            round_s=self._round_s if chosen else 0.0,
            finished=tuple(finished),
            plan_seq=plan.seq,
        )

    def flush(self, **of_the_round: Any) -> StepReport:
        """Report what happened since the last report, as a step without a round unless told."""
        self.step += 1
        report = StepReport(
            step=self.step,
            time_s=self.time_s,
            arrived=tuple(self._arrived),
            requeued=tuple(self._requeued),
            aborted=tuple(self._aborted),
            **of_the_round,
        )
        self._arrived, self._aborted, self._requeued = [], [], []
        return report

    def snapshot(self) -> Snapshot:
        """Return everything that a newly built engine is told."""
        return Snapshot(
            step=self.step,
            time_s=self.time_s,
            capacity=self.capacity,
            requests=tuple(
                replace(request.arrival, phase=request.phase, progress=request.progress)
                for request in self.requests.values()
            ),
        )

    def _verify(self, chosen: list[FakeRequest]) -> tuple[list[int], list[Handle]]:
        for request in self.requests.values():
            if request.phase is Phase.RUNNING:
                request.phase = Phase.PAUSED
        committed: list[int] = []
        finished: list[Handle] = []
        for request in chosen:
            request.phase = Phase.RUNNING
            rounds = request.progress.rounds
            accept_length = request.accept_lengths[rounds % len(request.accept_lengths)]
            self._advance(request, tokens=accept_length, rounds=1)
            committed.append(accept_length)
            if request.progress.output_tokens >= request.length:
                finished.append(request.handle)
                del self.requests[request.handle]
        return committed, finished

    def _demote_down_to_capacity(self, ranked: list[Handle]) -> None:
        resident = [h for h in ranked if self.requests[h].phase.resident]
        for handle in resident[self.capacity.max_resident :]:
            self.demote(handle)

    def _advance(self, request: FakeRequest, tokens: int, rounds: int = 0) -> None:
        had = request.progress
        accepted = (tokens - 1) * rounds
        request.progress = Progress(
            output_tokens=had.output_tokens + tokens,
            rounds=had.rounds + rounds,
            proposed=had.proposed + self.drafts * rounds,
            accepted=had.accepted + accepted,
            accepted_sq=had.accepted_sq + accepted * accepted,
        )

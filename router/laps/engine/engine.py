"""The engine: reports in, plans out. Hosted unchanged by the service and the worker.

It does no I/O, owns no clock, starts no thread and draws no random number: two engines that saw
the same reports make the same plans. Time is what the reports say.
"""

from __future__ import annotations

import math
from dataclasses import replace

from laps.engine.accuracy import EstimateErrors
from laps.engine.ordering import Ordering
from laps.engine.predictor import ConditionalMean, LengthPredictor
from laps.engine.prior import AcceptancePredictor, AcceptancePrior
from laps.engine.reading import Reading
from laps.engine.shortage import Shortage
from laps.engine.table import Request, RequestTable
from laps.engine.timing import RoundTimer, remaining_s
from laps.engine.types import (
    Arrival,
    Capacity,
    Handle,
    Phase,
    Plan,
    PolicySpec,
    Snapshot,
    StepReport,
)
from laps.policies.base import Policy
from laps.policies.registry import resolve_policy

DEFAULT_POLICY = PolicySpec()

_RUNNING = Phase.RUNNING


class Engine(Reading):
    """Schedules the requests of one worker; `Reading` is what it shows of them.

    Built from a snapshot alone. Not in a snapshot, and begun anew: since when a request rests (now,
    or its arrival if it never ran), the turnover of requests before it came (all count as come at
    once), the rounds it had when it became perceived (the fewest that the stability test takes), in
    which order its rounds came (each is taken for their mean), round times, how far estimates were
    off, that memory is short (until the next request loses its own), and what the two predictors
    have learnt, unless they are handed on.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        policy: PolicySpec | Policy = DEFAULT_POLICY,
        predictor: LengthPredictor | None = None,
        acceptance: AcceptancePredictor | None = None,
    ) -> None:
        """Order by a policy of the registry, or by one of the caller's own.

        Raises PolicyError for a name or parameter that does not exist, naming those that do.
        """
        self.ignored = 0
        """Things reported that made no sense here; see `EngineStats.ignored`."""
        self._spec, self._policy = resolve_policy(policy)
        self._stability = self._policy.stability
        self._capacity = snapshot.capacity
        self._predictor = ConditionalMean() if predictor is None else predictor
        self._acceptance = AcceptancePrior() if acceptance is None else acceptance
        self._table = RequestTable()
        self._timer = RoundTimer(snapshot.capacity.batch_sizes)
        self._errors = EstimateErrors()
        self._step = snapshot.step
        self._now_s = snapshot.time_s if math.isfinite(snapshot.time_s) else 0.0
        self._horizon = 0
        self._rounds = 0
        self._drafts: int | None = None
        self._shortage = Shortage()
        self._preemptions = 0
        self._turnover = 0.0
        self._plan: Plan | None = None
        for arrival in snapshot.requests:
            self._admit(arrival)
        self._reorder()

    @property
    def capacity(self) -> Capacity:
        """What the worker can hold at once."""
        return self._capacity

    @property
    def policy_spec(self) -> PolicySpec:
        """The policy in force, as it was asked for; of one not of the registry only the name."""
        return self._spec

    @property
    def now_s(self) -> float:
        """Time of the newest report, on the worker's clock."""
        return self._now_s

    def observe(self, report: StepReport) -> None:
        """Take in what happened on the worker. Never raises; oddities are counted in `ignored`.

        Within a report: arrivals, prefills, the verify round, losses of memory, departures.
        """
        self._step = max(self._step, report.step)
        if math.isfinite(report.time_s):
            self._now_s = max(self._now_s, report.time_s)
        for arrival in report.arrived:
            request = self._admit(arrival)
            if request is not None:
                self._enter(request, self._now_s)
        prefilled = [handle for handle in report.prefilled if self._prefill(handle)]
        if report.decoded:
            self._round(report)
        for request in map(self._table.get, prefilled):
            # The others ran at once, so that no place among those that rest was to be found.
            if request is not None and request.phase is Phase.PAUSED:
                self._ordering.move(request)
        for handle in report.requeued:
            self._requeue(handle)
        for handle in report.finished:
            self._depart(handle, Phase.FINISHED)
        for handle in report.aborted:
            self._depart(handle, Phase.ABORTED)
        if self._shortage.changes(self._rounds, len(self._table)):
            self._ordering.set_short(self._shortage.crowd, self._table.paused.values())
        self._ordering.settle(self._now_s)

    def plan(self) -> Plan:
        """Return the order in which requests deserve to run, as of the newest report.

        `seq` starts at 1 and moves on when `order` or `horizon` does. At most `plan_size`
        requests are named: more cannot matter before the next plan.
        """
        order = tuple(self._ordering.first(self.plan_size))
        last = self._plan
        if last is None or order != last.order or self._horizon != last.horizon:
            seq = last.seq + 1 if last else 1
            self._plan = Plan(seq, self._step, order, self._horizon)
        elif self._step != last.step:
            self._plan = Plan(last.seq, self._step, last.order, last.horizon)
        assert self._plan is not None
        return self._plan

    def set_policy(self, policy: PolicySpec | Policy) -> None:
        """Order by another policy from the next plan on. Raises PolicyError and changes nothing."""
        spec, policy = resolve_policy(policy)
        if policy.stability != self._stability:
            self._stability = policy.stability
            for request in self._table.live():
                self._perceive_anew(request)
        self._policy = policy
        self._spec = spec
        self._reorder()

    @property
    def plan_size(self) -> int:
        """The most requests that a plan names."""
        return self._ordering.plan_size

    def _admit(self, arrival: Arrival) -> Request | None:
        """Put an arrival that is alive and new into the table."""
        if arrival.handle in self._table or arrival.phase >= Phase.FINISHED:
            self.ignored += 1
            return None
        if not math.isfinite(arrival.arrival_s):
            self.ignored += 1
            arrival = replace(arrival, arrival_s=self._now_s)
        request = Request(arrival)
        request.acceptance.expect(self._acceptance.predict(request.request_class))
        request.came_after = self._turnover
        fresh = arrival.phase is Phase.WAITING and not request.rounds
        request.since_s = min(arrival.arrival_s, self._now_s) if fresh else self._now_s
        if request.rounds:
            self._perceive_anew(request)
        if request.phase is Phase.RUNNING:
            self._errors.start(request)
        self._table.add(request)
        self._horizon = max(self._horizon, arrival.handle)
        return request

    def _enter(self, request: Request, since_s: float) -> None:
        self._ordering.enter(request, since_s)
        if request.phase is Phase.RUNNING:
            self._ordering.start(request)

    def _reorder(self) -> None:
        """Order all requests from scratch; nobody is starving until the next report says so."""
        self._ordering = Ordering(self._policy, self._predictor, self._capacity, self._table.get)
        self._ordering.set_short(self._shortage.crowd, ())
        if self._drafts is not None:
            self._ordering.offer(self._drafts)
        for request in sorted(self._table.live(), key=lambda request: request.since_s):
            request.boost_left = 0
            self._enter(request, request.since_s)

    def _prefill(self, handle: Handle) -> bool:
        """Count a prefill, which brings a token; return whether it made sense."""
        request = self._table.get(handle)
        if request is None or request.phase.resident:
            self.ignored += 1
            return False
        request.output_tokens += 1
        self._table.move(request, Phase.PAUSED)
        return True

    def _round(self, report: StepReport) -> None:
        """Count a verify round for those in it, and a preemption for those that fell out of it."""
        self._rounds += 1
        this, drafts = self._rounds, max(report.drafts, 0)
        if drafts != self._drafts:
            self._drafts = drafts
            self._ordering.offer(drafts)
        get, ran, stable = self._table.get, self._ordering.ran, self._stability.stable
        perceives = self._policy.perceives
        estimable: list[Request] = []
        seen = 0
        for handle, accept_length in zip(report.decoded, self._accept_lengths(report), strict=True):
            request = get(handle)
            if request is None or request.seen_in == this:
                self.ignored += 1
                continue
            seen += 1
            request.seen_in = this
            if accept_length > 0:
                request.output_tokens += accept_length
            request.acceptance.add(accept_length, drafts)
            if not request.perceived_at and stable(request.acceptance):
                request.perceived_at = request.rounds
                estimable.append(request)
            if request.phase is not _RUNNING:
                self._table.move(request, _RUNNING)
                self._ordering.start(request)
                self._errors.start(request)
                if not perceives:
                    estimable.append(request)
            ran(request)
        if len(self._ordering.running) > seen:
            self._pause_those_not_in(this, {*report.finished, *report.aborted})
        self._errors.end_round(self._timer.add(seen, drafts, report.round_s))
        for request in estimable:
            self._errors.note(request, remaining_s(request.remaining_rounds, self._next_round_s))

    def _accept_lengths(self, report: StepReport) -> tuple[int, ...]:
        """Return the accept length of each of `decoded`: 1 where the report says none."""
        missing = len(report.decoded) - len(report.committed)
        if not missing:
            return report.committed
        self.ignored += abs(missing)
        return report.committed[: len(report.decoded)] + (1,) * missing

    def _pause_those_not_in(self, verify_round: int, leaving: set[Handle]) -> None:
        for request in list(self._ordering.running.values()):
            if request.seen_in != verify_round and request.handle not in leaving:
                request.preemptions += 1
                self._preemptions += 1
                self._table.move(request, Phase.PAUSED)
                self._ordering.stop(request, self._now_s)
                self._errors.stop(request)

    def _perceive_anew(self, request: Request) -> None:
        """Judge a request by its counts alone: if stable now, it may have been from the first."""
        stable = self._stability.stable(request.acceptance)
        request.perceived_at = self._stability.min_rounds if stable else 0

    def _requeue(self, handle: Handle) -> None:
        request = self._table.get(handle)
        if request is None or not request.phase.resident:
            self.ignored += 1
            return
        running = request.phase is Phase.RUNNING
        self._table.move(request, Phase.WAITING)
        self._shortage.lose(self._rounds)
        if running:
            self._ordering.stop(request, self._now_s)
            self._errors.stop(request)
        else:
            self._ordering.place(request)

    def _depart(self, handle: Handle, phase: Phase) -> None:
        request = self._table.get(handle)
        if request is None:
            self.ignored += 1
            return
        # By the share of those that run: in a backlog ten times the batch, ten count for one.
        self._turnover += min(self._capacity.max_running / len(self._table), 1.0)
        self._ordering.remove(request)
        if phase is Phase.FINISHED:
            self._errors.finish(request, running=request.phase is Phase.RUNNING)
        self._table.depart(request, phase, self._now_s)
        self._acceptance.observe(request.acceptance, request.request_class)
        if phase is Phase.FINISHED:
            hint = request.hints.predicted_tokens
            self._predictor.observe(request.output_tokens, request.request_class, hint)

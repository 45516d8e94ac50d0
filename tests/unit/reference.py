"""The ordering rules of the policies once more, as slowly and plainly as they are written down.

It shares no rule with the engine, only names: it keeps every round of every request
and sorts all of them with a comparator. Requests must carry a hint longer than their output: it is
then the prediction. The engine must be given `NoPrior` and `LearnsNoLengths`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cmp_to_key
from math import log, sqrt
from statistics import fmean, variance

from laps.engine.acceptance import AcceptanceTracker, Prior
from laps.engine.classes import RequestClass
from laps.engine.predictor import ConditionalMean
from laps.engine.types import Handle, StepReport
from laps.policies.registry import POLICIES


class NoPrior:
    """Expects nothing of a request's acceptance."""

    def observe(self, acceptance: AcceptanceTracker, request_class: RequestClass) -> None:
        """Learn nothing."""

    def predict(self, request_class: RequestClass) -> Prior:
        return Prior(0.0, 0.0)


class LearnsNoLengths(ConditionalMean):
    """Has seen nothing finish."""

    def observe(self, output_tokens: int, request_class: RequestClass, hint: int = 0) -> None:
        """Learn nothing."""


@dataclass
class Rules:
    """The parameters of a policy."""

    policy: str
    order: str = "one-scale"
    quantum: int = 8
    ratio: float = 2.0
    levels: int = 4
    min_rounds: int = 8
    tolerance: float = 0.1873  # no ratio of small integers: rounding cannot decide a case
    inflation: float = 2.0
    max_wait_s: float = 0.0
    boost_rounds: int = 16
    prefill_tokens: int = 512
    patience: float = 100.0
    margin: float = 0.1
    recompute: float = 0.0

    def parameters(self) -> dict[str, float | int | str | bool]:
        """Return those parameters that the policy has, as a PolicySpec takes them."""
        return {field.name: vars(self)[field.name] for field in fields(POLICIES[self.policy])}


@dataclass
class Record:
    """All that happened to one request."""

    handle: Handle
    arrival_s: float
    hint: int
    prompt: int
    priority: int
    since_s: float
    came_after: int
    tokens: int = 0
    accept_lengths: list[int] = field(default_factory=list)
    perceived_at: int | None = None
    resident: bool = False
    runs: bool = False
    boost_left: int = 0


class Reference:
    """Says in which order the live requests of a worker deserve to run."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.records: dict[Handle, Record] = {}
        self.departed = 0
        self.rounds = 0
        self.demoted_at: int | None = None
        self.crowd = 0

    def observe(self, report: StepReport) -> None:
        """Take in a report that makes sense."""
        now = report.time_s
        for arrival in report.arrived:
            self.records[arrival.handle] = Record(
                arrival.handle,
                arrival.arrival_s,
                arrival.hints.predicted_tokens,
                arrival.prompt_tokens,
                arrival.hints.priority,
                now,
                self.departed,
            )
        for handle in report.prefilled:
            self.records[handle].tokens += 1
            self.records[handle].resident = True
        if report.decoded:
            self.rounds += 1
            for handle, accept_length in zip(report.decoded, report.committed, strict=True):
                self._round(self.records[handle], accept_length)
            for record in self.records.values():
                if record.runs and record.handle not in report.decoded:
                    self._stop(record, now)
        for handle in report.requeued:
            self.demoted_at = self.rounds
            self.records[handle].resident = False
            if self.records[handle].runs:
                self._stop(self.records[handle], now)
        for handle in (*report.finished, *report.aborted):
            self.departed += self.records.pop(handle, None) is not None
        self._judge_memory()
        if self.rules.max_wait_s and self.rules.policy in ("laps-sd", "mlfq"):
            for record in self.records.values():
                waited = now - record.since_s
                if not record.runs and not record.boost_left and waited >= self.rules.max_wait_s:
                    record.boost_left = self.rules.boost_rounds

    def order(self) -> list[Handle]:
        """Return all live handles, best first."""
        ranked = sorted(self.records.values(), key=cmp_to_key(self._compare))
        return [record.handle for record in ranked]

    def _judge_memory(self) -> None:
        if self.demoted_at is None or self.rounds - self.demoted_at >= 1000:
            self.crowd = 0
        elif len(self.records) >= self.crowd or len(self.records) < self.crowd // 4:
            self.crowd = next(size for k in range(20) if (size := 2**k) > len(self.records))

    def _cost(self, record: Record) -> float:
        """Return the rounds that the demotion of a resident costs all requests together."""
        if not record.resident:
            return 0.0
        return self.rules.recompute / 1000 * self.crowd * (record.prompt + record.tokens)

    def _round(self, record: Record, accept_length: int) -> None:
        record.runs = True
        record.tokens += accept_length
        record.accept_lengths.append(accept_length)
        record.boost_left = max(record.boost_left - 1, 0)
        if record.perceived_at is None and self._stable(record.accept_lengths):
            record.perceived_at = len(record.accept_lengths)

    def _stop(self, record: Record, now: float) -> None:
        record.runs = False
        if not record.boost_left:
            record.since_s = now

    def _stable(self, accept_lengths: list[int]) -> bool:
        rounds = len(accept_lengths)
        if rounds < self.rules.min_rounds:
            return False
        error = sqrt(self.rules.inflation * variance(accept_lengths) / rounds)
        return error <= self.rules.tolerance * fmean(accept_lengths)

    def _level(self, record: Record) -> int:
        if self.rules.order == "one-scale":
            return 0
        return self._sunk(record.perceived_at or len(record.accept_lengths), joined=0)

    def _fastserve_level(self, record: Record) -> int:
        prefill = record.prompt / self.rules.prefill_tokens
        fitting = [
            level
            for level in range(self.rules.levels)
            if prefill <= self.rules.quantum * self.rules.ratio**level
        ]
        rounds = len(record.accept_lengths)
        attained = rounds + prefill if record.tokens else rounds
        return self._sunk(attained, joined=min(fitting, default=self.rules.levels - 1))

    def _sunk(self, attained: float, joined: int) -> int:
        """Return the level of a request that joined at level `joined` and has had so much."""
        level = joined
        demoted_at = self.rules.quantum * self.rules.ratio**level
        while attained >= demoted_at and level + 1 < self.rules.levels:
            level += 1
            demoted_at += self.rules.quantum * self.rules.ratio**level
        return level

    def _whole_quanta(self, record: Record) -> int:
        rounds = len(record.accept_lengths)
        return rounds - rounds % self.rules.quantum

    def _rounds(self, record: Record) -> float:
        if record.perceived_at is None:
            return self._whole_quanta(record)
        return self._rounds_left(record)

    def _rounds_left(self, record: Record) -> float:
        weight = accepted = 0.0
        for accept_length in record.accept_lengths:
            weight = weight * 63 / 64 + 1
            accepted = accepted * 63 / 64 + accept_length - 1
        per_round = 1 + accepted / weight if weight else 1.0
        return (record.hint - record.tokens) / per_round

    def _ahead_of_its_age(self, record: Record) -> float:
        share = 1.0 - self.rules.margin if record.runs else 1.0
        rounds = self._rounds_left(record) * share
        if cost := self._cost(record):
            rounds = rounds - cost if rounds - cost > 1 else min(rounds, 1)
        return log(rounds) + record.came_after / self.rules.patience

    def _tokens_left(self, record: Record) -> float:
        accept_length = fmean(record.accept_lengths) if record.accept_lengths else 1.0
        return record.hint - record.tokens - self._cost(record) * accept_length

    def _place(self, record: Record) -> tuple[float, ...]:
        match self.rules.policy:
            case "laps-sd":
                return (self._level(record), self._rounds(record) - self._cost(record))
            case "laps-sd+":
                return (self._ahead_of_its_age(record),)
            case "las":
                return (self._whole_quanta(record),)
            case "mlfq":
                return (self._fastserve_level(record),)
            case "priority":
                return (-record.priority,)
            case "sjf":
                return (0 if record.tokens else record.hint,)
            case "srtf":
                return (self._tokens_left(record),)
        return ()

    def _compare(self, a: Record, b: Record) -> int:
        if a.boost_left and b.boost_left:
            return _sign((a.since_s, a.arrival_s, a.handle), (b.since_s, b.arrival_s, b.handle))
        if a.boost_left or b.boost_left:
            return -1 if a.boost_left else 1
        if self._place(a) != self._place(b):
            return _sign(self._place(a), self._place(b))
        return _sign((a.arrival_s, a.handle), (b.arrival_s, b.handle))


def _sign(a: tuple[float, ...], b: tuple[float, ...]) -> int:
    return (a > b) - (a < b)

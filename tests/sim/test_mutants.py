"""The checks against theory can fail: each of these breaks the physics, and a check says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from laps.engine.table import Request
from laps.policies.fcfs import Fcfs
from sim import host
from sim.physics import Linear
from sim.request import SimRequest
from sim.validation import CHECKS
from sim.worker import SimWorker

Patch = pytest.MonkeyPatch


def rounds_cost_one_request_too_many(patch: Patch) -> None:
    def seconds(self: Linear, batch: int) -> float:
        return self.base_s + self.per_request_s * (batch + 1)

    patch.setattr(Linear, "seconds", seconds)


def arrivals_are_seen_a_step_early(patch: Patch) -> None:
    play = host._play

    def early(workload: Any, *rest: Any) -> None:
        play(replace(workload, arrival_s=workload.arrival_s - 1.0), *rest)

    patch.setattr(host, "_play", early)


def arrivals_are_seen_a_step_late(patch: Patch) -> None:
    play = host._play

    def late(workload: Any, *rest: Any) -> None:
        play(replace(workload, arrival_s=workload.arrival_s + 1.0), *rest)

    patch.setattr(host, "_play", late)


def a_sleeping_worker_misses_some_arrivals(patch: Patch) -> None:
    """Of the first thousand times it sleeps, it sleeps every second time for one arrival more."""
    advance = SimWorker.advance
    sleeps = 0

    def drowsy(self: SimWorker, now_s: float) -> float | None:
        nonlocal sleeps
        end_s = advance(self, now_s)
        if end_s is None:
            sleeps += 1
            self.awake = Drowsy() if sleeps % 2 and sleeps < 1000 else False  # type: ignore[assignment]
        return end_s

    patch.setattr(SimWorker, "advance", drowsy)


class Drowsy:
    """True when first asked, false from then on."""

    def __init__(self) -> None:
        self._asked = False

    def __bool__(self) -> bool:
        asked, self._asked = self._asked, True
        return not asked


def preempted_requests_lose_their_work(patch: Patch) -> None:
    leave = SimRequest.leave

    def forgetful(self: SimRequest, next_round: int) -> None:
        leave(self, next_round)
        if self.done < len(self.accept_lengths):
            self.done = 0

    patch.setattr(SimRequest, "leave", forgetful)


def ties_go_to_the_last(patch: Patch) -> None:
    def key(self: Fcfs, request: Request) -> tuple[float, ...]:
        return (request.arrival_s, -request.handle)

    patch.setattr(Fcfs, "key", key)


def one_place_stays_empty(patch: Patch) -> None:
    ranked = SimWorker._ranked

    def short(self: SimWorker) -> Iterator[SimRequest]:
        last = max(1, self._physics.max_running - 1)
        for place, request in enumerate(ranked(self)):
            if place < last:
                yield request

    patch.setattr(SimWorker, "_ranked", short)


def newcomers_wait_for_a_plan(patch: Patch) -> None:
    """Who the plan does not name runs only if nobody else does, though there is room."""
    ranked = SimWorker._ranked

    def strict(self: SimWorker) -> Iterator[SimRequest]:
        named = set(self._plan.order)
        known = [request for request in ranked(self) if request.handle in named]
        yield from known or ranked(self)

    patch.setattr(SimWorker, "_ranked", strict)


def plans_are_a_step_late(patch: Patch) -> None:
    init = SimWorker.__init__

    def late(self: SimWorker, physics: Any, *rest: Any) -> None:
        init(self, replace(physics, plan_delay=1), *rest)

    patch.setattr(SimWorker, "__init__", late)


def requests_end_a_round_late(patch: Patch) -> None:
    enter = SimRequest.enter

    def late(self: SimRequest, next_round: int) -> None:
        if not self.done:
            self.accept_lengths += b"\x01"
        enter(self, next_round)

    patch.setattr(SimRequest, "enter", late)


def the_first_to_come_is_served_last(patch: Patch) -> None:
    def key(self: Fcfs, request: Request) -> tuple[float, ...]:
        return (-request.arrival_s, request.handle)

    patch.setattr(Fcfs, "key", key)


MUTANTS: list[tuple[Callable[[Patch], None], str]] = [
    (rounds_cost_one_request_too_many, "mg1_fcfs"),
    (rounds_cost_one_request_too_many, "processor_sharing"),
    (arrivals_are_seen_a_step_early, "mg1_fcfs"),
    (arrivals_are_seen_a_step_early, "by_hand"),
    (arrivals_are_seen_a_step_late, "by_hand"),
    (a_sleeping_worker_misses_some_arrivals, "mg1_fcfs"),
    (preempted_requests_lose_their_work, "mg1_srpt"),
    (preempted_requests_lose_their_work, "conservation"),
    (ties_go_to_the_last, "by_hand"),
    (one_place_stays_empty, "mmc"),
    (newcomers_wait_for_a_plan, "by_hand"),
    (plans_are_a_step_late, "by_hand"),
    (requests_end_a_round_late, "conservation"),
    (the_first_to_come_is_served_last, "mg1_fcfs"),
]


@pytest.mark.parametrize(
    ("mutant", "check"), MUTANTS, ids=[f"{mutant.__name__}-{check}" for mutant, check in MUTANTS]
)
def test_a_check_rejects(
    mutant: Callable[[Patch], None], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    # The first finding that fails is enough; the rest need not be computed.
    assert any(not finding.holds for finding in CHECKS[check]())

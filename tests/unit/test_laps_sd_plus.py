"""LAPS-SD+ against hand-worked examples: rounds left from the first round on, and age."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.types import (
    Capacity,
    Hints,
    PolicySpec,
    StepReport,
)
from unit.examples import EMPTY, arrival
from unit.fake_worker import FakeWorker


def test_laps_sd_plus_counts_rounds_from_the_first_one_on() -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd+"))
    hints = {1: 60, 2: 90}
    new = tuple(arrival(h, hints=Hints(predicted_tokens=hint)) for h, hint in hints.items())
    engine.observe(StepReport(1, 101.0, arrived=new, prefilled=(1, 2)))
    assert engine.plan().order == (1, 2)
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 4), drafts=3))
    # 58 tokens at 1 a round, 85 at 4 a round (at most 63 by their limit of 64).
    assert engine.plan().order == (2, 1)


@pytest.mark.parametrize(("rounds", "first"), [(81, 1), (79, 2)])
def test_a_newcomer_must_be_shorter_by_the_margin_than_what_runs(rounds: int, first: int) -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"margin": 0.2}))
    runs = arrival(1, hints=Hints(predicted_tokens=102), max_new_tokens=500)
    engine.observe(StepReport(1, 101.0, arrived=(runs,), prefilled=(1,)))
    engine.observe(StepReport(2, 101.0, decoded=(1,), committed=(1,)))  # 100 rounds left
    new = arrival(2, hints=Hints(predicted_tokens=rounds), max_new_tokens=500)
    engine.observe(StepReport(3, 101.0, arrived=(new,)))
    assert engine.plan().order[0] == first
    # Paused, it has no such advantage any more.
    engine.observe(StepReport(4, 101.0, requeued=(1,)))
    assert engine.plan().order[0] == 2


@pytest.mark.parametrize(("left", "first"), [(0, 3), (6, 3), (7, 1), (20, 1)])
def test_age_goes_by_the_requests_that_left(left: int, first: int) -> None:
    # Twice as long counts like ln 2 times 10 requests that left, 6.9.
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"patience": 10.0}))
    old = arrival(1, hints=Hints(predicted_tokens=40))
    engine.observe(StepReport(1, 101.0, arrived=(old,)))
    for handle in range(100, 100 + left):
        engine.observe(StepReport(2, 101.0, arrived=(arrival(handle),), aborted=(handle,)))
    new = arrival(3, hints=Hints(predicted_tokens=20))
    engine.observe(StepReport(3, 101.0, arrived=(new,)))
    assert engine.plan().order[0] == first


def test_in_a_backlog_requests_that_leave_count_less() -> None:
    # 8 are live and 2 can run: 40 that leave count like 10, and 7 of these are needed (see above).
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"patience": 10.0}))
    old = tuple(arrival(h, hints=Hints(predicted_tokens=40)) for h in range(1, 8))
    engine.observe(StepReport(1, 101.0, arrived=old))
    first = []
    for handle in range(100, 141):
        engine.observe(StepReport(2, 101.0, arrived=(arrival(handle, rid=str(handle)),)))
        new = arrival(handle + 100, hints=Hints(predicted_tokens=20))
        engine.observe(StepReport(2, 101.0, aborted=(handle,), arrived=()))
        engine.observe(StepReport(3, 101.0, arrived=(new,)))
        first.append(engine.plan().order[0] == 1)
        engine.observe(StepReport(3, 101.0, aborted=(handle + 100,)))
    # Two leave for each newcomer, so the 14th comes after 27 of them, 6.75.
    assert first == [False] * 14 + [True] * 27


@pytest.mark.parametrize(("patience", "served"), [(3.0, True), (1e9, False)])
def test_nobody_who_comes_after_enough_have_left_goes_before(patience: float, served: bool) -> None:
    worker = FakeWorker(Capacity(max_running=1, max_resident=8))
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd+", {"patience": patience}))
    victim = worker.submit(length=300, hint=300)
    # 300 rounds against 0.9, of a running request with one left: 3 ln 333 = 17.4 requests that
    # leave, or 35, as of two that are live one can run.
    while engine.stats().finished < 35:
        if len(worker.requests) < 2:
            worker.submit(length=3, hint=3)
        engine.observe(worker.run(engine.plan()))
    newcomer = worker.submit(length=3, hint=3)
    engine.observe(worker.flush())
    order = engine.plan().order
    ahead = victim not in order or order.index(victim) < order.index(newcomer)
    assert ahead is served

"""The starvation bound: who starves, in which order they are served, and how soon."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.engine.engine import Engine
from laps.engine.types import (
    Capacity,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)
from unit.examples import EMPTY, arrival
from unit.fake_worker import FakeWorker

IMPATIENT = PolicySpec("laps-sd", {"max_wait_s": 5.0, "boost_rounds": 3})


def starving(engine: Engine) -> tuple[str, ...]:
    return engine.queues()[0].rids


def test_a_starving_request_that_is_stopped_keeps_its_place() -> None:
    engine = Engine(EMPTY, IMPATIENT)
    engine.observe(StepReport(1, 100.0, arrived=(arrival(1),)))
    engine.observe(StepReport(2, 101.0, arrived=(arrival(2),)))
    engine.observe(StepReport(3, 106.0))
    assert starving(engine) == ("r1", "r2")
    engine.observe(StepReport(4, 107.0, prefilled=(1,), decoded=(1,), committed=(1,)))
    engine.observe(StepReport(5, 108.0, requeued=(1,)))
    assert starving(engine) == ("r1", "r2")
    for step in (6, 7):
        engine.observe(StepReport(step, 108.0, decoded=(1,), committed=(1,)))
    assert starving(engine) == ("r2",)
    engine.observe(StepReport(8, 112.9, requeued=(1,)))
    engine.observe(StepReport(9, 117.8))
    assert starving(engine) == ("r2",)
    engine.observe(StepReport(10, 118.0))
    assert starving(engine) == ("r2", "r1")


@pytest.mark.parametrize("end", ["boost", "finish"])
def test_no_more_starve_than_a_plan_names_and_the_others_follow(end: str) -> None:
    tight = Snapshot(0, 100.0, Capacity(max_running=1, max_resident=2))
    engine = Engine(tight, IMPATIENT)
    for handle in range(1, 10):
        new = arrival(handle)
        engine.observe(StepReport(handle, 100.0 + handle / 10, arrived=(new,)))
    engine.observe(StepReport(10, 110.0))
    for first in range(1, 10):
        assert engine.plan().order[0] == first
        assert starving(engine) == tuple(f"r{h}" for h in range(first, min(first + 3, 10)))
        if end == "boost":
            for _ in range(3):
                engine.observe(StepReport(11, 110.0, decoded=(first,), committed=(1,)))
        else:
            engine.observe(StepReport(11, 110.0, finished=(first,)))
    assert starving(engine) == ()


def test_a_new_policy_begins_without_starving_requests() -> None:
    engine = Engine(EMPTY, IMPATIENT)
    engine.observe(StepReport(1, 100.0, arrived=(arrival(1), arrival(2))))
    engine.observe(StepReport(2, 106.0))
    assert starving(engine) == ("r1", "r2")
    engine.set_policy(PolicySpec("fcfs"))
    assert starving(engine) == ()
    engine.set_policy(IMPATIENT)
    assert starving(engine) == ()
    engine.observe(StepReport(3, 106.0))
    assert starving(engine) == ("r1", "r2")


def test_after_a_resync_only_those_that_never_ran_have_waited_since_arrival() -> None:
    had = Progress(output_tokens=5, rounds=4)
    requests = (
        arrival(1, phase=Phase.PAUSED, progress=had),
        arrival(2, progress=had),
        arrival(3),
    )
    engine = Engine(Snapshot(9, 110.0, Capacity(2, 4), requests), IMPATIENT)
    engine.observe(StepReport(10, 110.1))
    assert starving(engine) == ("r3",)
    engine.observe(StepReport(11, 115.0))
    assert starving(engine) == ("r3", "r1", "r2")


@given(
    cap=st.integers(1, 4),
    victims=st.integers(1, 9),
    boost_rounds=st.integers(1, 5),
    max_wait_s=st.sampled_from([0.1, 0.3, 1.0]),
    order=st.sampled_from(["one-scale", "strict"]),
    burst=st.integers(0, 3),
)
@settings(deadline=None, max_examples=40)
def test_starvation_bound_under_adversarial_arrivals(
    cap: int, victims: int, boost_rounds: int, max_wait_s: float, order: str, burst: int
) -> None:
    """A stream of new requests, each of which would go first, cannot hold a starving one back.

    From the report that makes a request starving with m starving ones before it, it runs after at
    most ceil(m / cap) * boost_rounds further rounds.
    """
    worker = FakeWorker(Capacity(cap, 2 * cap + victims))
    parameters: dict[str, float | int | str | bool] = {
        "order": order,
        "max_wait_s": max_wait_s,
        "boost_rounds": boost_rounds,
        "min_rounds": 2,
        "quantum": 4,
    }
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd", parameters))
    long = {f"r{worker.submit(length=1500, limit=2000)}" for _ in range(victims)}
    due: dict[str, int] = {}
    starved: set[str] = set()
    for step in range(int(max_wait_s / 0.02) + 3 * victims * boost_rounds + 40):
        for _ in range(cap + burst):
            worker.submit(length=3, hint=3)
        report = worker.run(engine.plan())
        ran = {f"r{handle}" for handle in report.decoded}
        for rid in ran:
            due.pop(rid, None)
        assert all(step < latest for latest in due.values()), "a starving request ran too late"
        engine.observe(report)
        starving = engine.queues()[0]
        assert starving.name == "starving"
        for m, rid in enumerate(starving.rids):
            if rid not in due and rid not in ran:
                due[rid] = step + 1 + ceil(m / cap) * boost_rounds
        starved.update(long & set(starving.rids))
    assert starved, "the arrivals were meant to starve the long requests"


def test_without_the_bound_the_same_arrivals_starve_a_request() -> None:
    worker = FakeWorker(Capacity(max_running=2, max_resident=8))
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd", {"max_wait_s": 0.0}))
    victim = worker.submit(length=1500)
    for _ in range(20):
        engine.observe(worker.run(engine.plan()))
    for _ in range(500):
        for _ in range(2):
            worker.submit(length=3, hint=3)
        engine.observe(worker.run(engine.plan()))
    # The plan of the first burst was made before it came.
    assert engine.status(victim).rounds == 21
    assert engine.status(victim).phase is Phase.PAUSED

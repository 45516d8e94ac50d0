"""Reports that make no sense do no harm."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laps.engine.engine import Engine
from laps.engine.types import (
    Arrival,
    Capacity,
    Hints,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)
from unit.examples import arrival, engine_with


@pytest.mark.parametrize(
    ("report", "ignored"),
    [
        (StepReport(2, 102.0, prefilled=(77,), requeued=(77,), finished=(77,), aborted=(77,)), 4),
        (StepReport(2, 102.0, decoded=(1, 77, 2), committed=(2, 9, 2)), 1),
        (StepReport(2, 102.0, decoded=(1, 1, 2), committed=(2, 9, 2)), 1),
        (StepReport(2, 102.0, decoded=(1, 2), committed=(2, 2, 5, 5)), 2),
        (StepReport(2, 102.0, arrived=(arrival(1),), decoded=(1, 2), committed=(2, 2)), 1),
        (StepReport(2, 102.0, prefilled=(1,), decoded=(1, 2), committed=(2, 2)), 1),
        (StepReport(2, 102.0, arrived=(arrival(5, phase=Phase.FINISHED),)), 1),
    ],
)
def test_oddities_are_ignored_and_counted(report: StepReport, ignored: int) -> None:
    engine = engine_with(1, 2)
    engine.observe(report)
    assert engine.stats().ignored == ignored
    assert [status.rid for status in engine.statuses()] == ["r1", "r2"]
    assert engine.status(1) == engine_with_after_round(report).status(1)


def engine_with_after_round(report: StepReport) -> Engine:
    """Return what the engine should be after the sound part of `report`."""
    engine = engine_with(1, 2)
    sound = StepReport(2, 102.0, decoded=(1, 2), committed=(2, 2)) if report.decoded else None
    engine.observe(sound or StepReport(2, 102.0))
    return engine


def test_a_request_without_its_count_ran_and_got_one_token() -> None:
    engine = engine_with(1, 2)
    engine.observe(StepReport(2, 102.0, decoded=(1, 2), committed=(4,)))
    assert engine.status(1).output_tokens == 7
    assert engine.status(2).output_tokens == 4
    assert engine.status(2).phase is Phase.RUNNING
    assert engine.stats().ignored == 1


def test_a_handle_is_not_taken_again_after_it_left() -> None:
    engine = engine_with(1)
    engine.observe(StepReport(2, 102.0, finished=(1,)))
    engine.observe(StepReport(3, 103.0, arrived=(arrival(1),)))
    assert engine.plan().order == ()
    assert engine.status(1).phase is Phase.FINISHED
    assert engine.stats().ignored == 1


def test_time_and_step_never_go_back() -> None:
    engine = engine_with(1)
    for time_s in (5.0, nan, inf, -inf):
        engine.observe(StepReport(step=0, time_s=time_s))
        assert engine.now_s == 101.0
        assert engine.stats().step == 1
    engine.observe(StepReport(step=2, time_s=102.0, arrived=(arrival(2, arrival_s=nan),)))
    assert engine.status(2).age_s == 0.0


HANDLES = st.lists(st.integers(0, 8), max_size=6).map(tuple)
NUMBERS = st.integers(-(2**40), 2**40)
ARRIVALS = st.builds(
    Arrival,
    handle=st.integers(0, 8),
    rid=st.sampled_from(["a", "b", ""]),
    arrival_s=st.floats(),
    prompt_tokens=NUMBERS,
    max_new_tokens=NUMBERS,
    hints=st.builds(Hints, predicted_tokens=NUMBERS, deadline_s=st.floats()),
    phase=st.sampled_from(Phase),
    progress=st.builds(Progress, *[NUMBERS] * 5),
)
REPORTS = st.builds(
    StepReport,
    step=NUMBERS,
    time_s=st.one_of(st.floats(), st.floats(0, 200)),
    arrived=st.lists(ARRIVALS, max_size=3).map(tuple),
    prefilled=HANDLES,
    decoded=HANDLES,
    committed=st.lists(NUMBERS, max_size=6).map(tuple),
    drafts=NUMBERS,
    round_s=st.floats(),
    requeued=HANDLES,
    finished=HANDLES,
    aborted=HANDLES,
)


@given(
    requests=st.lists(ARRIVALS, max_size=4).map(tuple),
    reports=st.lists(REPORTS, max_size=12),
    spec=st.sampled_from(
        [
            PolicySpec("laps-sd", {"order": "one-scale", "max_wait_s": 1.0, "min_rounds": 2}),
            PolicySpec("laps-sd", {"order": "strict", "max_wait_s": 1.0, "min_rounds": 2}),
            PolicySpec("mlfq", {"max_wait_s": 1.0}),
            *(PolicySpec(name) for name in ("las", "priority", "sjf", "srtf")),
        ]
    ),
)
@settings(deadline=None, max_examples=400)
def test_nonsense_never_raises_and_never_breaks_the_order(
    requests: tuple[Arrival, ...], reports: list[StepReport], spec: PolicySpec
) -> None:
    snapshot = Snapshot(0, 0.0, Capacity(2, 20), requests)
    engine = Engine(snapshot, spec)
    for report in reports:
        engine.observe(report)
        plan = engine.plan()
        assert len(set(plan.order)) == len(plan.order)
        stats = engine.stats()
        assert stats.running + stats.paused + stats.waiting == len(plan.order)
        assert all(handle <= plan.horizon for handle in plan.order)
        assert len(engine.statuses()) == sum(len(queue.rids) for queue in engine.queues())
        for handle in plan.order:
            assert engine.explain(engine.status(handle).rid).reason

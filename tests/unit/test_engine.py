"""What the engine makes of reports, odd ones included, and what it shows."""

from __future__ import annotations

from dataclasses import fields
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laps.engine.engine import Engine
from laps.engine.predictor import ConditionalMean
from laps.engine.types import (
    Arrival,
    Capacity,
    Hints,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
    UnknownRequestError,
)
from laps.engine.views import RequestStatus
from laps.policies.base import PolicyError
from laps.v1 import client_pb2
from unit.fake_worker import FakeWorker

EMPTY = Snapshot(step=0, time_s=100.0, capacity=Capacity(max_running=2, max_resident=4))


def arrival(handle: int, **changes: object) -> Arrival:
    known = {"rid": f"r{handle}", "arrival_s": 100.0, "prompt_tokens": 7, "max_new_tokens": 64}
    return Arrival(handle=handle, **(known | changes))  # type: ignore[arg-type]


def engine_with(*handles: int, policy: str = "laps-sd") -> Engine:
    """Return an engine whose requests have had their prefill and one round of 2 tokens."""
    engine = Engine(EMPTY, PolicySpec(policy))
    engine.observe(
        StepReport(
            step=1,
            time_s=101.0,
            arrived=tuple(map(arrival, handles)),
            prefilled=handles,
            decoded=handles,
            committed=(2,) * len(handles),
            drafts=3,
            round_s=0.05,
        )
    )
    return engine


def test_a_request_from_arrival_to_finish() -> None:
    engine = Engine(EMPTY)
    engine.observe(StepReport(step=1, time_s=100.5, arrived=(arrival(4),)))
    assert engine.status(4).phase is Phase.WAITING
    engine.observe(StepReport(step=2, time_s=101.0, prefilled=(4,)))
    assert engine.status(4).phase is Phase.PAUSED  # resident, and in no verify round yet
    assert engine.status(4).output_tokens == 1
    engine.observe(StepReport(3, 102.0, decoded=(4,), committed=(3,), drafts=4, round_s=0.04))
    status = engine.status(4)
    assert status.phase is Phase.RUNNING
    assert (status.output_tokens, status.rounds) == (4, 1)
    assert (status.accept_length, status.accept_rate) == (3.0, 0.5)
    assert not status.perceived
    assert status.remaining_s == 0.0
    for step in range(4, 11):
        engine.observe(StepReport(step, 102.0, decoded=(4,), committed=(3,), drafts=4))
    status = engine.status(4)
    assert status.perceived
    assert status.output_tokens == 25
    assert status.predicted_tokens == 50  # as long again: nothing has finished yet
    assert status.remaining_s == pytest.approx(25 / 3 * 0.04)
    engine.observe(StepReport(11, 103.0, decoded=(4,), committed=(1,), drafts=4, finished=(4,)))
    engine.observe(StepReport(12, 200.0))
    status = engine.status(engine.handle_of("r4"))
    assert status.phase is Phase.FINISHED
    assert status.output_tokens == 26
    assert status.age_s == 3.0
    assert status.remaining_s == 0.0
    assert engine.plan().order == ()
    assert engine.stats().finished == 1


def test_preemption_is_counted_when_a_round_goes_on_without_a_running_request() -> None:
    engine = engine_with(1, 2, 3)
    engine.observe(StepReport(2, 101.1))  # no round: nobody was left out
    assert engine.stats().preemptions == 0
    engine.observe(StepReport(3, 101.2, decoded=(1,), committed=(1,), finished=(3,)))
    assert engine.status(2).phase is Phase.PAUSED
    assert engine.status(2).preemptions == 1
    assert engine.status(3).preemptions == 0
    engine.observe(StepReport(4, 101.3, decoded=(1,), committed=(1,)))
    assert engine.status(2).preemptions == 1
    assert engine.stats().preemptions == 1


def test_a_request_that_lost_its_memory_waits_and_keeps_what_it_got() -> None:
    engine = engine_with(1, 2)
    engine.observe(StepReport(2, 101.1, decoded=(2,), committed=(2,), requeued=(1,)))
    status = engine.status(1)
    assert status.phase is Phase.WAITING
    assert (status.output_tokens, status.rounds) == (3, 1)
    engine.observe(StepReport(3, 101.2, prefilled=(1,)))
    assert engine.status(1).output_tokens == 4
    assert engine.stats().ignored == 0


def test_plan_is_the_same_object_until_something_changes() -> None:
    engine = Engine(EMPTY)
    first = engine.plan()
    assert (first.seq, first.order, first.horizon) == (1, (), 0)
    assert engine.plan() is first
    engine.observe(StepReport(step=5, time_s=101.0))
    second = engine.plan()
    assert (second.seq, second.step) == (1, 5)
    assert second.order is first.order
    engine.observe(StepReport(step=6, time_s=101.0, arrived=(arrival(1),)))
    assert (engine.plan().seq, engine.plan().order, engine.plan().horizon) == (2, (1,), 1)
    engine.observe(StepReport(step=7, time_s=101.0, arrived=(arrival(9),), aborted=(9,)))
    assert (engine.plan().seq, engine.plan().order, engine.plan().horizon) == (3, (1,), 9)
    assert engine.stats().plans == 3


def test_reading_changes_nothing() -> None:
    engines = [engine_with(1, 2, 3) for _ in range(2)]
    for step in range(2, 40):
        report = StepReport(step, 101.0 + step, decoded=(1 + step % 2,), committed=(1 + step % 3,))
        for engine in engines:
            engine.observe(report)
        engines[0].plan()
        engines[0].queues()
        engines[0].statuses(include_departed=True)
        engines[0].explain("r1")
    assert engines[0].plan().order == engines[1].plan().order
    assert engines[0].statuses() == engines[1].statuses()
    assert engines[0].explain("r2") == engines[1].explain("r2")


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


def test_of_two_requests_with_one_id_the_newer_is_found() -> None:
    engine = engine_with(1)
    engine.observe(StepReport(2, 102.0, arrived=(arrival(2, rid="r1"),)))
    assert engine.handle_of("r1") == 2
    engine.observe(StepReport(3, 103.0, finished=(1,)))
    assert engine.handle_of("r1") == 2
    assert engine.explain("r1").status.phase is Phase.WAITING


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
    order=st.sampled_from(["one-scale", "strict"]),
)
@settings(deadline=None, max_examples=200)
def test_nonsense_never_raises_and_never_breaks_the_order(
    requests: tuple[Arrival, ...], reports: list[StepReport], order: str
) -> None:
    snapshot = Snapshot(0, 0.0, Capacity(2, 20), requests)
    spec = PolicySpec("laps-sd", {"order": order, "max_wait_s": 1.0, "min_rounds": 2})
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


def test_departed_requests_are_remembered_for_a_while() -> None:
    engine = Engine(EMPTY)
    for handle in range(1, 1101):
        engine.observe(StepReport(handle, 101.0, arrived=(arrival(handle),)))
        engine.observe(StepReport(handle, 101.0, aborted=(handle,)))
    assert engine.status(engine.handle_of("r1100")).phase is Phase.ABORTED
    newest = engine.statuses(include_departed=True)
    assert [status.rid for status in newest[:2]] == ["r1100", "r1099"]
    assert len(newest) == 1024
    for ask in (lambda: engine.handle_of("r1"), lambda: engine.explain("r1")):
        with pytest.raises(UnknownRequestError, match="'r1', or it left too long ago"):
            ask()
    with pytest.raises(UnknownRequestError, match="no request with handle 1"):
        engine.status(1)
    assert engine.stats().aborted == 1100


def test_only_finished_lengths_are_learnt_and_a_predictor_is_handed_on() -> None:
    predictor = ConditionalMean()
    engine = Engine(EMPTY, predictor=predictor)
    engine.observe(StepReport(1, 101.0, arrived=(arrival(1), arrival(2)), prefilled=(1, 2)))
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(9, 39), drafts=40))
    engine.observe(StepReport(3, 101.0, finished=(1,), aborted=(2,)))
    after = Engine(EMPTY, predictor=predictor)
    after.observe(StepReport(1, 101.0, arrived=(arrival(1),)))
    assert after.status(1).predicted_tokens == 10


def test_predictions_of_resting_requests_follow_what_finishes() -> None:
    """Eight of them a report: 20 paused requests are up to date after three reports."""
    paused = tuple(
        arrival(
            handle,
            max_new_tokens=1000,
            phase=Phase.PAUSED,
            progress=Progress(output_tokens=20 + handle, rounds=10),
        )
        for handle in range(1, 21)
    )
    short = arrival(21, phase=Phase.PAUSED, progress=Progress(output_tokens=300, rounds=10))
    engine = Engine(Snapshot(0, 0.0, Capacity(2, 30), (*paused, short)))
    engine.observe(StepReport(1, 1.0, finished=(21,)))
    seen = [sum(status.predicted_tokens == 300 for status in engine.statuses())]
    for step in (2, 3, 4):
        engine.observe(StepReport(step, 1.0))
        seen.append(sum(status.predicted_tokens == 300 for status in engine.statuses()))
    assert seen == [8, 16, 20, 20]
    # The farther a request is, the less is left of the 300.
    assert engine.plan().order == tuple(range(20, 0, -1))


def test_policy_changes_from_the_next_plan_on() -> None:
    engine = engine_with(1, 2, policy="fcfs")
    engine.observe(StepReport(2, 102.0, arrived=(arrival(3),)))
    for step in range(3, 12):
        engine.observe(StepReport(step, 102.0, decoded=(1, 2), committed=(1, 1)))
    before = engine.plan()
    assert before.order == (1, 2, 3)
    spec = PolicySpec("laps-sd", {"min_rounds": 4})
    engine.set_policy(spec)
    assert engine.policy_spec is spec
    assert engine.plan().order == (3, 1, 2)
    assert engine.plan().seq == before.seq + 1
    with pytest.raises(PolicyError, match="no policy 'nonesuch'"):
        engine.set_policy(PolicySpec("nonesuch"))
    assert engine.policy_spec is spec
    engine.set_policy(PolicySpec("laps-sd", {"min_rounds": 40}))
    assert not any(status.perceived for status in engine.statuses())


def test_an_unknown_policy_is_refused_at_once() -> None:
    with pytest.raises(PolicyError, match="there are: fcfs, laps-sd"):
        Engine(EMPTY, PolicySpec("nonesuch"))


def test_a_status_has_the_contracts_fields() -> None:
    contract = {field.name for field in client_pb2.RequestStatus.DESCRIPTOR.fields}
    assert {field.name for field in fields(RequestStatus)} == contract - {"worker_id"}


def test_queues_are_shown_in_order_with_their_phases() -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd", {"order": "strict", "quantum": 1, "levels": 2}))
    engine.observe(StepReport(1, 101.0, arrived=tuple(map(arrival, (1, 2, 3))), prefilled=(1, 2)))
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 1)))
    engine.observe(StepReport(3, 101.0, decoded=(1,), committed=(1,)))
    starving, level_0, level_1 = engine.queues()
    assert (starving.name, starving.rids) == ("starving", ())
    assert (level_0.name, level_0.rids, level_0.waiting) == ("level 0", ("r3",), 1)
    assert (level_1.name, level_1.rids) == ("level 1", ("r2", "r1"))
    assert (level_1.running, level_1.paused, level_1.waiting) == (1, 1, 0)


def test_every_decision_is_explained() -> None:
    worker = FakeWorker(Capacity(max_running=1, max_resident=2))
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd", {"max_wait_s": 2.0}))
    worker.submit(length=500)
    for _ in range(20):
        engine.observe(worker.run(engine.plan()))
    worker.submit(length=500)
    worker.submit(length=500)
    engine.observe(worker.flush())

    explained = engine.explain("r1")
    assert (explained.policy, explained.queue, explained.rank) == ("laps-sd", "one scale", 2)
    # 21 tokens, as long again, one a round
    assert [(part.name, part.value) for part in explained.key] == [
        ("queue", 1),
        ("rounds", 21.0),
        ("arrival_s", 0.0),
        ("handle", 1),
    ]
    assert explained.reason == (
        "runs until the worker takes the new plan: 2 requests go first (fewer rounds got "
        "(unperceived) or left (perceived)) and 1 run at a time; "
        "perceived, about 21 rounds (0.4 s) left"
    )
    assert engine.explain("r2").reason == (
        "waits for its prefill: place 1 of 1, once the worker has a slot and memory for it; "
        "unperceived, 0 rounds got"
    )
    engine.observe(worker.run(engine.plan()))
    assert engine.explain("r2").reason == "runs: place 1 of 1; unperceived, 1 rounds got"
    assert engine.explain("r1").reason.startswith("paused: 2 requests go first")
    assert engine.explain("r3").reason.startswith("waits: 1 requests go first")

    worker.advance(2.5)
    engine.observe(worker.flush())
    explained = engine.explain("r1")
    assert (explained.queue, explained.rank) == ("starving", 1)
    assert [part.name for part in explained.key][1] == "resting since_s"
    assert "starving: had not run for 2.5 s, goes before all queues for 16" in explained.reason
    worker.abort(1)
    engine.observe(worker.flush())
    explained = engine.explain("r1")
    assert explained.reason == "left: was aborted after 21 tokens in 20 rounds"
    assert (explained.queue, explained.rank, explained.key) == ("", 0, ())

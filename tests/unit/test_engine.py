"""What the engine makes of reports."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.predictor import ConditionalMean
from laps.engine.types import (
    Capacity,
    Hints,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)
from laps.policies.base import PolicyError
from unit.examples import EMPTY, arrival, engine_with


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
    assert status.predicted_tokens == 32  # the next power of two: nothing has finished yet
    assert status.remaining_s == pytest.approx(7 / 3 * 0.04)
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
    """Two of them a report: 11 paused requests are up to date after six reports."""
    paused = tuple(
        arrival(
            handle,
            max_new_tokens=1000,
            phase=Phase.PAUSED,
            progress=Progress(output_tokens=20 + handle, rounds=10),
        )
        for handle in range(1, 12)
    )
    longest = arrival(12, phase=Phase.PAUSED, progress=Progress(output_tokens=300, rounds=10))
    engine = Engine(Snapshot(0, 0.0, Capacity(2, 30), (*paused, longest)))
    engine.observe(StepReport(1, 1.0, finished=(12,)))
    seen = [sum(status.predicted_tokens == 300 for status in engine.statuses())]
    for step in range(2, 8):
        engine.observe(StepReport(step, 1.0))
        seen.append(sum(status.predicted_tokens == 300 for status in engine.statuses()))
    assert seen == [2, 4, 6, 8, 10, 11, 11]
    # The farther a request is, the less is left of the 300.
    assert engine.plan().order == tuple(range(11, 0, -1))


def test_a_prefill_moves_a_perceived_request() -> None:
    """It brings a token, so less is left."""
    had = Progress(output_tokens=21, rounds=10)
    hints = Hints(predicted_tokens=60)
    paused = arrival(1, hints=hints, phase=Phase.PAUSED, progress=had)
    waiting = arrival(2, hints=hints, progress=had)
    engine = Engine(Snapshot(0, 0.0, Capacity(1, 4), (paused, waiting)))
    assert engine.plan().order == (1, 2)
    engine.observe(StepReport(1, 0.0, prefilled=(2,)))
    assert engine.plan().order == (2, 1)


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

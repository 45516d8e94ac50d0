"""The time estimate is held against what requests took."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.types import Hints, PolicySpec, StepReport
from laps.engine.views import EngineStats
from unit.examples import EMPTY, arrival

ROUND_S = 0.5


def after(
    policy: str, hint: int, pause: int = 0, unknown: int = 0, rounds: int = 20
) -> EngineStats:
    """Return the figures of an engine after one request of a token a round and so many rounds.

    It is paused after half of them for `pause` rounds of another one that take ten times as long;
    the time of the first `unknown` rounds is not known.
    """
    engine = Engine(EMPTY, PolicySpec(policy))
    new = (arrival(1, hints=Hints(predicted_tokens=hint)), arrival(2))
    engine.observe(StepReport(1, 101.0, arrived=new, prefilled=(1, 2)))
    for _ in range(3):  # how long a round takes
        engine.observe(StepReport(2, 101.0, decoded=(2,), committed=(1,), round_s=ROUND_S))
    for index in range(rounds):
        if index == rounds // 2:
            for _ in range(pause):
                slow = StepReport(2, 102.0, decoded=(2,), committed=(1,), round_s=10 * ROUND_S)
                engine.observe(slow)
        done = (1,) if index == rounds - 1 else ()
        round_s = 0.0 if index < unknown else ROUND_S
        engine.observe(
            StepReport(2, 102.0, decoded=(1,), committed=(1,), round_s=round_s, finished=done)
        )
    return engine.stats()


@pytest.mark.parametrize(
    ("policy", "hint", "error"),
    [
        # Perceived after 4 rounds, with 5 tokens; 16 rounds follow.
        ("laps-sd", 21, 0.0),
        ("laps-sd", 37, 1.0),
        ("laps-sd", 13, -0.5),
        # No wait: noted after the first round, with 2 tokens; 19 rounds follow.
        ("laps-sd+", 21, 0.0),
        ("fcfs", 40, 1.0),
    ],
)
def test_the_error_by_hand(policy: str, hint: int, error: float) -> None:
    estimates = after(policy, hint).estimates
    assert estimates.count == 1
    assert estimates.mean == pytest.approx(error, abs=1e-9)
    assert estimates.mean_abs == pytest.approx(abs(error), abs=1e-9)


def test_time_that_it_is_paused_does_not_count() -> None:
    estimates = after("laps-sd", hint=21, pause=7).estimates
    assert estimates.count == 1
    assert estimates.mean == pytest.approx(0.0, abs=1e-9)


def test_a_round_of_unknown_time_counts_as_one_of_its_size() -> None:
    estimates = after("laps-sd", hint=21, unknown=12).estimates
    assert estimates.count == 1
    assert estimates.mean == pytest.approx(0.0, abs=1e-9)


def test_without_a_time_or_an_end_nothing_is_counted() -> None:
    assert after("laps-sd", hint=21, rounds=4).estimates.count == 0  # it ended as it was perceived
    engine = Engine(EMPTY)
    engine.observe(StepReport(1, 101.0, arrived=(arrival(1), arrival(2)), prefilled=(1, 2)))
    for _ in range(9):
        engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 1)))
    engine.observe(StepReport(3, 101.0, finished=(1,), aborted=(2,)))
    estimates = engine.stats().estimates
    assert (estimates.count, estimates.mean, estimates.mean_abs) == (0, 0.0, 0.0)

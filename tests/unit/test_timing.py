"""Round times by size of batch, and the time estimate made of them."""

from __future__ import annotations

import random
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.table import Request
from laps.engine.timing import RoundTimer, remaining_s
from laps.engine.types import Progress
from unit.examples import arrival

CAPTURED = (1, 2, 4, 8, 16, 24, 32)


def timed(timer: RoundTimer, batch: int, round_s: float, times: int = 20, drafts: int = 3) -> None:
    for _ in range(times):
        timer.add(batch, drafts, round_s)


def test_remaining_time_is_the_papers_estimate() -> None:
    # L = 120 tokens left, n = 3 drafts, A = 0.5, T_SSM = 2 ms, T_LLM = 14 ms
    tokens, drafts, rate, draft_s, verify_s = 120, 3, 0.5, 0.002, 0.014
    paper = tokens * (drafts * draft_s + verify_s) / (drafts * rate + 1)
    request = Request(
        arrival(1, progress=Progress(output_tokens=30, rounds=20, proposed=60, accepted=30))
    )
    request.predicted_tokens = 150
    assert request.acceptance.accept_rate == rate
    assert request.remaining_rounds == 48
    assert remaining_s(48, drafts * draft_s + verify_s) == pytest.approx(paper)


def test_before_any_round_a_token_is_taken_to_need_one() -> None:
    request = Request(arrival(1))
    request.predicted_tokens = 10
    assert request.remaining_rounds == 10


def test_what_is_no_time_is_not_learnt_and_counts_as_expected() -> None:
    timer = RoundTimer()
    assert timer.seconds(4) == 0.0
    assert timer.add(4, 3, 0.0) == 0.0
    assert timer.add(4, 3, 0.1) == 0.1
    for nonsense in (0.0, -1.0, nan, inf, 1e300):
        assert timer.add(4, 3, nonsense) == pytest.approx(0.1)
    assert timer.seconds(4) == pytest.approx(0.1)


def test_a_batch_takes_as_long_as_the_captured_size_that_it_is_padded_to() -> None:
    timer = RoundTimer(CAPTURED)
    timed(timer, 10, 0.02)
    timed(timer, 20, 0.03)
    assert [timer.seconds(batch) for batch in (9, 16)] == pytest.approx([0.02, 0.02])
    assert [timer.seconds(batch) for batch in (17, 24)] == pytest.approx([0.03, 0.03])


def test_without_captured_sizes_the_buckets_are_powers_of_two() -> None:
    timer = RoundTimer()
    timed(timer, 5, 0.02)
    timed(timer, 9, 0.03)
    assert [timer.seconds(b) for b in (5, 8, 9, 16)] == pytest.approx([0.02, 0.02, 0.03, 0.03])


@given(
    base=st.floats(1e-4, 1.0), slope=st.floats(0.0, 0.1), seen=st.sets(st.sampled_from(CAPTURED))
)
def test_sizes_that_never_ran_are_on_the_line_through_the_others(
    base: float, slope: float, seen: set[int]
) -> None:
    timer = RoundTimer(CAPTURED)
    for size in seen:
        timed(timer, size, base + slope * size)
    for size in CAPTURED if len(seen) > 1 else seen:
        assert timer.seconds(size) == pytest.approx(base + slope * size)


@given(st.dictionaries(st.integers(1, 100), st.floats(1e-6, 100.0), min_size=1, max_size=8))
def test_a_line_is_never_at_or_below_zero_and_never_falls(times: dict[int, float]) -> None:
    timer = RoundTimer()
    for batch, round_s in times.items():
        timed(timer, batch, round_s, times=2)
    for batch in range(1, 200):
        assert 0.0 < timer.seconds(batch) < inf
    unseen = [timer.seconds(2**k) for k in range(8, 12)]
    assert unseen == sorted(unseen)


def test_few_rounds_of_a_size_lean_on_the_line() -> None:
    timer = RoundTimer(CAPTURED)
    timed(timer, 1, 0.010)
    timed(timer, 32, 0.041)
    assert timer.seconds(16) == pytest.approx(0.025)
    timer.add(16, 3, 0.050)
    assert 0.025 < timer.seconds(16) < 0.035
    timed(timer, 16, 0.050)
    assert timer.seconds(16) == pytest.approx(0.050)


def test_outliers_hardly_move_a_time_and_a_lasting_change_does() -> None:
    draw = random.Random(3)
    timer = RoundTimer()
    for _ in range(1000):
        slow = draw.random() < 0.05
        timer.add(8, 3, draw.gauss(0.01, 0.0005) * (20.0 if slow else 1.0))
    assert timer.seconds(8) == pytest.approx(0.01, rel=0.1)
    timed(timer, 8, 0.02, times=60)
    assert timer.seconds(8) == pytest.approx(0.02, rel=0.02)


def test_another_number_of_drafts_has_times_of_its_own() -> None:
    timer = RoundTimer()
    timed(timer, 8, 0.01, drafts=1)
    timed(timer, 8, 0.02, drafts=5)
    assert timer.seconds(8) == pytest.approx(0.02)
    timer.add(8, 1, 0.0)  # not timed: what is in force is that of the newest timed round
    assert timer.seconds(8) == pytest.approx(0.02)
    timer.add(8, 1, 0.01)
    assert timer.seconds(8) == pytest.approx(0.01)
    for drafts in range(100):
        timer.add(8, drafts, 0.03)
    assert timer.seconds(8) == pytest.approx(0.03)

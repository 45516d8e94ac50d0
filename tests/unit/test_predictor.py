"""Length prediction and the time estimate."""

from __future__ import annotations

from math import ceil, inf, nan
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.predictor import ConditionalMean
from laps.engine.timing import RoundTimer, remaining_rounds, remaining_s


@pytest.mark.parametrize(
    ("output", "limit", "hint", "expected"),
    [
        (10, 500, 80, 80),  # the hint, while the output is shorter
        (80, 500, 80, 250),  # the hint is used up: mean of 100, 200 and 450
        (10, 50, 80, 50),  # never above the limit
        (0, 500, 0, 195),  # mean of all: 30, 100, 200, 450
        (30, 500, 0, 250),  # longer than 30 only
        (200, 500, 0, 450),
        (450, 500, 0, 500),  # nobody got further: the next power of two, cut at the limit
        (499, 500, 0, 500),
        (500, 500, 0, 501),  # above its output in any case
        (700, 500, 0, 701),
    ],
)
def test_prediction_by_hand(output: int, limit: int, hint: int, expected: int) -> None:
    predictor = ConditionalMean()
    for length in (200, 30, 450, 100):
        predictor.observe(length)
    assert predictor.predict(output, limit, hint) == expected


def test_without_evidence_it_runs_to_the_next_power_of_two() -> None:
    predictor = ConditionalMean()
    assert predictor.predict(0, 300, 0) == 300
    assert predictor.predict(1, 300, 0) == 2
    assert predictor.predict(40, 300, 0) == 64
    assert predictor.predict(63, 300, 0) == 64
    assert predictor.predict(64, 300, 0) == 128
    assert predictor.predict(256, 300, 0) == 300


def test_only_the_newest_finished_lengths_count() -> None:
    predictor = ConditionalMean(window=2)
    for length in (1000, 10, 20):
        predictor.observe(length)
    assert predictor.predict(0, 2000, 0) == 15
    predictor.observe(40)
    assert predictor.predict(0, 2000, 0) == 30


def test_window_must_hold_something() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ConditionalMean(window=0)


@given(
    finished=st.lists(st.integers(0, 200), max_size=40),
    queries=st.lists(st.tuples(st.integers(0, 220), st.integers(1, 300)), min_size=1, max_size=9),
    window=st.integers(1, 12),
)
def test_prediction_is_the_mean_of_the_longer_ones_within_its_bounds(
    finished: list[int], queries: list[tuple[int, int]], window: int
) -> None:
    predictor = ConditionalMean(window)
    for count, length in enumerate(finished, start=1):
        predictor.observe(length)
        newest = finished[max(count - window, 0) : count]
        for output, limit in queries:
            predicted = predictor.predict(output, limit, 0)
            assert output < predicted <= max(limit, output + 1)
            longer = [length for length in newest if length > output]
            if longer:
                assert predicted == max(min(ceil(fmean(longer)), limit), output + 1)


def test_round_time_is_a_mean_that_ignores_what_was_not_measured() -> None:
    timer = RoundTimer()
    assert timer.round_s == 0.0
    timer.add(0.0)
    assert timer.round_s == 0.0
    timer.add(0.1)
    assert timer.round_s == 0.1
    for nonsense in (0.0, -1.0, nan, inf):
        timer.add(nonsense)
    assert timer.round_s == 0.1
    timer.add(0.2)
    assert timer.round_s == pytest.approx(0.11)
    for _ in range(100):
        timer.add(0.2)
    assert timer.round_s == pytest.approx(0.2, rel=1e-3)


def test_remaining_time_is_the_papers_estimate() -> None:
    # L = 120 tokens left, n = 3 drafts, A = 0.5, T_SSM = 2 ms, T_LLM = 14 ms
    tokens, drafts, rate, draft_s, verify_s = 120, 3, 0.5, 0.002, 0.014
    paper = tokens * (drafts * draft_s + verify_s) / (drafts * rate + 1)
    rounds = remaining_rounds(tokens, accept_length=drafts * rate + 1)
    assert rounds == 48
    assert remaining_s(rounds, drafts * draft_s + verify_s) == pytest.approx(paper)


def test_an_accept_length_below_one_cannot_be() -> None:
    assert remaining_rounds(10, accept_length=0.0) == 10

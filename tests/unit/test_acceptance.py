"""Acceptance statistics and the stability test."""

from __future__ import annotations

from statistics import fmean, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.acceptance import AcceptanceTracker, StabilityTest
from laps.engine.types import Progress


def tracked(accept_lengths: list[int], drafts: int = 3) -> AcceptanceTracker:
    tracker = AcceptanceTracker()
    for accept_length in accept_lengths:
        tracker.add(accept_length, drafts)
    return tracker


def test_mean_rate_and_variance_by_hand() -> None:
    tracker = tracked([1, 4, 2, 3], drafts=4)
    assert tracker.accept_length == 2.5
    assert tracker.accept_rate == 6 / 16
    assert tracker.variance == pytest.approx(5 / 3)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=50))
def test_statistics_are_those_of_the_accept_lengths(accept_lengths: list[int]) -> None:
    tracker = tracked(accept_lengths, drafts=8)
    assert tracker.accept_length == pytest.approx(fmean(accept_lengths))
    assert tracker.variance == pytest.approx(variance(accept_lengths))
    assert 0.0 <= tracker.accept_rate <= 1.0


@given(st.lists(st.integers(1, 9), max_size=50), st.lists(st.integers(1, 9), max_size=20))
def test_restored_from_progress_equals_built_round_by_round(
    before: list[int], after: list[int]
) -> None:
    accepted = [accept_length - 1 for accept_length in before]
    progress = Progress(
        output_tokens=1 + sum(before),
        rounds=len(before),
        proposed=8 * len(before),
        accepted=sum(accepted),
        accepted_sq=sum(a * a for a in accepted),
    )
    restored = AcceptanceTracker.restored(progress)
    assert restored == tracked(before, drafts=8)
    for accept_length in after:
        restored.add(accept_length, 8)
    assert restored == tracked(before + after, drafts=8)


def test_before_the_first_round_nothing_is_known() -> None:
    tracker = AcceptanceTracker()
    assert (tracker.accept_length, tracker.accept_rate, tracker.variance) == (0.0, 0.0, 0.0)
    assert not StabilityTest(min_rounds=2).stable(tracker)


def test_plain_decoding_has_accept_length_one_and_is_stable_after_min_rounds() -> None:
    test = StabilityTest(min_rounds=5)
    for rounds in range(1, 9):
        tracker = tracked([1] * rounds, drafts=0)
        assert tracker.accept_length == 1.0
        assert tracker.accept_rate == 0.0
        assert test.stable(tracker) == (rounds >= 5)


@pytest.mark.parametrize(
    ("accept_lengths", "tolerance", "inflation", "stable"),
    [
        # mean 2, variance 32/31, error of the mean sqrt(1.032 / 32) = 0.180, that is 9.0 %
        ([1, 3] * 16, 0.10, 1.0, True),
        ([1, 3] * 16, 0.08, 1.0, False),
        # twice the variance: 12.7 %
        ([1, 3] * 16, 0.10, 2.0, False),
        ([1, 3] * 16, 0.13, 2.0, True),
        # half the rounds: variance 16/15, sqrt(1.067 / 16) = 0.258, that is 12.9 %
        ([1, 3] * 8, 0.10, 1.0, False),
        ([1, 3] * 8, 0.13, 1.0, True),
        # no spread at all, but too few rounds
        ([4] * 7, 0.10, 1.0, False),
        ([4] * 8, 0.10, 1.0, True),
    ],
)
def test_stability_by_hand(
    accept_lengths: list[int], tolerance: float, inflation: float, stable: bool
) -> None:
    test = StabilityTest(min_rounds=8, tolerance=tolerance, inflation=inflation)
    assert test.stable(tracked(accept_lengths)) is stable


@given(st.builds(Progress, *[st.integers(-(10**6), 10**6)] * 5))
def test_impossible_counts_do_no_harm(progress: Progress) -> None:
    tracker = AcceptanceTracker.restored(progress)
    tracker.add(-3, -1)
    assert tracker.accept_length >= 1.0
    assert 0.0 <= tracker.accept_rate <= 1.0
    assert tracker.variance >= 0.0
    StabilityTest().stable(tracker)

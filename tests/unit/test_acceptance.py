"""Acceptance statistics and the stability test."""

from __future__ import annotations

from statistics import fmean, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.acceptance import AcceptanceTracker, Prior, StabilityTest
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
    lived = tracked(before, drafts=8)
    assert sums(restored) == sums(lived)
    assert restored.weight == pytest.approx(lived.weight)
    for accept_length in after:
        restored.add(accept_length, 8)
    assert sums(restored) == sums(tracked(before + after, drafts=8))


def sums(tracker: AcceptanceTracker) -> tuple[int, int, int, int]:
    return (tracker.rounds, tracker.proposed, tracker.accepted, tracker.accepted_sq)


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


def estimate(tracker: AcceptanceTracker) -> float:
    return tracker.weighted / tracker.weight


def test_the_estimate_is_shrunk_to_its_prior_by_hand() -> None:
    tracker = AcceptanceTracker()
    tracker.expect(Prior(accepted=2.0, rounds=4.0, drafts=3))
    assert estimate(tracker) == 2.0
    tracker.add(1, drafts=3)
    # Four rounds of 2, a 64th faded, and one of 0.
    faded = 4.0 * 63 / 64
    assert estimate(tracker) == pytest.approx(2.0 * faded / (faded + 1.0))
    for _ in range(500):
        tracker.add(1, drafts=3)
    assert estimate(tracker) < 0.001


def test_the_estimate_follows_a_drift_that_the_mean_drowns() -> None:
    tracker = tracked([1] * 400 + [4] * 64)
    assert tracker.accept_length - 1.0 == pytest.approx(3 * 64 / 464)
    assert 1.8 < estimate(tracker) < 2.0


@given(st.integers(1, 4), st.integers(1, 300), st.floats(0.0, 3.0), st.floats(0.0, 64.0))
def test_restored_from_even_progress_the_estimate_is_the_same(
    accept_length: int, rounds: int, mean: float, weight: float
) -> None:
    prior = Prior(mean, weight, drafts=3)
    lived = AcceptanceTracker()
    lived.expect(prior)
    for _ in range(rounds):
        lived.add(accept_length, 3)
    accepted = (accept_length - 1) * rounds
    restored = AcceptanceTracker.restored(
        Progress(rounds=rounds, proposed=3 * rounds, accepted=accepted)
    )
    restored.expect(prior)
    assert estimate(restored) == pytest.approx(estimate(lived), abs=1e-9)

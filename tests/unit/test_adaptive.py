"""Speculation whose number of drafts changes at run time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.acceptance import AcceptanceTracker, Prior
from laps.engine.chain import at_drafts, expected_accepted, probability_of
from laps.engine.engine import Engine
from laps.engine.prior import AcceptancePrior
from laps.engine.types import Hints, Phase, PolicySpec, Progress, StepReport
from unit.examples import EMPTY, arrival

FADE = 63 / 64
PROBABILITIES = st.floats(0.0, 1.0)
DRAFTS = st.integers(1, 16)


def estimate(tracker: AcceptanceTracker) -> float:
    return tracker.weighted / tracker.weight if tracker.weight else 0.0


def rounds(draw: random.Random, probability: float, drafts: int, count: int) -> list[int]:
    """Return accept lengths of rounds in which each draft needs the one before it."""
    lengths = []
    for _ in range(count):
        length = 1
        while length <= drafts and draw.random() < probability:
            length += 1
        lengths.append(length)
    return lengths


@given(PROBABILITIES, DRAFTS)
def test_the_expectation_is_the_sum_of_powers(probability: float, drafts: int) -> None:
    powers = sum(probability**k for k in range(1, drafts + 1))
    assert expected_accepted(probability, drafts) == pytest.approx(powers, abs=1e-6)


@given(st.floats(0.001, 0.999), st.floats(0.1, 16.0), st.floats(0.1, 16.0))
def test_what_is_told_of_other_drafts_can_be_told_back(p: float, before: float, now: float) -> None:
    accepted = expected_accepted(p, before)
    assert at_drafts(accepted, before, now) == pytest.approx(expected_accepted(p, now), abs=1e-6)


@given(st.floats(-1.0, 20.0), st.floats(0.0, 16.0))
def test_any_mean_has_a_probability(accepted: float, drafts: float) -> None:
    probability = probability_of(accepted, drafts)
    assert 0.0 <= probability <= 1.0
    if 0.0 < accepted < drafts:
        assert expected_accepted(probability, drafts) == pytest.approx(accepted, abs=1e-6)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=99), st.floats(0, 4), st.floats(0, 64))
def test_with_constant_drafts_it_is_the_faded_mean(
    lengths: list[int], mean: float, weight: float
) -> None:
    tracker = AcceptanceTracker()
    tracker.expect(Prior(mean, weight, drafts=4))
    total = weight * mean
    for accept_length in lengths:
        tracker.add(accept_length, 4)
        weight, total = FADE * weight + 1.0, FADE * total + (accept_length - 1)
    assert (tracker.weight, tracker.weighted) == (weight, total)


@given(st.floats(0.05, 0.95), DRAFTS, DRAFTS, st.integers(0, 99))
def test_after_a_change_it_is_right_at_once(p: float, before: int, now: int, seed: int) -> None:
    tracker = AcceptanceTracker()
    tracker.expect(Prior(expected_accepted(p, before), 64.0, drafts=before))
    tracker.offer(now)
    assert estimate(tracker) == pytest.approx(expected_accepted(p, now), abs=1e-6)
    draw = random.Random(seed)
    lived = AcceptanceTracker()
    for accept_length in rounds(draw, p, before, 400):
        lived.add(accept_length, before)
    lived.offer(now)
    # As far off as chance has it: what 64 rounds or so say of p.
    told = probability_of(estimate(lived), now)
    assert abs(told - p) < 0.3


def test_the_cut_at_few_drafts_is_not_taken_for_low_acceptance() -> None:
    draw = random.Random(1)
    tracker = AcceptanceTracker()
    for accept_length in rounds(draw, 0.8, 1, 2000):
        tracker.add(accept_length, 1)
    tracker.offer(5)
    assert estimate(tracker) == pytest.approx(expected_accepted(0.8, 5), rel=0.2)
    assert estimate(tracker) > 2.0  # not 0.8, nor a blend


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), max_size=40))
def test_plain_rounds_have_accept_length_one_and_forget_nothing(
    steps: list[tuple[int, int]],
) -> None:
    tracker, spoken = AcceptanceTracker(), AcceptanceTracker()
    for drafts, tokens in steps:
        accept_length = min(tokens, drafts + 1)
        tracker.add(accept_length, drafts)
        if drafts:
            spoken.add(accept_length, drafts)
        else:
            assert estimate(tracker) == 0.0
    tracker.offer(4)
    spoken.offer(4)
    assert estimate(tracker) == pytest.approx(estimate(spoken), abs=1e-6)


def test_restored_from_progress_it_goes_on_in_terms_of_what_is_offered() -> None:
    # Half of the rounds plain, half with one draft of which 60 % were accepted.
    progress = Progress(rounds=200, proposed=100, accepted=60, accepted_sq=60)
    tracker = AcceptanceTracker.restored(progress)
    tracker.offer(1)
    assert estimate(tracker) == pytest.approx(0.6)
    plain = AcceptanceTracker.restored(Progress(rounds=50))
    plain.expect(Prior(1.0, 8.0, drafts=2))
    assert estimate(plain) == 0.0
    plain.offer(2)
    assert estimate(plain) == pytest.approx(1.0)


def test_the_prior_is_in_terms_of_one_number_of_drafts() -> None:
    draw = random.Random(7)
    prior = AcceptancePrior()
    for drafts in (3, 1, 5, 0, 3, 7) * 40:
        tracker = AcceptanceTracker()
        for accept_length in rounds(draw, 0.7, drafts, 60):
            tracker.add(accept_length, drafts)
        prior.observe(tracker, "a")
    learnt = prior.predict("a")
    assert learnt.drafts == 3
    assert learnt.accepted == pytest.approx(expected_accepted(0.7, 3), rel=0.05)


def test_resting_requests_are_ranked_by_what_is_offered_now() -> None:
    """The best of them first; each by its own acceptance, which more drafts bring out."""
    engine = Engine(EMPTY, PolicySpec("laps-sd+", {"margin": 0.0, "recompute": 0.0}))
    slow = Progress(output_tokens=1, rounds=40, proposed=40, accepted=4, accepted_sq=4)
    quick = Progress(output_tokens=1, rounds=40, proposed=40, accepted=38, accepted_sq=38)
    hints = Hints(predicted_tokens=31)
    resting = (
        arrival(1, hints=hints, phase=Phase.PAUSED, progress=slow),
        arrival(2, hints=Hints(predicted_tokens=61), phase=Phase.PAUSED, progress=quick),
    )
    engine.observe(StepReport(1, 101.0, arrived=(*resting, arrival(3)), prefilled=(3,)))
    engine.observe(StepReport(2, 101.0, decoded=(3,), committed=(1,), drafts=1))
    # 30 tokens at 1.1 a round, 60 at 1.95.
    assert [h for h in engine.plan().order if h != 3] == [1, 2]
    engine.observe(StepReport(3, 101.0, decoded=(3,), committed=(1,), drafts=4))
    # At 1.11 and 4.5 a round.
    assert [h for h in engine.plan().order if h != 3] == [2, 1]
    engine.observe(StepReport(4, 101.0, decoded=(3,), committed=(1,), drafts=0))
    assert [h for h in engine.plan().order if h != 3] == [1, 2]

"""What a hint is worth, and the posterior of a length that follows from it."""

from __future__ import annotations

import random
from math import ceil, exp, log, sqrt
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.hinted import ENOUGH, HintedLengths, HintNoise
from laps.engine.predictor import ConditionalMean
from laps.engine.survival import bucket


def test_the_fit_finds_shift_slope_and_spread() -> None:
    draw = random.Random(1)
    noise = HintNoise()
    for _ in range(4000):
        tokens = round(draw.lognormvariate(5.0, 0.9))
        noise.add(tokens, max(round(exp(1.5 + 0.6 * log(tokens) + 0.4 * draw.gauss(0, 1))), 1))
    shift, slope, spread = noise.fit()
    assert shift == pytest.approx(1.5, abs=0.1)
    assert slope == pytest.approx(0.6, abs=0.03)
    assert spread == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("lengths", [(100,), (100, 200)])
def test_perfect_hints_are_trusted_to_the_width_of_a_bucket(lengths: tuple[int, ...]) -> None:
    noise = HintNoise()
    for _ in range(50):
        for tokens in lengths:
            noise.add(tokens, tokens)
    assert noise.fit()[2] == pytest.approx(0.1)


def test_the_posterior_is_bayes_rule_by_hand() -> None:
    # Half of the outputs have 50 tokens and half 400; hints are off by a factor of 2, either way,
    # so the slope is 1, the shift 0 and the spread ln 2.
    lengths = HintedLengths(window=1000)
    for _ in range(250):
        for tokens in (50, 400):
            lengths.add(tokens, tokens // 2)
            lengths.add(tokens, tokens * 2)
    assert lengths.weighs
    # Hints are on a grid of 1/8 in their logarithm.
    hint = round(exp(5.0))
    near, far = (exp(-(((5.0 - log(tokens)) / log(2)) ** 2) / 2) for tokens in (50, 400))
    expected = (near * 50 + far * 400) / (near + far)
    assert lengths.mean(bucket(0), hint) == pytest.approx(expected, rel=0.02)
    # Past 50 tokens it can but be the longer one, whatever the hint said.
    for index in range(bucket(50) + 1, bucket(400) + 1):
        assert lengths.mean(index, hint) == 400
    assert lengths.mean(bucket(400) + 1, hint) == 0


def test_hints_are_believed_until_enough_is_known_and_if_the_policy_says_so() -> None:
    draw = random.Random(2)
    predictor = ConditionalMean()

    def finish() -> None:  # hints tell nothing, and are too large
        predictor.observe(draw.choice((90, 110)), "a", draw.choice((500, 2000)))

    for _ in range(ENOUGH - 1):
        finish()
    assert predictor.predict(0, 4000, 1000, "a", weigh=True) == (1000, 1000, False)
    finish()
    assert predictor.predict(0, 4000, 1000, "a", weigh=True).tokens == pytest.approx(100, abs=6)
    assert predictor.predict(0, 4000, 1000, "a") == (1000, 1000, False)
    # A class that has shown nothing yet goes by all.
    assert predictor.predict(0, 4000, 1000, "b", weigh=True).tokens == pytest.approx(100, abs=6)
    # Nobody got so far: the hint is all there is.
    assert predictor.predict(300, 4000, 1000, "a", weigh=True) == (1000, 1000, False)


def test_a_class_weighs_its_own_hints_once_it_has_shown_enough() -> None:
    draw = random.Random(3)
    predictor = ConditionalMean()
    for _ in range(4 * ENOUGH):
        tokens = round(draw.lognormvariate(5.0, 0.9)) + 1
        predictor.observe(tokens, "right", tokens)
        predictor.observe(round(draw.lognormvariate(5.0, 0.9)) + 1, "wrong", tokens)
    right, wrong = (
        [predictor.predict(0, 4000, hint, name, weigh=True).tokens for hint in (40, 400)]
        for name in ("right", "wrong")
    )
    assert right == pytest.approx([40, 400], rel=0.15)
    assert wrong[1] < 2 * wrong[0]


def test_a_weighed_prediction_is_nearer_than_the_hint() -> None:
    draw = random.Random(4)
    predictor = ConditionalMean()

    def request() -> tuple[int, int]:
        tokens = min(max(round(draw.lognormvariate(4.9, 0.9)), 4), 1000)
        return tokens, max(round(tokens * exp(0.8 * draw.gauss(0, 1))), 1)

    for _ in range(1000):
        tokens, hint = request()
        predictor.observe(tokens, "a", hint)
    off = {True: 0.0, False: 0.0}
    for tokens, hint in (request() for _ in range(500)):
        for weigh in off:
            predicted = predictor.predict(0, 2048, hint, "a", weigh).tokens
            off[weigh] += (predicted - tokens) ** 2 / 500
    assert sqrt(off[True]) < 0.5 * sqrt(off[False])


@given(
    finished=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=ENOUGH, max_size=150
    ),
    queries=st.lists(
        st.tuples(st.integers(0, 6000), st.integers(1, 6000), st.integers(0, 2**31 - 1)),
        min_size=1,
        max_size=9,
    ),
)
def test_whatever_was_seen_a_weighed_prediction_is_within_its_bounds(
    finished: list[tuple[int, int]], queries: list[tuple[int, int, int]]
) -> None:
    predictor = ConditionalMean()
    for tokens, hint in finished:
        predictor.observe(tokens, "a", hint)
    for output, limit, hint in queries:
        predicted = predictor.predict(output, limit, hint, "a", weigh=True)
        assert output < predicted.tokens <= max(limit, output + 1)
        assert output < predicted.until <= predicted.tokens


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(1, 10_000))
def test_without_a_relation_the_posterior_is_the_mean_of_those_that_got_so_far(
    lengths: list[int], hint: int
) -> None:
    known = HintedLengths(window=100)
    for tokens in lengths * ENOUGH:
        known.add(tokens, 7)
    newest = (lengths * ENOUGH)[-100:]
    for index in {bucket(tokens) for tokens in lengths}:
        so_far = [tokens for tokens in newest if bucket(tokens) >= index]
        if so_far:
            assert abs(known.mean(index, hint) - ceil(fmean(so_far))) <= 1

"""Length prediction and the time estimate."""

from __future__ import annotations

from math import ceil, log
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laps.engine.classes import MOST_CLASSES, class_of
from laps.engine.predictor import ConditionalMean
from laps.engine.survival import bucket, bucket_end
from laps.engine.types import Hints


# Buckets begin at 0, 16, 32, ..., 240, 256, 288, 320, ..., 480, 512, 576, ...
@pytest.mark.parametrize(
    ("output", "limit", "hint", "expected"),
    [
        (10, 500, 80, (80, 80, False)),  # the hint, while the output is shorter
        (80, 500, 80, (250, 96, True)),  # the hint is used up: mean of 100, 200 and 450
        (10, 50, 80, (50, 50, False)),  # never above the limit
        (0, 500, 0, (195, 16, True)),  # mean of all: 30, 100, 200, 450
        (15, 500, 0, (195, 16, True)),
        (16, 500, 0, (195, 32, True)),  # 30 is in this bucket, too
        (32, 500, 0, (250, 48, True)),
        (250, 500, 0, (450, 256, True)),
        (449, 500, 0, (450, 450, True)),
        (450, 500, 0, (500, 480, True)),  # nobody got further: a power of two, cut at the limit
        (500, 500, 0, (501, 501, True)),  # above its output in any case
        (700, 500, 0, (701, 701, True)),
    ],
)
def test_prediction_by_hand(
    output: int, limit: int, hint: int, expected: tuple[int, int, bool]
) -> None:
    predictor = ConditionalMean()
    for length in (200, 30, 450, 100):
        predictor.observe(length, "a")
    assert predictor.predict(output, limit, hint, "a") == expected


def test_without_evidence_it_runs_to_the_next_power_of_two() -> None:
    predictor = ConditionalMean()
    assert predictor.predict(0, 300, 0, "a").tokens == 300
    assert predictor.predict(1, 300, 0, "a").tokens == 2
    assert predictor.predict(40, 300, 0, "a").tokens == 64
    assert predictor.predict(63, 300, 0, "a").tokens == 64
    assert predictor.predict(64, 300, 0, "a").tokens == 128
    assert predictor.predict(256, 300, 0, "a").tokens == 300


def test_only_the_newest_finished_lengths_count() -> None:
    predictor = ConditionalMean(window=2)
    for length in (1000, 10, 20):
        predictor.observe(length, "a")
    assert predictor.predict(0, 2000, 0, "a").tokens == 15
    predictor.observe(40, "a")
    assert predictor.predict(0, 2000, 0, "a").tokens == 30


def test_window_must_hold_something() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ConditionalMean(window=0)


def test_a_class_is_told_from_the_others_the_more_it_has_shown() -> None:
    predictor = ConditionalMean()
    for _ in range(100):
        predictor.observe(400, "essays")
    predicted = []
    for count in range(200):
        predicted.append(predictor.predict(0, 2000, 0, "labels").tokens)
        predictor.observe(4, "labels")
        assert predictor.predict(0, 2000, 0, "essays").tokens > 350, count
    assert predicted[0] == 400  # nothing is known of it: the mean of all
    # One of its own and, for eight, the mean of all (in which one of 101 is not counted yet).
    assert predicted[1] == (4 + 8 * 400) // 9
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[-1] < 12
    assert predictor.predict(0, 2000, 0, "a newcomer").tokens < 150


def test_tenants_are_classes_and_so_are_limits_where_there_is_no_tenant() -> None:
    assert class_of(Hints(tenant="acme"), 100) == class_of(Hints(tenant="acme"), 9000) == "acme"
    assert class_of(Hints(), 1000) == class_of(Hints(), 600) != class_of(Hints(), 300)


def test_classes_are_remembered_while_they_learn() -> None:
    predictor = ConditionalMean()
    for name in range(MOST_CLASSES):
        predictor.observe(1000 if name < 2 else 10, name)
    predictor.observe(1000, 0)
    predictor.observe(10, "one more")  # class 1 is the one that learnt least lately
    assert predictor.predict(0, 2000, 0, 0).tokens > predictor.predict(0, 2000, 0, 1).tokens


def test_versions_move_on_with_each_length_at_first_and_ever_less_often() -> None:
    predictor = ConditionalMean()
    versions = []
    for _ in range(1000):
        predictor.observe(10, "a")
        versions.append(predictor.version)
    assert versions[:64] == list(range(1, 65))
    assert versions[-1] < 64 + 64 * log(1000 / 64) + 16


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_buckets_follow_each_other_without_a_gap(lengths: list[int]) -> None:
    for tokens in lengths:
        end = bucket_end(tokens)
        assert end > tokens
        assert bucket(end - 1) == bucket(tokens)
        assert bucket(end) == min(bucket(tokens) + 1, bucket(2**60))
        assert end - tokens <= max(16, tokens / 8)


@given(
    finished=st.lists(st.integers(0, 200), max_size=40),
    queries=st.lists(st.tuples(st.integers(0, 220), st.integers(1, 300)), min_size=1, max_size=9),
    window=st.integers(1, 12),
)
def test_prediction_is_the_mean_of_those_that_got_so_far_within_its_bounds(
    finished: list[int], queries: list[tuple[int, int]], window: int
) -> None:
    predictor = ConditionalMean(window)
    for count, length in enumerate(finished, start=1):
        predictor.observe(length, "a")
        newest = finished[max(count - window, 0) : count]
        for output, limit in queries:
            predicted = predictor.predict(output, limit, 0, "a").tokens
            assert output < predicted <= max(limit, output + 1)
            so_far = [length for length in newest if bucket(length) >= bucket(output)]
            if so_far and fmean(so_far) > output:
                assert predicted == max(min(ceil(fmean(so_far)), limit), output + 1)

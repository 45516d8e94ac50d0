"""What departed requests tell of the acceptance of the next ones."""

from __future__ import annotations

import random
from itertools import chain
from statistics import fmean

import pytest

from laps.engine.acceptance import AcceptanceTracker
from laps.engine.engine import Engine
from laps.engine.prior import AcceptancePrior
from laps.engine.types import Hints, StepReport
from unit.examples import EMPTY, arrival


def tracked(accepted: list[int]) -> AcceptanceTracker:
    tracker = AcceptanceTracker()
    for count in accepted:
        tracker.add(count + 1, drafts=4)
    return tracker


def test_before_anything_has_left_there_is_no_prior() -> None:
    prior = AcceptancePrior()
    prior.observe(tracked([3]), "a")  # one round tells no variance
    assert prior.predict("a").rounds == 0.0


def test_the_prior_by_hand() -> None:
    prior = AcceptancePrior()
    prior.observe(tracked([0, 2, 0, 2]), "a")
    only = prior.predict("b")
    assert (only.accepted, only.rounds) == (1.0, 1.0)  # one request says no more than one round
    prior.observe(tracked([3, 3, 3, 3]), "a")
    both = prior.predict("b")
    # Means 1 and 3 (but for the fading), variances 4/3 and 0. Of the variance of the means, 1, a
    # sixth is what chance adds to them (half of 4/3 in 4 rounds).
    assert both.accepted == pytest.approx(2.0, rel=0.01)
    assert both.rounds == pytest.approx((2 / 3) / (5 / 6), rel=0.02)


@pytest.mark.parametrize(
    ("kinds", "low", "high"),
    [
        ([(1, 3)], 40, 64),  # all alike
        ([(0, 3), (1, 4)], 8, 10),  # variance 2.25 within, 0.25 between: 9 rounds
        ([(0, 2), (2, 4)], 0.8, 1.2),  # variance 1 within, 1 between: 1 round
    ],
)
def test_the_more_requests_differ_the_less_the_prior_weighs(
    kinds: list[tuple[int, int]], low: float, high: float
) -> None:
    draw = random.Random(5)
    prior = AcceptancePrior()
    for _ in range(2000):
        kind = draw.choice(kinds)
        prior.observe(tracked([draw.choice(kind) for _ in range(40)]), "a")
    learnt = prior.predict("a")
    assert learnt.accepted == pytest.approx(fmean(chain(*kinds)), abs=0.1)
    assert low <= learnt.rounds <= high


def test_a_class_has_its_own_prior_once_it_has_shown_enough() -> None:
    prior = AcceptancePrior()
    for _ in range(100):
        prior.observe(tracked([3, 2, 3, 2]), "code")
    for _ in range(16):
        assert prior.predict("prose").accepted > 2.0
        prior.observe(tracked([0, 1, 0, 1]), "prose")
    prior.observe(tracked([0, 1, 0, 1]), "prose")
    assert prior.predict("prose").accepted == pytest.approx(0.5)
    assert prior.predict("code").accepted == pytest.approx(2.5)


def test_an_engine_expects_of_a_new_request_what_those_of_its_tenant_did() -> None:
    engine = Engine(EMPTY)
    handle = 0
    for accept_length, tenant in ((4, "code"), (1, "prose")):
        for _ in range(20):
            handle += 1
            new = arrival(handle, hints=Hints(tenant=tenant, predicted_tokens=60))
            engine.observe(StepReport(handle, 101.0, arrived=(new,), prefilled=(handle,)))
            for _ in range(5):
                engine.observe(
                    StepReport(
                        handle, 101.0, decoded=(handle,), committed=(accept_length,), drafts=3
                    )
                )
            engine.observe(StepReport(handle, 101.0, finished=(handle,)))
    for handle, tenant in ((98, "prose"), (99, "code")):
        new = arrival(handle, hints=Hints(tenant=tenant, predicted_tokens=60))
        report = StepReport(99, 102.0, arrived=(new,), prefilled=(handle,))
        engine.observe(report)
    even = StepReport(100, 103.0, decoded=(98, 99), committed=(2, 2), drafts=3, round_s=0.01)
    for _ in range(4):
        engine.observe(even)
    # Both have got 2 a round: what is left of the prior is all that tells them apart.
    assert engine.status(98).accept_length == engine.status(99).accept_length == 2.0
    assert engine.status(98).remaining_s > engine.status(99).remaining_s
    assert engine.plan().order == (99, 98)

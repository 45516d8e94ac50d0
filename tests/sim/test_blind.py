"""LAPS-SD+ without knowing acceptance, against LAPS-SD+."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.types import Hints, PolicySpec, StepReport
from laps.policies.base import Policy
from sim.blind import Blind
from unit.examples import EMPTY, arrival


@pytest.mark.parametrize(("policy", "first"), [(PolicySpec("laps-sd+"), 2), (Blind(), 1)])
def test_who_is_blind_does_not_see_that_four_come_at_a_time(
    policy: PolicySpec | Policy, first: int
) -> None:
    engine = Engine(EMPTY, policy)
    hints = {1: 60, 2: 90}
    new = tuple(arrival(h, hints=Hints(predicted_tokens=hint)) for h, hint in hints.items())
    engine.observe(StepReport(1, 101.0, arrived=new, prefilled=(1, 2)))
    assert engine.plan().order == (1, 2)
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 4), drafts=3))
    assert engine.plan().order[0] == first


@pytest.mark.parametrize("left", [0, 100, 200])
def test_age_and_margin_are_those_of_laps_sd_plus(left: int) -> None:
    def order(policy: PolicySpec | Policy) -> tuple[int, ...]:
        engine = Engine(EMPTY, policy)
        old = arrival(1, hints=Hints(predicted_tokens=60))
        engine.observe(StepReport(1, 101.0, arrived=(old,)))
        for handle in range(100, 100 + left):
            engine.observe(StepReport(2, 101.0, arrived=(arrival(handle),), aborted=(handle,)))
        new = (arrival(3, hints=Hints(predicted_tokens=20)),)
        engine.observe(StepReport(3, 101.0, arrived=new, prefilled=(3,)))
        engine.observe(StepReport(4, 101.0, decoded=(3,), committed=(1,), drafts=0))
        return engine.plan().order

    # All tokens come one at a time, so rounds are tokens.
    assert order(Blind()) == order(PolicySpec("laps-sd+"))

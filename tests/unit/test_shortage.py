"""While memory is short, a request gives way only for one that is shorter by what that costs."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.shortage import LASTS, Shortage
from laps.engine.types import Capacity, Hints, PolicySpec, Snapshot, StepReport
from unit.examples import arrival
from unit.fake_worker import FakeWorker


def test_memory_is_short_for_a_while_after_a_loss() -> None:
    shortage = Shortage()
    assert not shortage.changes(rounds=5, live=9)
    shortage.lose(rounds=5)
    assert shortage.changes(rounds=5, live=9)
    assert shortage.crowd == 16
    shortage.lose(rounds=8)
    assert not shortage.changes(rounds=7 + LASTS, live=9)
    assert shortage.changes(rounds=8 + LASTS, live=9)
    assert shortage.crowd == 0


def test_the_crowd_does_not_go_back_and_forth() -> None:
    shortage = Shortage()
    shortage.lose(rounds=0)
    crowds = []
    for live in (15, 16, 15, 16, 8, 7, 8, 0):
        shortage.changes(0, live)
        crowds.append(shortage.crowd)
    assert crowds == [16, 32, 32, 32, 32, 8, 16, 1]


# A resident request of 507 tokens, of which 7 are prompt and 500 output, and 100 are to come, one a
# round. 12 requests are live: their crowd is 16. At 10 rounds per 1,000 tokens a demotion costs
# 10 / 1000 * 507 * 16 = 81 rounds.
@pytest.mark.parametrize("policy", ["laps-sd+", "srtf"])
@pytest.mark.parametrize(("newcomer", "first"), [(17, 2), (22, 1)])
def test_the_exchange_by_hand(policy: str, newcomer: int, first: int) -> None:
    parameters: dict[str, float | int | str | bool] = {"recompute": 10.0}
    if policy == "laps-sd+":
        parameters["margin"] = 0.0
    engine = Engine(Snapshot(0, 0.0, Capacity(1, 2)), PolicySpec(policy, parameters))
    old = arrival(1, arrival_s=0.0, max_new_tokens=5000, hints=Hints(predicted_tokens=600))
    engine.observe(StepReport(1, 1.0, arrived=(old,), prefilled=(1,)))
    for _ in range(499):
        engine.observe(StepReport(2, 1.0, decoded=(1,), committed=(1,)))
    others = tuple(
        arrival(h, max_new_tokens=5000, hints=Hints(predicted_tokens=4000)) for h in range(3, 13)
    )
    new = arrival(2, max_new_tokens=5000, hints=Hints(predicted_tokens=newcomer))
    engine.observe(StepReport(3, 1.0, arrived=(new, *others)))
    assert engine.plan().order[0] == 2  # memory is not short
    engine.observe(StepReport(4, 1.0, prefilled=(12,)))
    engine.observe(StepReport(5, 1.0, requeued=(12,)))
    assert engine.plan().order[0] == first
    for _ in range(LASTS):
        engine.observe(StepReport(6, 1.0, decoded=(12,), committed=(1,)))
    assert engine.plan().order[0] == 2  # it is short no more


@pytest.mark.parametrize("policy", ["laps-sd", "laps-sd+", "srtf"])
def test_there_are_fewer_demotions(policy: str) -> None:
    """Under a load that never ends, with as many slots as may run."""
    demotions = {}
    for recompute in (0.0, 6.0):
        worker = FakeWorker(Capacity(max_running=4, max_resident=4))
        engine = Engine(worker.snapshot(), PolicySpec(policy, {"recompute": recompute}))
        for step in range(1500):
            if step % 5 == 0:
                length = 10 + 37 * step % 90
                worker.submit(length, hint=length, prompt=600)
            engine.observe(worker.run(engine.plan()))
        demotions[recompute] = worker.demotions
    assert demotions[6.0] < 0.5 * demotions[0.0]

"""LAPS-SD against hand-worked examples."""

from __future__ import annotations

import pytest

from laps.engine.engine import Engine
from laps.engine.types import (
    Capacity,
    PolicySpec,
    Snapshot,
)
from unit.examples import EXAMPLE, Parameters, planned, request
from unit.fake_worker import FakeWorker


def test_one_scale_by_hand() -> None:
    # 2 and 1 share the first quantum: 2 arrived earlier. So did 4 before 3 in the second.
    assert planned(*EXAMPLE, quantum=4, min_rounds=8) == [2, 1, 5, 4, 3, 7, 6, 8]


def test_strict_by_hand() -> None:
    # Here perceived from 6 rounds on, so that 5 to 8 are frozen at 6 rounds: in level 2, as the
    # quanta are 2 and 4. 1 is in level 0, 2 and 3 are in level 1. 4 is perceived now: without a
    # hint it is expected to get to the next power of two: 10 tokens more, or 3.3 rounds.
    # Level 0: 1. Level 1: 2 (key 2), 3 (key 4). Level 2: 5 (2), 4 (3.3), 7 (5), 6 (20), 8 (100).
    parameters: Parameters = {"quantum": 2, "ratio": 2.0, "levels": 3, "min_rounds": 6}
    assert planned(*EXAMPLE, order="strict", **parameters) == [1, 2, 3, 5, 4, 7, 6, 8]
    # On one scale 5 has the same key as 2, and arrived earlier.
    assert planned(*EXAMPLE, order="one-scale", **parameters) == [1, 5, 2, 4, 3, 7, 6, 8]


@pytest.mark.parametrize(
    ("rounds", "level"),
    [(0, 0), (2, 0), (3, 1), (8, 1), (9, 2), (20, 2), (21, 3), (10_000, 3)],
)
def test_levels_have_quanta_that_grow_by_the_ratio(rounds: int, level: int) -> None:
    # Quanta 3, 6, 12: demoted at 3, 9 and 21 rounds; the last level has no end.
    snapshot = Snapshot(0, 0.0, Capacity(2, 4), (request(1, rounds),))
    parameters: Parameters = {"order": "strict", "quantum": 3, "levels": 4, "min_rounds": 20_000}
    engine = Engine(snapshot, PolicySpec("laps-sd", parameters))
    assert engine.explain("r1").queue == f"level {level}"
    assert [queue.name for queue in engine.queues()] == [
        "starving",
        "level 0",
        "level 1",
        "level 2",
        "level 3",
    ]


def test_a_perceived_request_stays_in_its_level() -> None:
    worker = FakeWorker(Capacity(1, 1))
    spec = PolicySpec("laps-sd", {"order": "strict", "quantum": 3, "min_rounds": 5})
    engine = Engine(worker.snapshot(), spec)
    worker.submit(length=200, accept_lengths=[2])
    levels = []
    for _ in range(40):
        engine.observe(worker.run(engine.plan()))
        levels.append(engine.explain("r1").queue)
    # Level 0 for 3 rounds; perceived in level 1, which would end at 9 rounds.
    assert levels == ["level 0"] * 2 + ["level 1"] * 38

"""Resting requests keep up with what the predictor learns."""

from __future__ import annotations

from laps.engine.engine import Engine
from laps.engine.types import (
    Arrival,
    Capacity,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)


def test_every_prediction_is_renewed_after_a_finish() -> None:
    resting = tuple(
        Arrival(h, f"r{h}", 0.0, 5, 1000, phase=Phase.PAUSED, progress=Progress(20 + h, 20, 60))
        for h in range(1, 21)
    )
    snapshot = Snapshot(0, 0.0, Capacity(2, 64), resting)
    engine = Engine(snapshot, PolicySpec("laps-sd", {"max_wait_s": 0.0}))
    # The first of them is prefilled again, which renews its own prediction, and one finishes.
    engine.observe(StepReport(1, 1.0, arrived=(Arrival(99, "x", 1.0, 5, 1000),)))
    engine.observe(StepReport(2, 1.1, prefilled=(99,), decoded=(99,), committed=(400,)))
    engine.observe(StepReport(3, 1.2, finished=(99,)))
    engine.observe(StepReport(4, 1.3, requeued=(1,)))
    engine.observe(StepReport(5, 1.4, prefilled=(1,)))
    for step in range(6, 16):
        engine.observe(StepReport(step, 1.4 + step / 10))
    assert {engine.status(h).predicted_tokens for h in range(1, 21)} == {401}
    assert len({engine.explain(f"r{h}").key[0].value for h in range(2, 21)}) == 19
    by_rounds_left = sorted(range(2, 21), key=lambda h: -h)
    assert [h for h in engine.plan().order if h != 1] == by_rounds_left

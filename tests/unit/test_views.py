"""What the engine shows of its requests, and how it explains itself."""

from __future__ import annotations

from dataclasses import fields

import pytest

from laps.engine.engine import Engine
from laps.engine.types import (
    Capacity,
    Phase,
    PolicySpec,
    StepReport,
    UnknownRequestError,
)
from laps.engine.views import RequestStatus
from laps.v1 import client_pb2
from unit.examples import EMPTY, arrival, engine_with
from unit.fake_worker import FakeWorker


def test_reading_changes_nothing() -> None:
    engines = [engine_with(1, 2, 3) for _ in range(2)]
    for step in range(2, 40):
        report = StepReport(step, 101.0 + step, decoded=(1 + step % 2,), committed=(1 + step % 3,))
        for engine in engines:
            engine.observe(report)
        engines[0].plan()
        engines[0].queues()
        engines[0].statuses(include_departed=True)
        engines[0].explain("r1")
    assert engines[0].plan().order == engines[1].plan().order
    assert engines[0].statuses() == engines[1].statuses()
    assert engines[0].explain("r2") == engines[1].explain("r2")


def test_departed_requests_are_remembered_for_a_while() -> None:
    engine = Engine(EMPTY)
    for handle in range(1, 1101):
        engine.observe(StepReport(handle, 101.0, arrived=(arrival(handle),)))
        engine.observe(StepReport(handle, 101.0, aborted=(handle,)))
    assert engine.status(engine.handle_of("r1100")).phase is Phase.ABORTED
    newest = engine.statuses(include_departed=True)
    assert [status.rid for status in newest[:2]] == ["r1100", "r1099"]
    assert len(newest) == 1024
    for ask in (lambda: engine.handle_of("r1"), lambda: engine.explain("r1")):
        with pytest.raises(UnknownRequestError, match="'r1', or it left too long ago"):
            ask()
    with pytest.raises(UnknownRequestError, match="no request with handle 1"):
        engine.status(1)
    assert engine.stats().aborted == 1100


def test_a_live_request_is_found_though_a_departed_one_had_its_id() -> None:
    engine = Engine(EMPTY)
    engine.observe(StepReport(1, 101.0, arrived=(arrival(1), arrival(2, rid="r1")), aborted=(1,)))
    for handle in range(3, 1100):
        engine.observe(StepReport(2, 101.0, arrived=(arrival(handle),), aborted=(handle,)))
    assert engine.handle_of("r1") == 2


def test_of_two_requests_with_one_id_the_newer_is_found() -> None:
    engine = engine_with(1)
    engine.observe(StepReport(2, 102.0, arrived=(arrival(2, rid="r1"),)))
    assert engine.handle_of("r1") == 2
    engine.observe(StepReport(3, 103.0, finished=(1,)))
    assert engine.handle_of("r1") == 2
    assert engine.explain("r1").status.phase is Phase.WAITING


def test_a_status_has_the_contracts_fields() -> None:
    contract = {field.name for field in client_pb2.RequestStatus.DESCRIPTOR.fields}
    assert {field.name for field in fields(RequestStatus)} == contract - {"worker_id"}


def test_queues_are_shown_in_order_with_their_phases() -> None:
    engine = Engine(EMPTY, PolicySpec("laps-sd", {"order": "strict", "quantum": 1, "levels": 2}))
    engine.observe(StepReport(1, 101.0, arrived=tuple(map(arrival, (1, 2, 3))), prefilled=(1, 2)))
    engine.observe(StepReport(2, 101.0, decoded=(1, 2), committed=(1, 1)))
    engine.observe(StepReport(3, 101.0, decoded=(1,), committed=(1,)))
    starving, level_0, level_1 = engine.queues()
    assert (starving.name, starving.rids) == ("starving", ())
    assert (level_0.name, level_0.rids, level_0.waiting) == ("level 0", ("r3",), 1)
    assert (level_1.name, level_1.rids) == ("level 1", ("r2", "r1"))
    assert (level_1.running, level_1.paused, level_1.waiting) == (1, 1, 0)


def test_every_decision_is_explained() -> None:
    worker = FakeWorker(Capacity(max_running=1, max_resident=2))
    engine = Engine(worker.snapshot(), PolicySpec("laps-sd", {"max_wait_s": 2.0}))
    worker.submit(length=500)
    for _ in range(20):
        engine.observe(worker.run(engine.plan()))
    worker.submit(length=500)
    worker.submit(length=500)
    engine.observe(worker.flush())

    explained = engine.explain("r1")
    assert (explained.policy, explained.queue, explained.rank) == ("laps-sd", "one scale", 2)
    # 21 tokens, to the next power of two, one a round
    assert [(part.name, part.value) for part in explained.key] == [
        ("rounds", 11.0),
        ("arrival_s", 0.0),
        ("handle", 1),
    ]
    assert explained.reason == (
        "runs until the worker takes the new plan: 2 requests go first, 1 at a time "
        "(fewest rounds got, or left if perceived, first); perceived, about 11 rounds (0.2 s) left"
    )
    assert engine.explain("r2").reason == (
        "waits for its prefill: place 1 of 1, once the worker has a slot and memory for it; "
        "unperceived, 0 rounds got"
    )
    engine.observe(worker.run(engine.plan()))
    assert engine.explain("r2").reason == "runs: place 1 of 1; unperceived, 1 round got"
    assert engine.explain("r1").reason.startswith("paused: 2 requests go first, 1 at a time")
    assert engine.explain("r3").reason.startswith("waits: 1 request goes first, 1 at a time")

    worker.advance(2.5)
    engine.observe(worker.flush())
    explained = engine.explain("r1")
    assert (explained.queue, explained.rank) == ("starving", 1)
    assert [part.name for part in explained.key] == ["resting since_s", "arrival_s", "handle"]
    assert "starving: had not run for 2.5 s, goes before all queues for 16" in explained.reason
    worker.abort(1)
    engine.observe(worker.flush())
    explained = engine.explain("r1")
    assert explained.reason == "left: was aborted after 21 tokens in 20 rounds"
    assert (explained.queue, explained.rank, explained.key) == ("", 0, ())

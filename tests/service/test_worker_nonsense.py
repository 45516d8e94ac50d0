"""Nonsense from a worker, and a fault of the engine's, cost that worker at most its plan."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from laps import wire
from laps.engine.engine import Engine
from laps.engine.types import Plan, StepReport
from laps.service.app import Service
from laps.v1 import common_pb2, operator_pb2, operator_pb2_grpc, worker_pb2
from service.fake_worker import FakeWorker, arrival
from service.listing import workers_of

FIELD_PHASE_99 = b"\x38\x63"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "must be a Hello"),
        ({"report": worker_pb2.StepReport()}, grpc.StatusCode.INVALID_ARGUMENT, "must be a Hello"),
        (
            {"hello": worker_pb2.Hello(worker_id="w0", protocol=2)},
            grpc.StatusCode.FAILED_PRECONDITION,
            "install the same sglang-laps",
        ),
        (
            {"hello": worker_pb2.Hello(protocol=1)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "must have a worker_id",
        ),
        (
            {
                "hello": worker_pb2.Hello(
                    worker_id="w0",
                    protocol=1,
                    capacity=worker_pb2.Capacity(max_running=1),
                    requests=[worker_pb2.Request.FromString(FIELD_PHASE_99)],
                )
            },
            grpc.StatusCode.INVALID_ARGUMENT,
            "unknown phase 99",
        ),
    ],
)
async def test_a_stream_that_begins_with_nonsense_is_refused(
    service: Service, body: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.send(**body)
        seen, details = await worker.ended()
    assert seen is code
    assert words in details
    assert await workers_of(service) == {}


async def test_nonsense_in_mid_stream_costs_nothing(service: Service) -> None:
    top = 2**32 - 1
    odd: list[dict[str, Any]] = [
        {},
        {"hello": worker_pb2.Hello(worker_id="other", protocol=1)},
        {"report": worker_pb2.StepReport(arrived=[worker_pb2.Request.FromString(FIELD_PHASE_99)])},
        {"report": worker_pb2.StepReport(step=2**64 - 1, time_s=float("nan"), plan_seq=2**64 - 1)},
        {"report": worker_pb2.StepReport(decoded=[1, 1, 99], committed=[top], drafts=top)},
        {"report": worker_pb2.StepReport(time_s=-1.0, finished=[5], requeued=[1, 1], round_s=-1.0)},
        {
            "report": worker_pb2.StepReport(
                time_s=float("inf"),
                arrived=[
                    worker_pb2.Request(handle=1, arrival_s=float("nan")),
                    worker_pb2.Request(
                        handle=3,
                        rid="huge",
                        phase=common_pb2.PHASE_RUNNING,
                        output_tokens=top,
                        rounds=top,
                        proposed=2**64 - 1,
                        accepted=2**64 - 1,
                        accepted_sq=2**64 - 1,
                    ),
                ],
            )
        },
        {"report": worker_pb2.StepReport(decoded=[3], committed=[top], drafts=4)},
    ]
    async with FakeWorker(service.address) as worker, FakeWorker(service.address, "other") as other:
        await worker.attach([arrival(1)])
        await other.attach([arrival(1, rid="o1")])
        for body in odd:
            await worker.send(**body)
        await worker.send(report=worker_pb2.StepReport(arrived=[wire.arrival_to_proto(arrival(7))]))
        while 7 not in worker.newest.order:
            await worker.receive()
        assert (await other.report(1)).order == (1,)
        async with grpc.aio.insecure_channel(service.address) as channel:
            operator = operator_pb2_grpc.OperatorStub(channel)
            listing = await operator.ListRequests(operator_pb2.ListRequestsRequest())
            assert {"o1", "r1", "r7", "huge"} <= {request.rid for request in listing.requests}
            for request in listing.requests:
                await operator.Explain(operator_pb2.ExplainRequest(rid=request.rid))


async def test_an_engine_that_fails_costs_its_worker_plans_and_no_more(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, observe = Engine.plan, Engine.observe
    failed = asyncio.Event()

    def failing_plan(engine: Engine) -> Plan:
        if engine.stats().step == 2:
            failed.set()
            raise ZeroDivisionError("made up")
        return plan(engine)

    def failing_observe(engine: Engine, report: StepReport) -> None:
        if report.step == 1:
            raise ZeroDivisionError("made up")
        observe(engine, report)

    monkeypatch.setattr(Engine, "plan", failing_plan)
    monkeypatch.setattr(Engine, "observe", failing_observe)
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        for step in (1, 2):
            report = StepReport(step, float(step), arrived=(arrival(step),))
            await worker.send(report=wire.report_to_proto(report))
        await failed.wait()
        assert (await worker.report(3)).order == (2,)

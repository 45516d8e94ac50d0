"""The worker link, over a real socket, with the real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from laps import wire
from laps.engine.engine import Engine
from laps.engine.types import Phase, Plan, Progress, StepReport
from laps.service.app import Service
from laps.v1 import common_pb2, operator_pb2, operator_pb2_grpc, worker_pb2
from service.fake_worker import FakeWorker, arrival

FIELD_PHASE_99 = b"\x38\x63"


async def workers_of(service: Service) -> dict[str, operator_pb2.WorkerStatus]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        listing = await operator_pb2_grpc.OperatorStub(channel).ListWorkers(
            operator_pb2.ListWorkersRequest()
        )
    return {worker.worker_id: worker for worker in listing.workers}


async def until_detached(service: Service, worker_id: str) -> None:
    while (await workers_of(service))[worker_id].attached:
        await asyncio.sleep(0.01)


async def test_a_hello_is_answered_by_a_welcome_and_a_plan(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        welcome = await worker.attach([arrival(1), arrival(2)], step=5)
    assert welcome.protocol == wire.PROTOCOL
    assert welcome.policy.name == "laps-sd"
    assert welcome.plan_ttl_s == service.config.plan_ttl_s
    assert (worker.newest.seq, worker.newest.step) == (1, 5)
    assert set(worker.newest.order) == {1, 2}
    assert worker.newest.horizon == 2


async def test_a_plan_of_the_same_order_is_sent_as_unchanged(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1)])
        before = worker.newest
        await worker.send(report=worker_pb2.StepReport(step=1, time_s=1.0))
        message = await worker.receive()
        assert message.plan.unchanged
        assert not message.plan.order
        assert (message.plan.seq, message.plan.step) == (before.seq, 1)
        plan = await worker.report(2, arrived=(arrival(2),))
        assert plan.seq == before.seq + 1
        assert set(plan.order) == {1, 2}


async def test_reports_move_requests_through_their_phases(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        await worker.report(1, arrived=(arrival(1), arrival(2), arrival(3)))
        await worker.report(2, prefilled=(1, 2, 3))
        await worker.report(
            3, decoded=(1, 2, 3), committed=(2, 3, 1), drafts=4, round_s=0.1, plan_seq=1
        )
        await worker.report(4, decoded=(2,), committed=(3,), drafts=4, round_s=0.1, plan_seq=2)
        status = (await workers_of(service))["w0"]
        assert (status.running, status.paused, status.waiting) == (1, 2, 0)
        assert status.preemptions == 2
        assert status.step == 4
        plan = await worker.report(5, finished=(2,), aborted=(1,))
        assert plan.order == (3,)
    assert (status.max_running, status.max_resident) == (2, 4)
    assert (status.sglang_version, status.algorithm) == ("0.5.23", "EAGLE")


async def test_a_burst_of_reports_is_seen_whole(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        for step in range(1, 501):
            report = StepReport(step, float(step), arrived=(arrival(step),))
            await worker.send(report=wire.report_to_proto(report))
        plan = await worker.plan(500)
        assert plan.horizon == 500
        assert (await workers_of(service))["w0"].waiting == 500


async def test_a_worker_whose_stream_broke_off_is_listed_as_detached(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1)])
        assert (await workers_of(service))["w0"].attached
    await until_detached(service, "w0")
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1)])
        assert (await workers_of(service))["w0"].attached


async def test_a_worker_that_ends_its_stream_is_let_go_in_peace(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach()
        await worker.call.done_writing()
        assert (await worker.ended())[0] is grpc.StatusCode.OK
        await until_detached(service, "w0")


@pytest.mark.parametrize("incarnation", [1, 2])
async def test_a_new_stream_replaces_the_one_before(service: Service, incarnation: int) -> None:
    async with (
        FakeWorker(service.address) as old,
        FakeWorker(service.address, incarnation=incarnation) as new,
    ):
        await old.attach([arrival(1)])
        await new.attach([arrival(2)])
        code, details = await old.ended()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "taken over" in details
        status = (await workers_of(service))["w0"]
        assert status.attached
        assert (status.incarnation, status.waiting) == (incarnation, 1)
        plan = await new.report(1)
        assert plan.order == (2,)


async def test_an_elder_process_of_the_same_id_is_refused(service: Service) -> None:
    async with (
        FakeWorker(service.address, incarnation=2) as younger,
        FakeWorker(service.address, incarnation=1) as elder,
    ):
        await younger.attach([arrival(1)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await elder.attach()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "an id of its own" in (caught.value.details() or "")
        assert (await younger.report(1)).order == (1,)


async def test_two_workers_are_planned_for_apart(service: Service) -> None:
    async with FakeWorker(service.address, "a") as a, FakeWorker(service.address, "b") as b:
        await a.attach([arrival(1, rid="x")])
        await b.attach([arrival(1, rid="y"), arrival(2, rid="z")])
        assert (await a.report(1, finished=(1,))).order == ()
        assert set((await b.report(1)).order) == {1, 2}
        statuses = await workers_of(service)
        assert (statuses["a"].waiting, statuses["b"].waiting) == (0, 2)


async def test_a_new_policy_is_announced_with_a_fresh_plan(service: Service) -> None:
    async with (
        FakeWorker(service.address) as worker,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        operator = operator_pb2_grpc.OperatorStub(channel)
        grown = Progress(output_tokens=9, rounds=9, proposed=36, accepted=9, accepted_sq=9)
        await worker.attach(
            [arrival(1, phase=Phase.RUNNING, progress=grown), arrival(2, phase=Phase.PAUSED)]
        )
        assert worker.newest.order == (2, 1)
        spec = common_pb2.PolicySpec(name="fcfs")
        await operator.SetPolicy(operator_pb2.SetPolicyRequest(policy=spec))
        assert (await worker.welcome()).policy.name == "fcfs"
        assert (await worker.plan(0)).order == (1, 2)
        assert (await workers_of(service))["w0"].policy.name == "fcfs"
    async with FakeWorker(service.address, "later") as later:
        assert (await later.attach()).policy.name == "fcfs"


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


async def test_workers_that_come_and_go_do_not_pile_up(service: Service) -> None:
    for number in range(70):
        async with FakeWorker(service.address, f"w{number:02}") as worker:
            await worker.attach()
            await worker.call.done_writing()
            await worker.ended()
    listed = await workers_of(service)
    assert len(listed) == 64
    assert "w69" in listed
    assert "w00" not in listed


async def test_the_share_of_fresh_rounds_follows_the_plans_named(service: Service) -> None:
    async with FakeWorker(service.address) as worker:
        await worker.attach([arrival(1), arrival(2)])
        await worker.report(1, prefilled=(1, 2))
        plan = worker.newest
        for step in (2, 3, 4):
            plan = await worker.report(
                step, decoded=(1, 2), committed=(1, 1), drafts=4, plan_seq=plan.seq
            )
        assert (await workers_of(service))["w0"].fresh_share == 1.0
        await worker.report(5, decoded=(1, 2), committed=(1, 1), drafts=4, plan_seq=0)
        assert (await workers_of(service))["w0"].fresh_share == 0.75


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

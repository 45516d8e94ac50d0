"""The worker link, over a real socket, with the real engine."""

from __future__ import annotations

import grpc

from laps import wire
from laps.engine.types import Phase, Progress, StepReport
from laps.service.app import Service
from laps.v1 import common_pb2, operator_pb2, operator_pb2_grpc, worker_pb2
from service.fake_worker import FakeWorker, arrival
from service.listing import workers_of


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

"""What operators see and order, by both clients of the SDK."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from laps.client import (
    InvalidRequestError,
    LapsClient,
    NotFoundError,
    Phase,
    PolicySpec,
    ServiceUnreachableError,
    SyncLapsClient,
)
from laps.service.app import SERVICES, Service
from laps.v1 import common_pb2, operator_pb2, operator_pb2_grpc
from service.fake_worker import FakeWorker, arrival

T = TypeVar("T")


async def test_queues_and_requests_come_best_first(service: Service) -> None:
    async with FakeWorker(service.address) as worker, LapsClient(service.address) as client:
        await worker.attach(
            [arrival(1, phase=Phase.RUNNING), arrival(2, phase=Phase.PAUSED), arrival(3)]
        )
        requests = await client.list_requests()
        assert tuple(client_rids(requests)) == tuple(f"r{n}" for n in worker.newest.order)
        queues = await client.list_queues()
        assert [queue.name for queue in queues] == ["starving", "one scale"]
        assert queues[1].rids == tuple(client_rids(requests))
        assert (queues[1].running, queues[1].paused, queues[1].waiting) == (1, 1, 1)


def client_rids(requests: list[Any]) -> list[str]:
    return [request.rid for request in requests]


async def test_departed_requests_are_listed_on_demand(service: Service) -> None:
    async with FakeWorker(service.address) as worker, LapsClient(service.address) as client:
        await worker.attach([arrival(1), arrival(2)])
        await worker.report(1, aborted=(1,))
        assert client_rids(await client.list_requests()) == ["r2"]
        both = await client.list_requests(include_departed=True)
        assert [(r.rid, r.phase) for r in both] == [("r2", Phase.WAITING), ("r1", Phase.ABORTED)]


async def test_listings_can_be_of_one_worker(service: Service) -> None:
    async with (
        FakeWorker(service.address, "a") as a,
        FakeWorker(service.address, "b") as b,
        LapsClient(service.address) as client,
    ):
        await a.attach([arrival(1, rid="x")])
        await b.attach([arrival(1, rid="y")])
        assert client_rids(await client.list_requests()) == ["x", "y"]
        assert client_rids(await client.list_requests("b")) == ["y"]
        assert {queue.worker_id for queue in await client.list_queues("a")} == {"a"}
        with pytest.raises(NotFoundError, match="no worker 'c'"):
            await client.list_requests("c")
        with pytest.raises(NotFoundError, match="no worker 'c'"):
            await client.list_queues("c")


async def test_a_decision_is_explained(service: Service) -> None:
    async with FakeWorker(service.address) as worker, LapsClient(service.address) as client:
        await worker.attach([arrival(n) for n in (1, 2, 3)])
        explained = await client.explain("r3")
        assert (explained.policy, explained.queue, explained.rank) == ("laps-sd", "one scale", 2)
        assert explained.key
        assert explained.reason
        assert explained.request.rid == "r3"
        with pytest.raises(NotFoundError, match="'r4'"):
            await client.explain("r4")


async def test_a_policy_with_parameters_reaches_every_worker(service: Service) -> None:
    spec = PolicySpec("laps-sd", {"order": "strict", "quantum": 4, "tolerance": 0.5})
    async with (
        FakeWorker(service.address, "a") as a,
        FakeWorker(service.address, "b") as b,
        LapsClient(service.address) as client,
    ):
        await a.attach()
        await b.attach()
        await client.set_policy(spec)
        assert [worker.policy for worker in await client.list_workers()] == [spec, spec]
        assert [queue.name for queue in await client.list_queues("a")][1:] == [
            "level 0",
            "level 1",
            "level 2",
            "level 3",
        ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (common_pb2.PolicySpec(name="best"), "there are: fcfs, laps-sd"),
        (common_pb2.PolicySpec(), "there are: fcfs, laps-sd"),
        (common_pb2.PolicySpec(name="fcfs", parameters_json='{"a": 1}'), "no parameter a"),
        (common_pb2.PolicySpec(name="laps-sd", parameters_json='{"quantum": 0}'), "quantum = 0"),
        (common_pb2.PolicySpec(name="laps-sd", parameters_json="{"), "not valid JSON"),
    ],
)
async def test_a_policy_that_does_not_exist_changes_nothing(
    service: Service, spec: common_pb2.PolicySpec, words: str
) -> None:
    async with (
        FakeWorker(service.address) as worker,
        grpc.aio.insecure_channel(service.address) as channel,
        LapsClient(service.address) as client,
    ):
        await worker.attach()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await operator_pb2_grpc.OperatorStub(channel).SetPolicy(
                operator_pb2.SetPolicyRequest(policy=spec)
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in (caught.value.details() or "")
        assert (await client.list_workers())[0].policy == PolicySpec()


async def test_a_policy_that_json_cannot_carry_is_not_sent(service: Service) -> None:
    async with LapsClient(service.address) as client:
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            await client.set_policy(PolicySpec("laps-sd", {"max_wait_s": float("inf")}))


async def test_the_synchronous_client_does_what_the_asynchronous_one_does(service: Service) -> None:
    async with FakeWorker(service.address) as worker, LapsClient(service.address) as client:
        await worker.attach([arrival(1), arrival(2)])

        async def sync(call: Callable[[SyncLapsClient], T]) -> T:
            def run() -> T:
                with SyncLapsClient(service.address) as sync_client:
                    return call(sync_client)

            return await asyncio.to_thread(run)

        assert await sync(lambda c: c.list_workers()) == await client.list_workers()
        assert await sync(lambda c: c.list_queues("w0")) == await client.list_queues("w0")
        assert await sync(lambda c: c.list_requests()) == await client.list_requests()
        assert await sync(lambda c: c.explain("r2")) == await client.explain("r2")
        assert await sync(lambda c: c.get_request("r1")) == await client.get_request("r1")
        with pytest.raises(NotFoundError):
            await sync(lambda c: c.cancel("r3"))
        await sync(lambda c: c.set_policy(PolicySpec("fcfs")))
        assert (await client.list_workers())[0].policy.name == "fcfs"


async def test_without_a_service_both_clients_say_how_to_start_one(nowhere: str) -> None:
    async with LapsClient(nowhere) as client:
        with pytest.raises(ServiceUnreachableError, match=f"{nowhere}: start one with `laps"):
            await client.list_workers()
        with pytest.raises(ServiceUnreachableError, match="start one"):
            await client.generate_text("x")

    def ask() -> None:
        with SyncLapsClient(nowhere) as sync_client:
            sync_client.list_workers()

    with pytest.raises(ServiceUnreachableError, match="start one"):
        await asyncio.to_thread(ask)


async def test_a_service_that_hangs_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        async with LapsClient(endpoint, timeout_s=0.2) as client:
            with pytest.raises(ServiceUnreachableError):
                await client.list_workers()


@pytest.mark.parametrize("name", ["", *SERVICES])
async def test_the_service_is_healthy(service: Service, name: str) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=name)
        )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_service_describes_itself(service: Service) -> None:
    def reflect() -> tuple[set[str], set[str]]:
        with grpc.insecure_channel(service.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            listed = set(database.get_services())
            pool = DescriptorPool(database)
            operator = pool.FindServiceByName("laps.v1.Operator")
            return listed, {method.name for method in operator.methods}

    listed, methods = await asyncio.to_thread(reflect)
    assert set(SERVICES) <= listed
    assert "grpc.health.v1.Health" in listed
    assert methods == {"ListWorkers", "ListQueues", "ListRequests", "Explain", "SetPolicy"}

"""Streams of workers that begin, break off, take over from one another, and pile up."""

from __future__ import annotations

import grpc
import pytest

from laps.service.app import Service
from service.fake_worker import FakeWorker, arrival
from service.listing import until_detached, workers_of


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

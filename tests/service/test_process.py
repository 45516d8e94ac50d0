"""The service as a process: signals, kills and ports."""

from __future__ import annotations

import asyncio
import signal

import grpc
import pytest

from laps.client import Completed, Delta, LapsClient, Phase, ServiceUnreachableError
from laps.engine.types import Capacity, Progress
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival
from service.serving import LAPS, ServingProcess


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_an_answer_end(openai: FakeOpenAI, number: signal.Signals) -> None:
    async with ServingProcess() as service:
        async with (
            FakeWorker(service.address, http_url=openai.url) as worker,
            LapsClient(service.address) as client,
        ):
            await worker.attach()
            openai.hold.clear()
            events = client.generate("x")
            await anext(events)
            service.send(number)
            await service.logged("stopping")
            code, details = await worker.ended()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "stopping" in details
            openai.hold.set()
            rest = [event async for event in events]
            assert rest[0] == Delta("one")
            assert isinstance(rest[-1], Completed)
        await service.logged("stopped")
        assert await service.process.wait() == 0


async def test_a_second_signal_stops_at_once(openai: FakeOpenAI) -> None:
    async with (
        ServingProcess("--grace-s", "1000") as service,
        FakeWorker(service.address, http_url=openai.url) as worker,
        LapsClient(service.address) as client,
    ):
        await worker.attach()
        openai.hold.clear()
        events = client.generate("x")
        await anext(events)
        await openai.asked.wait()
        service.send(signal.SIGTERM)
        await service.logged("stopping")
        service.send(signal.SIGTERM)
        with pytest.raises(ServiceUnreachableError):
            await anext(events)
        assert await service.process.wait() == 0
        await openai.disconnected.wait()


async def test_an_answer_that_outlasts_the_grace_is_cut(openai: FakeOpenAI) -> None:
    async with (
        ServingProcess("--grace-s", "0.1") as service,
        FakeWorker(service.address, http_url=openai.url) as worker,
        LapsClient(service.address) as client,
    ):
        await worker.attach()
        openai.hold.clear()
        events = client.generate("x")
        await anext(events)
        service.send(signal.SIGTERM)
        with pytest.raises(ServiceUnreachableError):
            await anext(events)
        assert await service.process.wait() == 0


async def test_after_a_kill_a_hello_rebuilds_the_same_queues() -> None:
    """The worker is the truth: what a new service shows equals what the killed one showed."""
    capacity = Capacity(max_running=2, max_resident=6)
    progress = dict.fromkeys(range(1, 7), Progress(output_tokens=1))
    running: tuple[int, ...] = ()
    async with (
        ServingProcess() as service,
        FakeWorker(service.address, capacity=capacity) as worker,
    ):
        await worker.attach()
        await worker.report(1, arrived=tuple(arrival(handle) for handle in progress))
        await worker.report(2, prefilled=tuple(progress))
        for step in range(3, 40):
            running = worker.newest.order[:2]
            drafts = tuple((step + handle) % 5 for handle in running)
            for handle, accepted in zip(running, drafts, strict=True):
                progress[handle] = _after_round(progress[handle], accepted)
            committed = tuple(accepted + 1 for accepted in drafts)
            await worker.report(step, decoded=running, committed=committed, drafts=4, round_s=0.1)
        before, order = await _shown(service.address), worker.newest.order
        service.send(signal.SIGKILL)
        assert (await worker.ended())[0] is grpc.StatusCode.UNAVAILABLE
    held = [
        arrival(
            handle,
            phase=Phase.RUNNING if handle in running else Phase.PAUSED,
            progress=got,
        )
        for handle, got in progress.items()
    ]
    async with (
        ServingProcess() as again,
        FakeWorker(again.address, capacity=capacity) as worker,
    ):
        await worker.attach(held, step=39)
        assert await _shown(again.address) == before
        assert worker.newest.order == order


def _after_round(progress: Progress, accepted: int) -> Progress:
    """Return the progress one verify round of 4 drafts later."""
    return Progress(
        output_tokens=progress.output_tokens + accepted + 1,
        rounds=progress.rounds + 1,
        proposed=progress.proposed + 4,
        accepted=progress.accepted + accepted,
        accepted_sq=progress.accepted_sq + accepted**2,
    )


async def _shown(address: str) -> object:
    """Return the queues, and of each request what a Hello carries."""
    async with LapsClient(address) as client:
        requests = await client.list_requests()
        return await client.list_queues(), [
            (
                request.rid,
                request.phase,
                request.output_tokens,
                request.rounds,
                request.accept_length,
                request.accept_rate,
                request.perceived,
            )
            for request in requests
        ]


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    async with ServingProcess() as service:
        second = await asyncio.create_subprocess_exec(
            LAPS, "serve", "--listen", service.address, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, errors = await second.communicate()
        finally:
            if second.returncode is None:
                second.kill()
        assert second.returncode == 1
        assert f"cannot listen on {service.address}" in errors.decode()
        assert "Traceback" not in errors.decode()

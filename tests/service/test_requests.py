"""Requests by their id, whoever sent them: in use, cancelled, shown."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from laps.client import (
    Hints,
    InvalidRequestError,
    LapsClient,
    LapsError,
    NotFoundError,
    Phase,
)
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival


async def test_an_id_in_use_is_refused(
    client: LapsClient, worker: FakeWorker, openai: FakeOpenAI
) -> None:
    await worker.report(1, arrived=(arrival(1, rid="reported"),))
    with pytest.raises(InvalidRequestError, match="'reported' is in use"):
        await client.generate_text("x", rid="reported")
    openai.hold.clear()
    async with aclosing(client.generate("x", rid="forwarded")) as events:
        await anext(events)
        with pytest.raises(InvalidRequestError, match="'forwarded' is in use"):
            await client.generate_text("x", rid="forwarded")
    await worker.report(2, finished=(1,))
    openai.hold.set()
    assert (await client.generate_text("x", rid="reported")).rid == "reported"


async def test_cancel_asks_the_worker_to_abort(
    client: LapsClient, worker: FakeWorker, openai: FakeOpenAI
) -> None:
    await worker.report(1, arrived=(arrival(1, rid="direct"),))
    assert await client.cancel("direct") == "w0"
    openai.hold.clear()
    async with aclosing(client.generate("x", rid="forwarded")) as events:
        await anext(events)
        assert await client.cancel("forwarded") == "w0"
    assert openai.aborted == ["direct", "forwarded"]


async def test_cancel_spares_requests_whose_ids_begin_alike(
    client: LapsClient, worker: FakeWorker, openai: FakeOpenAI
) -> None:
    await worker.report(1, arrived=(arrival(1, rid="job"), arrival(2, rid="job-2")))
    with pytest.raises(LapsError, match="would also abort job-2"):
        await client.cancel("job")
    assert await client.cancel("job-2") == "w0"
    assert openai.aborted == ["job-2"]


async def test_cancel_of_what_is_not_there_is_not_found(
    client: LapsClient, worker: FakeWorker
) -> None:
    with pytest.raises(NotFoundError, match="'nobody'"):
        await client.cancel("nobody")
    await worker.report(1, arrived=(arrival(1, rid="gone"),))
    await worker.report(2, finished=(1,))
    with pytest.raises(NotFoundError, match="'gone'"):
        await client.cancel("gone")


async def test_a_request_is_shown_as_its_worker_reports_it(
    client: LapsClient, worker: FakeWorker
) -> None:
    hints = Hints(tenant="acme", priority=-1, predicted_tokens=30, deadline_s=2.0)
    await worker.report(1, arrived=(arrival(1, rid="a", hints=hints),))
    status = await client.get_request("a")
    assert (status.phase, status.worker_id, status.hints) == (Phase.WAITING, "w0", hints)
    await worker.report(2, prefilled=(1,))
    await worker.report(3, decoded=(1,), committed=(4,), drafts=4, round_s=0.1)
    status = await client.get_request("a")
    assert (status.phase, status.rounds, status.output_tokens) == (Phase.RUNNING, 1, 5)
    assert (status.accept_length, status.accept_rate) == (4.0, 0.75)
    await worker.report(4, finished=(1,))
    assert (await client.get_request("a")).phase is Phase.FINISHED
    with pytest.raises(NotFoundError):
        await client.get_request("b")

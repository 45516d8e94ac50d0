"""What cannot be generated: the client is told why, in the worker's words where it has any."""

from __future__ import annotations

import math

import pytest

from laps.client import (
    Hints,
    InvalidRequestError,
    LapsClient,
    LapsError,
    Sampling,
    WorkerBusyError,
    WorkerUnavailableError,
)
from laps.service.app import Service
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival


async def test_without_a_worker_the_client_is_told_how_to_get_one(client: LapsClient) -> None:
    with pytest.raises(WorkerUnavailableError, match="--laps-endpoint"):
        await client.generate_text("x")


@pytest.mark.usefixtures("worker")
async def test_a_worker_that_is_not_attached_is_unavailable(client: LapsClient) -> None:
    with pytest.raises(WorkerUnavailableError, match="worker 'other' is not attached"):
        await client.generate_text("x", worker_id="other")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, '{"object": "error", "message": "too long", "code": 400}', InvalidRequestError, None),
        (404, '{"error": {"message": "too long", "code": 404}}', InvalidRequestError, None),
        (422, "too long", InvalidRequestError, None),
        (429, '{"message": "too long"}', WorkerBusyError, None),
        (503, '{"message": "too long"}', WorkerBusyError, None),
        (500, '["too long"]', WorkerUnavailableError, None),
        (500, "", WorkerUnavailableError, "HTTP status 500"),
        (302, "", WorkerUnavailableError, "HTTP status 302"),
    ],
)
async def test_a_refusal_reaches_the_client_in_the_workers_words(
    client: LapsClient,
    openai: FakeOpenAI,
    status: int,
    body: str,
    error: type[LapsError],
    words: str | None,
) -> None:
    openai.refusal = (status, body)
    with pytest.raises(error, match=words or "too long"):
        await client.generate_text("x")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("code", "error"),
    [(400, InvalidRequestError), (503, WorkerBusyError), (500, WorkerUnavailableError)],
)
async def test_an_error_in_the_stream_ends_the_call(
    client: LapsClient, openai: FakeOpenAI, code: int, error: type[LapsError]
) -> None:
    openai.error_in_stream = {"message": "The request queue is full.", "code": code}
    with pytest.raises(error, match="queue is full"):
        await client.generate_text("x")


@pytest.mark.usefixtures("worker")
async def test_a_worker_that_breaks_off_is_not_taken_for_done(
    client: LapsClient, openai: FakeOpenAI
) -> None:
    openai.break_off = True
    with pytest.raises(WorkerUnavailableError):
        await client.generate_text("x")


@pytest.mark.parametrize(
    "http_url", ["", "nonsense", "http://", "ftp://127.0.0.1", "http://127.0.0.1:1", "http://[::"]
)
async def test_a_worker_with_a_useless_address_is_unavailable(
    service: Service, client: LapsClient, http_url: str
) -> None:
    async with FakeWorker(service.address, http_url=http_url) as worker:
        await worker.attach([arrival(1, rid="a")])
        with pytest.raises(WorkerUnavailableError, match="does not answer"):
            await client.generate_text("x")
        with pytest.raises(WorkerUnavailableError, match="does not answer"):
            await client.cancel("a")


@pytest.mark.usefixtures("worker")
async def test_requests_that_cannot_be_are_refused(client: LapsClient, openai: FakeOpenAI) -> None:
    with pytest.raises(InvalidRequestError, match="either messages or a prompt"):
        await client.generate_text("")
    with pytest.raises(InvalidRequestError, match="either messages or a prompt"):
        await client.generate_text([])
    with pytest.raises(InvalidRequestError, match="finite"):
        await client.generate_text("x", sampling=Sampling(temperature=math.nan))
    with pytest.raises(InvalidRequestError, match="finite"):
        await client.generate_text("x", hints=Hints(deadline_s=math.inf))
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        await client.generate_text("x", sampling=Sampling(max_tokens=-1))
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        await client.generate_text("\ud800")
    assert openai.bodies == []

"""Generation through the service, by the SDK, to a fake OpenAI endpoint."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from laps.client import (
    Completed,
    Delta,
    Hints,
    InvalidRequestError,
    LapsClient,
    LapsError,
    Message,
    NotFoundError,
    Phase,
    Sampling,
    Started,
    SyncLapsClient,
    WorkerBusyError,
    WorkerUnavailableError,
)
from laps.service.app import Service
from laps.service.config import load_config
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival


@pytest.fixture
async def worker(service: Service, openai: FakeOpenAI) -> AsyncIterator[FakeWorker]:
    async with FakeWorker(service.address, http_url=openai.url) as attached:
        await attached.attach()
        yield attached


@pytest.fixture
async def client(service: Service) -> AsyncIterator[LapsClient]:
    async with LapsClient(service.address) as connected:
        yield connected


@pytest.mark.usefixtures("worker")
async def test_a_chat_is_streamed_back(client: LapsClient, openai: FakeOpenAI) -> None:
    events = [
        event
        async for event in client.generate(
            [Message("system", "Be brief."), Message("user", "Count.")],
            sampling=Sampling(max_tokens=3, temperature=0.0, top_p=0.9, stop=("x",), seed=4),
            hints=Hints(tenant="acme", priority=2, predicted_tokens=3, deadline_s=1.5),
            rid="mine",
        )
    ]
    assert events == [
        Started("mine", "w0"),
        Delta("one"),
        Delta(" two"),
        Delta(" three"),
        Completed("stop", 7, 3),
    ]
    assert openai.paths == ["/v1/chat/completions"]
    assert openai.bodies == [
        {
            "model": "model",
            "rid": "mine",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Count."},
            ],
            "max_tokens": 3,
            "temperature": 0.0,
            "top_p": 0.9,
            "seed": 4,
            "stop": ["x"],
            "custom_params": {
                "laps": {
                    "tenant": "acme",
                    "priority": 2,
                    "predicted_tokens": 3,
                    "deadline_s": 1.5,
                }
            },
        }
    ]


@pytest.mark.usefixtures("worker")
async def test_a_plain_prompt_says_nothing_that_was_not_said(
    client: LapsClient, openai: FakeOpenAI
) -> None:
    answer = await client.generate_text("Once")
    assert answer.text == "one two three"
    assert (answer.finish_reason, answer.completion_tokens) == ("stop", 3)
    assert answer.rid
    assert openai.paths == ["/v1/completions"]
    assert openai.bodies == [
        {
            "model": "model",
            "rid": answer.rid,
            "stream": True,
            "stream_options": {"include_usage": True},
            "prompt": "Once",
        }
    ]


@pytest.mark.usefixtures("worker")
async def test_the_synchronous_client_generates_as_well(service: Service) -> None:
    def generate() -> str:
        with SyncLapsClient(service.address) as client:
            return client.generate_text([Message("user", "Count.")]).text

    assert await asyncio.to_thread(generate) == "one two three"


@pytest.mark.usefixtures("worker")
async def test_text_may_hold_any_character(client: LapsClient, openai: FakeOpenAI) -> None:
    openai.words = ["a\u2028b", "\u0085", "\r\n", "\x0b", "😀", '"}\n\ndata: [DONE]\n\n']
    assert (await client.generate_text("x")).text == "".join(openai.words)


@pytest.mark.usefixtures("worker")
async def test_words_come_before_the_answer_is_complete(
    client: LapsClient, openai: FakeOpenAI
) -> None:
    openai.hold.clear()
    async with aclosing(client.generate("x")) as events:
        assert isinstance(await anext(events), Started)
        openai.hold.set()
        assert await anext(events) == Delta("one")


@pytest.mark.usefixtures("worker")
async def test_closing_the_iterator_hangs_up_on_the_worker(
    client: LapsClient, openai: FakeOpenAI
) -> None:
    openai.hold.clear()
    async with aclosing(client.generate("x", rid="a")) as events:
        await anext(events)
        await openai.asked.wait()
        assert not openai.disconnected.is_set()
    await openai.disconnected.wait()
    openai.hold.set()
    assert (await client.generate_text("x", rid="a")).text, "the id is free again"


async def test_the_worker_with_the_fewest_requests_is_chosen(
    service: Service, client: LapsClient, openai: FakeOpenAI
) -> None:
    async with (
        FakeWorker(service.address, "a", http_url=openai.url) as a,
        FakeWorker(service.address, "b", http_url=openai.url) as b,
    ):
        await a.attach([arrival(1)])
        await b.attach()
        assert (await client.generate_text("x")).worker_id == "b"
        assert (await client.generate_text("x", worker_id="a")).worker_id == "a"


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


@pytest.mark.usefixtures("worker")
async def test_an_abort_is_a_reason_to_finish(client: LapsClient, openai: FakeOpenAI) -> None:
    openai.finish_reason = "abort"
    assert (await client.generate_text("x")).finish_reason == "abort"


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


async def test_a_proxy_for_the_internet_is_left_out(
    openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with (
        Service(load_config(flags={"listen": "127.0.0.1:0"})) as service,
        FakeWorker(service.address, http_url=openai.url) as worker,
        LapsClient(service.address) as client,
    ):
        await worker.attach()
        assert (await client.generate_text("x")).text == "one two three"

"""Generation through the service, by the SDK, to a fake OpenAI endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from laps.client import (
    Completed,
    Delta,
    Hints,
    LapsClient,
    Message,
    Sampling,
    Started,
    SyncLapsClient,
)
from laps.service.app import Service
from laps.service.config import load_config
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker, arrival


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


@pytest.mark.usefixtures("worker")
async def test_an_abort_is_a_reason_to_finish(client: LapsClient, openai: FakeOpenAI) -> None:
    openai.finish_reason = "abort"
    assert (await client.generate_text("x")).finish_reason == "abort"


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

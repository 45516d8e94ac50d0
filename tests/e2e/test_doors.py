"""One running system and the three doors to it: SGLang's endpoint, the SDK, the command."""

from __future__ import annotations

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from e2e.load import long_request, openai_client
from e2e.servers import TREE, assert_clean, laps_block, until
from e2e.system import MAX_RUNNING, System
from laps.client import Completed, Delta, Hints, LapsClient, Message, Phase, Sampling, Started

QUESTION = "rota savo tiwe zago?"
TOKENS = 12
SAMPLING = Sampling(max_tokens=TOKENS, temperature=0)


@pytest.fixture
def openai(system: System) -> OpenAI:
    return openai_client(system.server.base_url)


def chat(client: OpenAI, rid: str, hints: object) -> ChatCompletion:
    return client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        temperature=0,
        extra_body={"rid": rid, "custom_params": {"laps": hints}},
    )


def text_of(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


def test_hints_of_the_openai_body_reach_the_scheduler(system: System, openai: OpenAI) -> None:
    hints = {"tenant": "acme", "priority": 3, "predicted_tokens": 40, "deadline_s": 9.5}
    bad_hints = laps_block(system.server)["bad_hints"]
    assert chat(openai, "hinted", hints).usage
    assert until(lambda: system.phase("hinted") is Phase.FINISHED)
    [shown] = [r for r in system.laps_json("requests", "--departed") if r["rid"] == "hinted"]
    assert shown["hints"] == hints
    assert shown["output_tokens"] == TOKENS
    assert laps_block(system.server)["bad_hints"] == bad_hints


@pytest.mark.parametrize("hints", [{"predicted_tokens": "many"}, {"colour": "red"}, [1], None])
def test_bad_hints_are_ignored_and_counted(system: System, openai: OpenAI, hints: object) -> None:
    before = laps_block(system.server)["bad_hints"]
    rid = f"bad-hint-{before}"
    answer = text_of(chat(openai, rid, hints))
    assert answer == text_of(chat(openai, f"good-hint-{before}", {}))
    assert laps_block(system.server)["bad_hints"] == before + 1
    assert system.known(rid).hints == Hints()


async def test_the_sdk_streams_what_sglang_answers(system: System, openai: OpenAI) -> None:
    asked = [Message("user", QUESTION)]
    hints = Hints(tenant="sdk")
    async with LapsClient(system.service.address) as client:
        events = [
            event
            async for event in client.generate(asked, sampling=SAMPLING, hints=hints, rid="async")
        ]
    found = system.known("async")
    first, *deltas, last = events
    assert first == Started("async", found.worker_id)
    assert isinstance(last, Completed)
    assert last.completion_tokens == TOKENS
    text = "".join(delta.text for delta in deltas if isinstance(delta, Delta))
    assert text == text_of(chat(openai, "direct", {}))
    assert found.hints == hints
    with system.operator() as operator:
        answer = operator.generate_text(asked, sampling=SAMPLING, rid="sync")
        assert (answer.text, answer.finish_reason) == (text, last.finish_reason)
        plain = operator.generate_text(QUESTION, sampling=SAMPLING)
    completion = openai.completions.create(
        model="default", prompt=QUESTION, max_tokens=TOKENS, temperature=0
    )
    assert plain.text == completion.choices[0].text


def test_the_command_lists_workers_and_queues(system: System) -> None:
    [worker] = system.laps_json("workers")
    assert worker["attached"]
    assert worker["http_url"] == system.server.base_url
    assert (worker["algorithm"], worker["max_running"]) == (TREE.algorithm, MAX_RUNNING)
    assert worker["worker_id"] in system.laps("workers")
    assert {queue["worker_id"] for queue in system.laps_json("queues")} == {worker["worker_id"]}
    assert "QUEUE" in system.laps("queues")


def test_the_command_generates(system: System, openai: OpenAI) -> None:
    arguments = ("generate", QUESTION, "--max-tokens", str(TOKENS), "--temperature", "0")
    said = system.laps(*arguments, "--tenant", "shell", "--rid", "shell")
    assert said == text_of(chat(openai, "direct-again", {})) + "\n"
    assert system.known("shell").hints.tenant == "shell"


def test_the_command_explains_and_cancels(system: System, openai: OpenAI) -> None:
    with long_request(openai, "endless", {"tenant": "slow"}) as stream:
        next(stream)
        assert until(lambda: system.phase("endless") is Phase.RUNNING)
        explained = system.laps_json("explain", "endless")
        assert explained["request"]["hints"]["tenant"] == "slow"
        assert explained["policy"] == "laps-sd"
        assert "endless is being aborted" in system.laps("cancel", "endless")
        # SGLang's reason is not one of OpenAI's.
        assert str(list(stream)[-1].choices[0].finish_reason) == "abort"
    assert until(lambda: system.phase("endless") is Phase.ABORTED)
    reason = system.laps_json("explain", "endless")["reason"]
    assert reason in system.laps("explain", "endless")
    assert "endless" in system.laps("requests", "--departed")
    assert "'never'" in system.laps("explain", "never", code=1)
    assert "'never'" in system.laps("cancel", "never", code=1)
    assert_clean(system.server)


def test_the_policy_changes_at_run_time(system: System, openai: OpenAI) -> None:
    try:
        assert "fcfs" in system.laps("policy", "fcfs")
        with long_request(openai, "ordered", {}) as stream:
            next(stream)
            assert until(lambda: "ordered" in system.live())
            assert system.laps_json("explain", "ordered")["policy"] == "fcfs"
            assert until(lambda: laps_block(system.server)["policy"] == "fcfs")
            assert system.worker().policy.name == "fcfs"
        assert "fcfs, laps-sd" in system.laps("policy", "best", code=1)
    finally:
        system.laps("policy", "laps-sd")
    assert until(lambda: laps_block(system.server)["policy"] == "laps-sd")
    assert_clean(system.server)

"""The demo's requests: short answers and long ones, easy and hard to draft, all sent at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from openai import AsyncOpenAI

SPACING_S = 0.05
"""Between two requests, so that they arrive in the order of the file, whatever the policy."""


@dataclass(frozen=True)
class Prompt:
    """One chat request; `max_tokens` is all that the scheduler is told about its length."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Answer:
    """What came back: end-to-end latency in seconds, and the text."""

    rid: str
    latency_s: float
    tokens: int
    text: str


def read_prompts(scale: int) -> list[Prompt]:
    """Read the load, a JSON object a line, in order of arrival; answers may be `scale` as long."""
    lines = Path(__file__).with_name("requests.jsonl").read_text().splitlines()
    prompts = [Prompt(**json.loads(line)) for line in lines]
    return [replace(prompt, max_tokens=scale * prompt.max_tokens) for prompt in prompts]


async def send_all(
    client: AsyncOpenAI,
    prompts: list[Prompt],
    label: str,
    finished: Callable[[Answer], Awaitable[None]],
) -> list[Answer]:
    """Send every prompt without waiting for answers; await `finished` with each answer."""

    async def send(index: int, prompt: Prompt) -> Answer:
        await asyncio.sleep(index * SPACING_S)
        rid = f"{label}-{index:02d}"
        begin = time.perf_counter()
        reply = await client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": prompt.prompt}],
            max_tokens=prompt.max_tokens,
            temperature=0,
            extra_body={"rid": rid},
        )
        latency_s = time.perf_counter() - begin
        tokens = reply.usage.completion_tokens if reply.usage is not None else 0
        answer = Answer(rid, latency_s, tokens, reply.choices[0].message.content or "")
        await finished(answer)
        return answer

    return list(await asyncio.gather(*(send(i, prompt) for i, prompt in enumerate(prompts))))

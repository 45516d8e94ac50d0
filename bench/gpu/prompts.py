"""Prompts by path, and how they are sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import openai
from rich.progress import track

Answer = TypeVar("Answer")


class PromptError(ValueError):
    """A file that holds no prompts; the message says what is wrong with it."""


@dataclass(frozen=True)
class Prompt:
    """One chat request, and the data set that it comes from."""

    source: str
    text: str


@dataclass(frozen=True)
class Reply:
    """What came back."""

    rid: str
    completion_tokens: int
    rounds: int
    """Verify rounds."""


def read_prompts(paths: Sequence[Path], seed: int) -> list[Prompt]:
    """Read JSON-lines files, .gz or plain, with a `prompt` and perhaps a `source`; shuffle them.

    Raises PromptError, naming file and line.
    """
    prompts = []
    for path in paths:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    prompts.append(Prompt(row.get("source", path.stem), row["prompt"]))
                except (ValueError, KeyError, AttributeError) as error:
                    raise PromptError(
                        f'{path}:{number} is no JSON object with a "prompt" in it: {error!r}'
                    ) from error
    random.Random(seed).shuffle(prompts)
    return prompts


async def send_closed(
    base_url: str, prompts: Sequence[Prompt], label: str, clients: int, max_tokens: int
) -> list[Reply]:
    """Send all as chats, `clients` at a time, greedily; replies in the order of the prompts."""

    async def send(client: openai.AsyncOpenAI, index: int) -> Reply:
        rid = f"{label}-{index:05d}"
        reply = await client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": prompts[index].text}],
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"rid": rid, "return_meta_info": True},
        )
        tokens = reply.usage.completion_tokens if reply.usage is not None else 0
        # An extension of SGLang's, hence unknown to the client's types.
        told = getattr(reply.choices[0], "meta_info", None) or {}
        return Reply(rid, tokens, told.get("spec_verify_ct", 0))

    return await _closed_loop(base_url, send, len(prompts), label, clients)


async def complete_closed(
    base_url: str, texts: Sequence[str], max_tokens: Sequence[int], label: str, clients: int
) -> list[tuple[int, ...]]:
    """Have all texts continued, `clients` at a time, greedily; return the token ids."""

    async def send(client: openai.AsyncOpenAI, index: int) -> tuple[int, ...]:
        reply = await client.completions.create(
            model="default",
            prompt=texts[index],
            max_tokens=max_tokens[index],
            temperature=0,
            extra_body={"return_token_ids": True},
        )
        # An extension of SGLang's, hence unknown to the client's types.
        return tuple(getattr(reply.choices[0], "token_ids", None) or ())

    return await _closed_loop(base_url, send, len(texts), label, clients)


async def _closed_loop(
    base_url: str,
    send: Callable[[openai.AsyncOpenAI, int], Awaitable[Answer]],
    count: int,
    label: str,
    clients: int,
) -> list[Answer]:
    """Await `send` for 0 to `count` - 1, `clients` at a time; answers in that order."""
    free = asyncio.Semaphore(clients)
    async with openai.AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=600
    ) as client:

        async def one(index: int) -> Answer:
            async with free:
                return await send(client, index)

        tasks = [asyncio.create_task(one(index)) for index in range(count)]
        for task in track(asyncio.as_completed(tasks), description=label, total=count):
            await task
        return [task.result() for task in tasks]

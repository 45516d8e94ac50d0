"""An open-loop load over the public OpenAI client, from several processes.

Every request has its time, drawn beforehand, and is sent then, whatever became of those before it.
Answers are streamed, so that the first token has a time, too. How late requests were sent is part
of what comes back: a client that does not keep up must show.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from math import log2
from types import TracebackType
from typing import Self

import httpx
import openai

PROCESSES = 4
"""Of clients: parsing the chunks of one server takes more than half of a core."""
AHEAD_S = 0.5
"""Between the start of a run and its time 0: the processes must have the jobs by then."""
TIMEOUT_S = 600.0
PRIORITIES_PER_DOUBLING = 10
"""A request predicted to be twice as long has a priority lower by this: SGLang preempts for more
than 10 (--priority-scheduling-preemption-threshold), that is, for more than a factor of 2."""


@dataclass(frozen=True)
class Job:
    """One request of a run."""

    number: int
    """In order of arrival."""
    prompt: int
    """Which of the prompts."""
    due_s: float
    """When it is to be sent, after the run's time 0."""
    max_tokens: int
    predicted_tokens: int
    """What the client says about its length."""


@dataclass(frozen=True)
class Timing:
    """What became of a job; times in seconds after the run's time 0."""

    number: int
    due_s: float
    sent_s: float
    first_s: float
    """First token."""
    done_s: float
    tokens: int
    """0 if it failed."""
    prompt_tokens: int = 0


class Clients:
    """The processes that send; a context manager."""

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(
        self,
        base_url: str,
        label: str,
        jobs: Sequence[Job],
        texts: Sequence[str],
        clients: int | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Timing]:
        """Send all jobs as requests `label`-NUMBER-PROMPT; return when the last has its answer.

        With `clients`, a closed loop of so many instead: times are those before which nothing is
        sent. `meanwhile` is called about once a second. Raises ConnectionError if the server has
        gone.
        """
        begin = time.monotonic() + AHEAD_S
        shares = [jobs[first::PROCESSES] for first in range(PROCESSES)]
        open_at_once = None if clients is None else -(-clients // PROCESSES)
        futures: list[Future[list[Timing]]] = [
            self._pool.submit(
                _send_share,
                base_url,
                label,
                [(job, texts[job.prompt]) for job in share],
                begin,
                open_at_once,
            )
            for share in shares
            if share
        ]
        while wait(futures, timeout=1.0).not_done:
            meanwhile()
        timings = [timing for future in futures for timing in future.result()]
        return sorted(timings, key=lambda timing: timing.number)


def priority(job: Job) -> int:
    """Return SGLang's priority of a job, higher for what is predicted to be shorter."""
    return -round(PRIORITIES_PER_DOUBLING * log2(job.predicted_tokens))


def _send_share(
    base_url: str,
    label: str,
    share: Sequence[tuple[Job, str]],
    begin: float,
    open_at_once: int | None,
) -> list[Timing]:
    return asyncio.run(_send_all(base_url, label, share, begin, open_at_once or len(share)))


def _client(base_url: str) -> openai.AsyncOpenAI:
    """Return a client with a connection for each request.

    A server closes one that has been idle for some seconds, maybe just as the next is sent over it.
    """
    return openai.AsyncOpenAI(
        base_url=f"{base_url}/v1",
        api_key="none",
        max_retries=0,
        timeout=TIMEOUT_S,
        http_client=openai.DefaultAsyncHttpxClient(
            limits=httpx.Limits(max_keepalive_connections=0)
        ),
    )


async def _send_all(
    base_url: str, label: str, share: Sequence[tuple[Job, str]], begin: float, open_at_once: int
) -> list[Timing]:
    free = asyncio.Semaphore(open_at_once)
    async with _client(base_url) as client:

        async def send(job: Job, text: str) -> Timing:
            await asyncio.sleep(begin + job.due_s - time.monotonic())
            async with free:
                return await _send(client, f"{label}-{job.number}-{job.prompt}", job, text, begin)

        return list(await asyncio.gather(*(send(job, text) for job, text in share)))


async def _send(client: openai.AsyncOpenAI, rid: str, job: Job, text: str, begin: float) -> Timing:
    sent_s = time.monotonic() - begin
    first_s, tokens, prompt_tokens = 0.0, 0, 0
    try:
        stream = await client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": text}],
            max_tokens=job.max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            # The same for all: stock SGLang has no use for hints, nor without its own flag for
            # priorities.
            extra_body={
                "rid": rid,
                "ignore_eos": True,
                "priority": priority(job),
                "custom_params": {"laps": {"predicted_tokens": job.predicted_tokens}},
            },
        )
        async for chunk in stream:
            if not first_s and chunk.choices:
                first_s = time.monotonic() - begin
            if chunk.usage is not None:
                tokens = chunk.usage.completion_tokens
                prompt_tokens = chunk.usage.prompt_tokens
    except (openai.OpenAIError, httpx.HTTPError) as error:
        if isinstance(error.__cause__, httpx.ConnectError):
            # None of those that are still to come would be answered either.
            raise ConnectionError(f"{rid}: nothing listens at {client.base_url}") from None
        print(f"{rid}: {error}", flush=True)
        tokens = 0
    done_s = time.monotonic() - begin
    return Timing(job.number, job.due_s, sent_s, first_s, done_s, tokens, prompt_tokens)

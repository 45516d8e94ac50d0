"""Requests through the OpenAI client, and what came back, token by token."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from openai import OpenAI, Stream
from openai.types import Completion

ANSWER_TIMEOUT_S = 600.0
"""Longest wait for an answer: on a busy machine a whole load may be served before it."""
WORDS = ("bada", "femi", "gohu", "karen", "lovi", "mizu", "nepa", "rota", "savo", "tiwe", "zago")


@dataclass(frozen=True, slots=True)
class Job:
    """One greedy completion."""

    name: str
    prompt: str
    max_tokens: int
    streamed: bool


LONG_TOKENS = 1500
"""So many that the request is aborted before it ends; the tiny model's context has 2048."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a job came to."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str


def jobs(count: int = 24, longest: int = 90) -> list[Job]:
    """Jobs of varied prompt and answer length, every other one streamed.

    The tiny model ends none of them within a few tokens of its limit. Where a round brings both,
    SGLang 0.5.17 goes by the limit, and answers one token more than by plain decoding.
    """
    return [
        Job(
            name=f"job{index:02}",
            prompt=" ".join(WORDS[(index + i) % len(WORDS)] for i in range(1 + index * 5 % 17)),
            max_tokens=6 + index * 36 % (longest - 5),
            streamed=index % 2 == 1,
        )
        for index in range(count)
    ]


def openai_client(base_url: str) -> OpenAI:
    """The client as users have it, but that it asks once only: a lost request must show."""
    return OpenAI(
        base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=ANSWER_TIMEOUT_S
    )


def ask(client: OpenAI, job: Job, rid: str) -> Output:
    """Run `job` as request `rid`."""
    extra = {"rid": rid, "return_token_ids": True}
    if not job.streamed:
        completion = client.completions.create(
            model="default",
            prompt=job.prompt,
            max_tokens=job.max_tokens,
            temperature=0,
            extra_body=extra,
        )
        return _output([completion])
    with client.completions.create(
        model="default",
        prompt=job.prompt,
        max_tokens=job.max_tokens,
        temperature=0,
        stream=True,
        extra_body=extra,
    ) as stream:
        return _output(list(stream))


def _output(chunks: Sequence[Completion]) -> Output:
    token_ids: list[int] = []
    text = finish_reason = ""
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        # An extension of SGLang's, hence unknown to the client's types.
        token_ids += getattr(choice, "token_ids", None) or ()
        text += choice.text
        finish_reason = choice.finish_reason or finish_reason
    return Output(tuple(token_ids), text, finish_reason)


@contextmanager
def long_request(
    client: OpenAI, rid: str, hints: dict[str, object]
) -> Iterator[Stream[Completion]]:
    """Stream a request that does not end by itself; leaving closes its HTTP connection."""
    with client.completions.create(
        model="default",
        prompt=f"{rid} {' '.join(WORDS)}",
        max_tokens=LONG_TOKENS,
        temperature=0,
        stream=True,
        extra_body={"rid": rid, "ignore_eos": True, "custom_params": {"laps": hints}},
    ) as stream:
        yield stream


def ask_all(base_url: str, load: Sequence[Job]) -> dict[str, Output]:
    """Run all jobs at once; their outputs by name."""
    with openai_client(base_url) as client, ThreadPoolExecutor(len(load)) as pool:
        outputs = pool.map(lambda job: ask(client, job, job.name), load)
        return {job.name: output for job, output in zip(load, outputs, strict=True)}


class SteadyLoad:
    """Clients that go through the jobs again and again, one request after the other each.

    So a load lasts as long as a test has something to do meanwhile, on any machine.
    """

    def __init__(self, base_url: str, load: Sequence[Job], clients: int) -> None:
        self._base_url = base_url
        self.clients = clients
        self._jobs = itertools.cycle(load)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._open: set[str] = set()
        self.outputs: list[tuple[Job, Output]] = []
        self.errors: list[Exception] = []

    def unfinished(self) -> set[str]:
        """Ids of the requests that wait for their answer."""
        with self._lock:
            return set(self._open)

    @contextmanager
    def running(self) -> Iterator[SteadyLoad]:
        """Run the clients inside; then stop, and wait for the last answers."""
        with (
            openai_client(self._base_url) as client,
            ThreadPoolExecutor(self.clients) as pool,
        ):
            for _ in range(self.clients):
                pool.submit(self._work, client)
            try:
                yield self
            finally:
                self.stop()

    def stop(self) -> None:
        """Ask nothing any more; each client finishes the request it has under way."""
        self._stop.set()

    def _work(self, client: OpenAI) -> None:
        while not self._stop.is_set():
            with self._lock:
                # A new id each time, none of which begins another one.
                job, rid = next(self._jobs), f"load{next(self._numbers):05}"
                self._open.add(rid)
            try:
                output = ask(client, job, rid)
                self.outputs.append((job, output))
            except Exception as error:
                self.errors.append(error)
                return
            finally:
                with self._lock:
                    self._open.discard(rid)

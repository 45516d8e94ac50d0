"""A worker's own HTTP endpoint: OpenAI requests out, streamed text back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc
import httpx
from pydantic import BaseModel, Field, ValidationError

from laps.v1 import client_pb2, common_pb2

MAX_EVENT_BYTES = 16 << 20
"""Longest line that a worker may stream; more means that it is no OpenAI endpoint."""

Count = Annotated[int, Field(ge=0, lt=2**32)]


class UpstreamError(Exception):
    """The worker refused, failed or broke off; `code` is what the caller's call ends with."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    text: str | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class _Error(BaseModel):
    message: str
    code: int = 500


class _Event(BaseModel):
    """The fields that matter of a chunk of `/v1/chat/completions` or `/v1/completions`."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


def request_body(request: client_pb2.GenerateRequest, rid: str, model: str) -> tuple[str, bytes]:
    """Return the path and the JSON body of the OpenAI request for `request`.

    Raises UpstreamError (INVALID_ARGUMENT) where there is no such body.
    """
    if bool(request.messages) == bool(request.prompt):
        raise UpstreamError(
            grpc.StatusCode.INVALID_ARGUMENT, "give either messages or a prompt, and not both"
        )
    body: dict[str, Any] = {
        "model": model,
        "rid": rid,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.messages:
        path = "/v1/chat/completions"
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        path = "/v1/completions"
        body["prompt"] = request.prompt
    sampling = request.sampling
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        if sampling.HasField(name):
            body[name] = getattr(sampling, name)
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    hints = _hints(request.hints)
    if hints:
        body["custom_params"] = {"laps": hints}
    try:
        return path, json.dumps(body, allow_nan=False).encode()
    except ValueError:
        raise UpstreamError(
            grpc.StatusCode.INVALID_ARGUMENT, "sampling and hints must be finite numbers"
        ) from None


def _hints(hints: common_pb2.Hints) -> dict[str, str | int | float]:
    """Return the hints that were given; zero and empty mean "not said"."""
    given: dict[str, str | int | float] = {
        "tenant": hints.tenant,
        "priority": hints.priority,
        "predicted_tokens": hints.predicted_tokens,
        "deadline_s": hints.deadline_s,
    }
    return {name: value for name, value in given.items() if value}


class Upstream:
    """Talks to the endpoints of all workers over one pool of connections."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(
            # An answer may take as long as it takes: the caller has a deadline, or hangs up.
            timeout=httpx.Timeout(10.0, read=None, pool=None),
            limits=httpx.Limits(max_connections=None),
            # A proxy that is meant for the internet has no business between service and worker.
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def generate(
        self, base_url: str, path: str, body: bytes
    ) -> AsyncIterator[client_pb2.Delta | client_pb2.Completed]:
        """Yield the new text as it comes, and one Completed at the end.

        Leaving the iteration early closes the connection, which makes SGLang abort the request.
        """
        completed = client_pb2.Completed()
        try:
            async with self._http.stream(
                "POST",
                base_url.rstrip("/") + path,
                content=body,
                headers={"Content-Type": "application/json"},
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread())
                async for event in _events(response):
                    for choice in event.choices:
                        text = choice.delta.content or choice.text
                        if text:
                            yield client_pb2.Delta(text=text)
                        completed.finish_reason = choice.finish_reason or completed.finish_reason
                    if event.usage is not None:
                        completed.prompt_tokens = event.usage.prompt_tokens
                        completed.completion_tokens = event.usage.completion_tokens
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(base_url, error) from None
        if not completed.finish_reason:
            raise UpstreamError(
                grpc.StatusCode.UNAVAILABLE, f"the worker at {base_url} broke off in mid-answer"
            )
        yield completed

    async def abort(self, base_url: str, rid: str) -> None:
        """Ask SGLang to abort a request; it answers before the request has left."""
        try:
            response = await self._http.post(
                base_url.rstrip("/") + "/abort_request", json={"rid": rid}, timeout=10.0
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(base_url, error) from None
        if response.is_error:
            raise _refusal(response.status_code, response.content)


async def _events(response: httpx.Response) -> AsyncIterator[_Event]:
    """Yield the server-sent events of `response`, up to [DONE].

    Lines end at a line feed only: SGLang does not escape the other characters at which Python
    breaks lines (U+2028, U+0085), and a model may well write them.
    """
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise UpstreamError(grpc.StatusCode.UNAVAILABLE, "the worker streams an endless line")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            try:
                event = _Event.model_validate_json(data)
            except ValidationError:
                raise UpstreamError(
                    grpc.StatusCode.UNAVAILABLE, "the worker's answer is not an OpenAI stream"
                ) from None
            if event.error is not None:
                raise UpstreamError(_code(event.error.code), event.error.message)
            yield event


def _refusal(status: int, body: bytes) -> UpstreamError:
    """Return the error for an HTTP status other than 200, with the worker's own words."""
    message = body.decode(errors="replace")[:1000] or f"HTTP status {status}"
    try:
        parsed = json.loads(body)
        # SGLang puts its error at the top, OpenAI one level down.
        message = _Error.model_validate(parsed.get("error", parsed)).message
    except (ValueError, AttributeError, RecursionError):
        pass
    return UpstreamError(_code(status), message)


def _code(status: int) -> grpc.StatusCode:
    """Return the code for an HTTP status. SGLang says 503 when its queue is full."""
    if status in (429, 503):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if 400 <= status < 500:
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.UNAVAILABLE


def _unreachable(base_url: str, error: Exception) -> UpstreamError:
    what = str(error) or type(error).__name__
    return UpstreamError(
        grpc.StatusCode.UNAVAILABLE, f"the worker at {base_url} does not answer: {what}"
    )

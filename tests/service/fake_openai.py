"""An OpenAI endpoint that is none: it streams the words that a test gives it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class FakeOpenAI:
    """Answers like SGLang's endpoint, without a model. `async with` starts and stops it."""

    def __init__(self) -> None:
        self.url = ""
        self.words = ["one", " two", " three"]
        self.finish_reason = "stop"
        self.refusal: tuple[int, str] | None = None
        """(HTTP status, body) with which to answer instead."""
        self.error_in_stream: dict[str, Any] | None = None
        """Sent in place of the end, as SGLang does when a request fails while it streams."""
        self.break_off = False
        """Close the connection before the end."""
        self.hold = asyncio.Event()
        """Cleared: the first word is held back."""
        self.hold.set()
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.peers: list[tuple[str, int]] = []
        """Address and port of the client, of each request."""
        self.aborted: list[str] = []
        self.asked = asyncio.Event()
        """Set when the first request is here."""
        self.disconnected = asyncio.Event()
        """Set when a client hung up in mid-answer."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/abort_request", self._abort)
        self._runner = web.AppRunner(app, handler_cancellation=True)

    async def __aenter__(self) -> FakeOpenAI:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hold.set()
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.paths.append(request.path)
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        if self.refusal is not None:
            status, text = self.refusal
            return web.Response(status=status, text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.asked.set()
        try:
            await response.prepare(request)
            for word in self.words:
                await self.hold.wait()
                await self._event(response, _chunk(request.path, word))
            await self._end(request, response)
        except (asyncio.CancelledError, ConnectionResetError):
            self.disconnected.set()
            raise
        return response

    async def _end(self, request: web.Request, response: web.StreamResponse) -> None:
        if self.break_off:
            assert request.transport is not None
            request.transport.close()
            return
        if self.error_in_stream is not None:
            await self._event(response, {"error": self.error_in_stream})
        else:
            await self._event(response, _chunk(request.path, "", self.finish_reason))
            usage = {"prompt_tokens": 7, "completion_tokens": len(self.words)}
            await self._event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")

    async def _event(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        # Not escaped, as SGLang does it.
        await response.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["rid"])
        return web.Response()


def _chunk(path: str, text: str, finish_reason: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
    if path.startswith("/v1/chat"):
        choice["delta"] = {"content": text}
    else:
        choice["text"] = text
    return {"choices": [choice], "usage": None}

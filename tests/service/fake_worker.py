"""A worker that is none: it speaks the real worker link and says what a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import grpc

from laps import wire
from laps.engine.types import Arrival, Capacity, Plan, Snapshot, StepReport
from laps.v1 import worker_pb2, worker_pb2_grpc

Call = grpc.aio.StreamStreamCall[worker_pb2.WorkerMessage, worker_pb2.ServiceMessage]


def arrival(handle: int, **fields: Any) -> Arrival:
    """Return a request "r<handle>" that arrived at second <handle>."""
    defaults: dict[str, Any] = {
        "rid": f"r{handle}",
        "arrival_s": float(handle),
        "prompt_tokens": 10,
        "max_new_tokens": 100,
    }
    return Arrival(handle=handle, **{**defaults, **fields})


class FakeWorker:
    """One process's end of the worker link. `async with` opens the stream, and breaks it off."""

    def __init__(
        self,
        address: str,
        worker_id: str = "w0",
        *,
        incarnation: int = 1,
        model: str = "model",
        http_url: str = "",
        capacity: Capacity = Capacity(max_running=2, max_resident=4),  # noqa: B008
    ) -> None:
        self.identity = wire.WorkerIdentity(
            worker_id, incarnation, model, http_url, "0.5.23", "EAGLE", 4
        )
        self.capacity = capacity
        self.newest = Plan()
        self._channel = grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),))
        self._call: Call | None = None

    async def __aenter__(self) -> FakeWorker:
        self._call = worker_pb2_grpc.WorkerLinkStub(self._channel).Attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        # Some versions of gRPC leave a call open when its channel is closed.
        self.call.cancel()
        await self._channel.close()

    @property
    def call(self) -> Call:
        assert self._call is not None, "the worker is used inside `async with`"
        return self._call

    async def attach(self, requests: Sequence[Arrival] = (), step: int = 0) -> worker_pb2.Welcome:
        """Say Hello; return the Welcome, with the first plan in `newest`."""
        snapshot = Snapshot(step, float(step), self.capacity, tuple(requests))
        await self.send(hello=wire.hello_to_proto(self.identity, snapshot))
        welcome = await self.welcome()
        await self.plan(step)
        return welcome

    async def send(self, **body: Any) -> None:
        """Send any message, also a meaningless one."""
        await self.call.write(worker_pb2.WorkerMessage(**body))

    async def report(self, step: int, **fields: Any) -> Plan:
        """Send a report made at second `step` and return the plan that answers it."""
        await self.send(report=wire.report_to_proto(StepReport(step, float(step), **fields)))
        return await self.plan(step)

    async def receive(self) -> worker_pb2.ServiceMessage:
        """Return the next message; the end of the stream raises `AioRpcError`."""
        message = await self.call.read()
        if not isinstance(message, worker_pb2.ServiceMessage):
            raise EOFError(f"the service ended the stream: {await self.call.code()}")
        if message.WhichOneof("body") == "plan":
            self.newest = wire.plan_from_proto(message.plan, self.newest)
        return message

    async def welcome(self) -> worker_pb2.Welcome:
        """Read up to the next Welcome."""
        while (message := await self.receive()).WhichOneof("body") != "welcome":
            pass
        return message.welcome

    async def plan(self, step: int) -> Plan:
        """Read up to a plan that has seen `step`."""
        while (message := await self.receive()).WhichOneof(
            "body"
        ) != "plan" or message.plan.step < step:
            pass
        return self.newest

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """Read to the end of the stream and return how it ended."""
        with contextlib.suppress(grpc.aio.AioRpcError, EOFError):
            while True:
                await self.receive()
        return await self.call.code(), await self.call.details() or ""

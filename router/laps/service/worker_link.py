"""The worker link (proto/laps/v1/worker.proto): reports in, plans out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from typing_extensions import override

from laps import wire
from laps.service.hub import ElderProcessError, Hub, Link, Worker
from laps.v1 import worker_pb2, worker_pb2_grpc

Context = grpc.aio.ServicerContext[worker_pb2.WorkerMessage, worker_pb2.ServiceMessage]


class WorkerLinkServicer(worker_pb2_grpc.WorkerLinkServicer):
    """Hosts one engine for each stream.

    Reports are observed as they come; one plan answers all that came while the plan before was on
    its way out, so a worker that is faster than the link gets fewer plans and none that is late.
    """

    def __init__(self, hub: Hub, plan_ttl_s: float) -> None:
        self._hub = hub
        self._plan_ttl_s = plan_ttl_s

    @override
    async def Attach(
        self, request_iterator: AsyncIterator[worker_pb2.WorkerMessage], context: Context
    ) -> AsyncIterator[worker_pb2.ServiceMessage]:
        """Serve one stream; see the contract."""
        worker = await self._admit(request_iterator, context)
        link = worker.link
        reader = asyncio.create_task(_read(request_iterator, link))
        try:
            while await link.something_to_say():
                if link.take_welcome():
                    yield worker_pb2.ServiceMessage(welcome=self._welcome())
                plan = link.plan()
                if plan is not None:
                    unchanged = plan.seq == link.freshness.sent_seq
                    message = wire.plan_to_proto(plan, unchanged=unchanged)
                    yield worker_pb2.ServiceMessage(plan=message)
                    link.freshness.sent_seq = plan.seq
        finally:
            reader.cancel()
            self._hub.detach(worker)
        if link.closed_because is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, link.closed_because)

    async def _admit(
        self, messages: AsyncIterator[worker_pb2.WorkerMessage], context: Context
    ) -> Worker:
        first = await anext(messages, None)
        if first is None or first.WhichOneof("body") != "hello":
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the first message of a stream must be a Hello"
            )
        hello = first.hello
        if hello.protocol != wire.PROTOCOL:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"worker {hello.worker_id!r} speaks version {hello.protocol} of the contract and "
                f"this service version {wire.PROTOCOL}: install the same sglang-laps on both",
            )
        if not hello.worker_id or not hello.capacity.max_running:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "a Hello must have a worker_id and a capacity.max_running of at least 1",
            )
        try:
            snapshot = wire.snapshot_from_proto(hello)
            return self._hub.attach(wire.identity_from_proto(hello), snapshot)
        except wire.WireError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ElderProcessError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

    def _welcome(self) -> worker_pb2.Welcome:
        return worker_pb2.Welcome(
            policy=wire.policy_to_proto(self._hub.policy),
            plan_ttl_s=self._plan_ttl_s,
            protocol=wire.PROTOCOL,
        )


async def _read(messages: AsyncIterator[worker_pb2.WorkerMessage], link: Link) -> None:
    """Observe everything that the worker says until it ends the stream."""
    try:
        async for message in messages:
            if message.WhichOneof("body") != "report":
                link.fault("a message that is no report was passed over")
                continue
            try:
                link.observe(wire.report_from_proto(message.report))
            except Exception as error:  # A broken report costs its worker a plan, and no more.
                link.fault("a report was passed over", error)
    finally:
        link.close()

"""Generation through the service (proto/laps/v1/client.proto)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
from typing_extensions import override

from laps.engine.types import Phase
from laps.service import views
from laps.service.hub import Hub, Worker
from laps.service.refusal import refuse
from laps.service.upstream import Upstream, UpstreamError, request_body
from laps.v1 import client_pb2, client_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
NOT_FOUND = "no worker holds a request {!r}, or it left too long ago"


class InferenceServicer(client_pb2_grpc.InferenceServicer):
    """Picks a worker and forwards to its OpenAI endpoint; the scheduling is the worker link's."""

    def __init__(self, hub: Hub, upstream: Upstream) -> None:
        self._hub = hub
        self._upstream = upstream
        self._forwarded: dict[str, Worker] = {}
        """Requests being streamed through here: a worker reports them only at its next step."""

    @override
    async def Generate(
        self, request: client_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[client_pb2.GenerateEvent]:
        """Stream one answer. Cancelling the call closes the connection to the worker."""
        rid = request.rid or uuid.uuid4().hex
        if rid in self._forwarded or self._live_on(rid) is not None:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"request id {rid!r} is in use")
        worker = await self._choose(request.worker_id, context)
        identity = worker.identity
        try:
            path, body = request_body(request, rid, identity.model)
        except UpstreamError as error:
            await refuse(context, error.code, str(error))
        self._forwarded[rid] = worker
        try:
            started = client_pb2.Started(rid=rid, worker_id=identity.worker_id)
            yield client_pb2.GenerateEvent(started=started)
            async for part in self._upstream.generate(identity.http_url, path, body):
                if isinstance(part, client_pb2.Delta):
                    yield client_pb2.GenerateEvent(delta=part)
                else:
                    yield client_pb2.GenerateEvent(completed=part)
        except UpstreamError as error:
            await refuse(context, error.code, str(error))
        finally:
            del self._forwarded[rid]

    @override
    async def Cancel(
        self, request: client_pb2.CancelRequest, context: Context
    ) -> client_pb2.CancelResponse:
        """Abort a request that is alive on any worker."""
        rid = request.rid
        worker = self._forwarded.get(rid) or self._live_on(rid)
        if worker is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, NOT_FOUND.format(rid))
        namesakes = [
            status.rid
            for status in worker.engine.statuses()
            if status.rid != rid and status.rid.startswith(rid)
        ]
        if namesakes:
            # SGLang's scheduler aborts every request whose id begins with the one it is given.
            await refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"SGLang would also abort {', '.join(namesakes[:5])}: ids that begin with {rid!r}",
            )
        try:
            await self._upstream.abort(worker.identity.http_url, rid)
        except UpstreamError as error:
            await refuse(context, error.code, str(error))
        return client_pb2.CancelResponse(worker_id=worker.identity.worker_id)

    @override
    async def GetRequest(
        self, request: client_pb2.GetRequestRequest, context: Context
    ) -> client_pb2.RequestStatus:
        """Return a request as its worker's engine sees it."""
        worker = self._hub.find(request.rid)
        if worker is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, NOT_FOUND.format(request.rid))
        status = worker.engine.status(worker.engine.handle_of(request.rid))
        return views.request_status(status, worker.identity.worker_id)

    def _live_on(self, rid: str) -> Worker | None:
        """Return the worker on which the request is alive, as far as was reported."""
        worker = self._hub.find(rid)
        if worker is None:
            return None
        status = worker.engine.status(worker.engine.handle_of(rid))
        return worker if status.phase < Phase.FINISHED else None

    async def _choose(self, worker_id: str, context: Context) -> Worker:
        """Return the attached worker of that id, or the one with the fewest requests."""
        attached = self._hub.attached()
        if worker_id:
            attached = [worker for worker in attached if worker.identity.worker_id == worker_id]
        if not attached:
            which = f"worker {worker_id!r} is not" if worker_id else "no worker is"
            await refuse(
                context,
                grpc.StatusCode.UNAVAILABLE,
                f"{which} attached: start SGLang with --laps-endpoint and this service's address",
            )
        return min(attached, key=lambda worker: worker.load)

"""What operators see and order (proto/laps/v1/operator.proto)."""

from __future__ import annotations

from typing import Any

import grpc
from typing_extensions import override

from laps import wire
from laps.policies.base import PolicyError
from laps.service import views
from laps.service.hub import Hub, Worker
from laps.service.inference import NOT_FOUND
from laps.service.refusal import refuse
from laps.v1 import operator_pb2, operator_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class OperatorServicer(operator_pb2_grpc.OperatorServicer):
    """Reads the engines; its one order is the policy."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @override
    async def ListWorkers(
        self, request: operator_pb2.ListWorkersRequest, context: Context
    ) -> operator_pb2.ListWorkersResponse:
        """Return all workers, also those that left."""
        return operator_pb2.ListWorkersResponse(
            workers=[views.worker_status(worker) for worker in self._hub.workers()]
        )

    @override
    async def ListQueues(
        self, request: operator_pb2.ListQueuesRequest, context: Context
    ) -> operator_pb2.ListQueuesResponse:
        """Return the queues in the order in which they are served."""
        return operator_pb2.ListQueuesResponse(
            queues=[
                views.queue(queue, worker.identity.worker_id)
                for worker in await self._selected(request.worker_id, context)
                for queue in worker.engine.queues()
            ]
        )

    @override
    async def ListRequests(
        self, request: operator_pb2.ListRequestsRequest, context: Context
    ) -> operator_pb2.ListRequestsResponse:
        """Return the requests of each worker, best first."""
        return operator_pb2.ListRequestsResponse(
            requests=[
                views.request_status(status, worker.identity.worker_id)
                for worker in await self._selected(request.worker_id, context)
                for status in worker.engine.statuses(request.include_departed)
            ]
        )

    @override
    async def Explain(
        self, request: operator_pb2.ExplainRequest, context: Context
    ) -> operator_pb2.Explanation:
        """Return why a request runs or waits."""
        worker = self._hub.find(request.rid)
        if worker is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, NOT_FOUND.format(request.rid))
        return views.explanation(worker.engine.explain(request.rid), worker.identity.worker_id)

    @override
    async def SetPolicy(
        self, request: operator_pb2.SetPolicyRequest, context: Context
    ) -> operator_pb2.SetPolicyResponse:
        """Order all workers by another policy, those to come included."""
        try:
            self._hub.set_policy(wire.policy_from_proto(request.policy))
        except (wire.WireError, PolicyError) as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return operator_pb2.SetPolicyResponse(policy=wire.policy_to_proto(self._hub.policy))

    async def _selected(self, worker_id: str, context: Context) -> list[Worker]:
        """Return the worker named, attached or not; all attached ones if none is named."""
        if not worker_id:
            return self._hub.attached()
        worker = self._hub.get(worker_id)
        if worker is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, f"there is no worker {worker_id!r}")
        return [worker]

"""The service's list of workers, as an operator sees it."""

from __future__ import annotations

import asyncio

import grpc

from laps.service.app import Service
from laps.v1 import operator_pb2, operator_pb2_grpc


async def workers_of(service: Service) -> dict[str, operator_pb2.WorkerStatus]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        listing = await operator_pb2_grpc.OperatorStub(channel).ListWorkers(
            operator_pb2.ListWorkersRequest()
        )
    return {worker.worker_id: worker for worker in listing.workers}


async def until_detached(service: Service, worker_id: str) -> None:
    while (await workers_of(service))[worker_id].attached:
        await asyncio.sleep(0.01)

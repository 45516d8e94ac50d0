"""The service as a whole: what is served, how it starts and how it stops."""

from __future__ import annotations

import asyncio
import signal

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from laps.service.config import ServiceConfig
from laps.service.hub import Hub
from laps.service.inference import InferenceServicer
from laps.service.operator import OperatorServicer
from laps.service.upstream import Upstream
from laps.service.worker_link import WorkerLinkServicer
from laps.v1 import (
    client_pb2,
    client_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (worker_pb2, "WorkerLink"),
        (client_pb2, "Inference"),
        (operator_pb2, "Operator"),
    )
)

_SERVER_OPTIONS = (
    # Two services on one port would share its workers at random: the second must fail to start.
    ("grpc.so_reuseport", 0),
    # A snapshot of very many requests, or a long prompt, is larger than the default of 4 MiB.
    ("grpc.max_receive_message_length", 64 << 20),
    # A worker whose machine is gone says nothing: ask, and let workers ask as well.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)

log = structlog.get_logger(__name__)


class ServiceError(Exception):
    """The service cannot start; the message says why."""


class Service:
    """One scheduling service. `async with Service(config) as service` starts and stops it."""

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.address = config.listen
        """host:port that it listens on; the real port once it is started."""
        self._hub = Hub(config.policy_spec)
        self._upstream = Upstream()
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)
        worker_pb2_grpc.add_WorkerLinkServicer_to_server(
            WorkerLinkServicer(self._hub, config.plan_ttl_s), self._server
        )
        client_pb2_grpc.add_InferenceServicer_to_server(
            InferenceServicer(self._hub, self._upstream), self._server
        )
        operator_pb2_grpc.add_OperatorServicer_to_server(OperatorServicer(self._hub), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, HEALTH, reflection.SERVICE_NAME), self._server
        )

    async def start(self) -> None:
        """Listen. Raises ServiceError if the address cannot be had."""
        try:
            port = self._server.add_insecure_port(self.config.listen)
        except RuntimeError:
            await self._upstream.close()
            raise ServiceError(
                f"cannot listen on {self.config.listen}: is another service running there? "
                "Choose an address with --listen"
            ) from None
        self.address = f"{self.config.listen.rpartition(':')[0]}:{port}"
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", address=self.address, policy=self.config.policy)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, end the worker links, and wait `grace_s` for answers under way.

        May be called again, with a shorter grace, while it waits.
        """
        await self._health.enter_graceful_shutdown()
        self._hub.close("the service is stopping")
        await self._server.stop(grace_s)
        await self._upstream.close()

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(0.0)


async def serve(config: ServiceConfig) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once."""
    service = Service(config)
    signalled = asyncio.Queue[signal.Signals]()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.put_nowait, number)
    await service.start()
    first = await signalled.get()
    log.info("stopping", signal=first.name, grace_s=config.grace_s)
    graceful = asyncio.create_task(service.stop(config.grace_s))
    second = asyncio.create_task(signalled.get())
    await asyncio.wait((graceful, second), return_when=asyncio.FIRST_COMPLETED)
    if not graceful.done():
        log.info("stopping at once", signal=second.result().name)
        await service.stop(0.0)
    second.cancel()
    await graceful
    log.info("stopped")

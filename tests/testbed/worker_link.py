"""A worker link that is served by itself, in place of `laps serve`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc

from laps.v1 import worker_pb2_grpc


@contextmanager
def serving(servicer: worker_pb2_grpc.WorkerLinkServicer) -> Iterator[str]:
    """Serve on a free port, up to four workers at once; yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    worker_pb2_grpc.add_WorkerLinkServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)

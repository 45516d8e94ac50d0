"""A worker-link server without any policy: it answers every report with a random order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from laps.v1 import worker_pb2, worker_pb2_grpc
from testbed.worker_link import serving

PLAN_TTL_S = 60.0
"""So long that the worker never decides for itself, however busy this process is."""


class FakeRandomService(worker_pb2_grpc.WorkerLinkServicer):
    """Pauses and resumes requests at random, by ranking them anew at every step."""

    def __init__(self, seed: int, drafts: set[int]) -> None:
        self._rng = random.Random(seed)
        self._drafts = drafts

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[worker_pb2.ServiceMessage]:  # noqa: N802
        live: set[int] = set()
        newest = 0
        for seq, message in enumerate(request_iterator, start=1):
            if message.WhichOneof("body") == "hello":
                welcome = worker_pb2.Welcome(plan_ttl_s=PLAN_TTL_S, protocol=1)
                yield worker_pb2.ServiceMessage(welcome=welcome)
                arrived, step = message.hello.requests, message.hello.step
            else:
                arrived, step = message.report.arrived, message.report.step
                live -= {*message.report.finished, *message.report.aborted}
                if message.report.decoded:
                    self._drafts.add(message.report.drafts)
            live |= {request.handle for request in arrived}
            newest = max([newest, *(request.handle for request in arrived)])
            # A request may come and go within one report.
            live -= {*message.report.finished, *message.report.aborted}
            order = self._rng.sample(sorted(live), len(live))
            yield worker_pb2.ServiceMessage(
                plan=worker_pb2.Plan(seq=seq, step=step, order=order, horizon=newest)
            )


@contextmanager
def fake_random_service(seed: int = 0, drafts: set[int] | None = None) -> Iterator[str]:
    """Serve one on a free port; yields its address.

    `drafts` is filled with the draft lengths of the rounds that are reported.
    """
    with serving(FakeRandomService(seed, set() if drafts is None else drafts)) as address:
        yield address

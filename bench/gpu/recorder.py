"""A scheduling service that writes down all it hears: the source of the replay traces.

It is the worker link of the contract around the production engine under `fcfs`, so a worker that is
recorded runs as stock SGLang does, and what it reports is what every policy would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from laps import wire
from laps.engine.engine import Engine
from laps.engine.types import Handle, PolicySpec, StepReport
from laps.v1 import worker_pb2, worker_pb2_grpc

PLAN_TTL_S = 5.0


@dataclass
class Recorded:
    """One request: numbers only, no text."""

    rid: str
    prompt_tokens: int
    accepted: list[int] = field(default_factory=list)
    """Accepted drafts of each verify round, bonus token not counted."""


@dataclass(frozen=True)
class Step:
    """What one report says of the worker's time."""

    time_s: float
    """On the worker's clock."""
    running: int
    """Requests in its verify round; 0: it had none."""
    prefilled: int
    """Requests whose prefill it ended."""
    prefill_tokens: int
    """Prompt tokens of those, cached ones included."""
    round_s: float
    """Time since the round before, if nothing came between; else 0."""


class Recorder(worker_pb2_grpc.WorkerLinkServicer):
    """Serves one worker, and keeps what it reports."""

    def __init__(self) -> None:
        self.requests: dict[Handle, Recorded] = {}
        self.steps: list[Step] = []
        self.drafts = 0
        """Draft tokens offered to a request in a round."""

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[worker_pb2.ServiceMessage]:  # noqa: N802
        engine: Engine | None = None
        for message in request_iterator:
            if message.WhichOneof("body") == "hello":
                engine = Engine(wire.snapshot_from_proto(message.hello), PolicySpec("fcfs"))
                welcome = worker_pb2.Welcome(plan_ttl_s=PLAN_TTL_S, protocol=wire.PROTOCOL)
                yield worker_pb2.ServiceMessage(welcome=welcome)
            elif engine is not None:
                report = wire.report_from_proto(message.report)
                engine.observe(report)
                self._write_down(report)
            if engine is not None:
                yield worker_pb2.ServiceMessage(plan=wire.plan_to_proto(engine.plan()))

    def _write_down(self, report: StepReport) -> None:
        for arrival in report.arrived:
            self.requests[arrival.handle] = Recorded(arrival.rid, arrival.prompt_tokens)
        prefilled = [self.requests[h] for h in report.prefilled if h in self.requests]
        for handle, committed in zip(report.decoded, report.committed, strict=True):
            if handle in self.requests:
                self.requests[handle].accepted.append(committed - 1)
        self.drafts = max(self.drafts, report.drafts)
        self.steps.append(
            Step(
                time_s=report.time_s,
                running=len(report.decoded),
                prefilled=len(prefilled),
                prefill_tokens=sum(request.prompt_tokens for request in prefilled),
                round_s=report.round_s,
            )
        )

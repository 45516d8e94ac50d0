"""The worker's end of the worker link (proto/laps/v1/worker.proto), in the planner process."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

import grpc

from laps import wire
from laps.engine.types import Plan, PolicySpec, Snapshot, StepReport
from laps.policies.base import PolicyError
from laps.policies.registry import build_policy
from laps.v1 import worker_pb2, worker_pb2_grpc

logger = logging.getLogger(__name__)

RECONNECT_S = (0.1, 2.0)
"""First and longest pause between two attempts to reach the service."""
MAX_UNSENT = 1000
"""Reports that may pile up before the stream is given up: a resync is cheaper than catching up."""

_CHANNEL_OPTIONS = (
    # A proxy for the web is not one for the service next door.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A snapshot of very many requests is larger than the default of 4 MiB.
    ("grpc.max_send_message_length", -1),
)


@dataclass(slots=True)
class _Stream:
    """One Attach call; a new one begins with a new snapshot."""

    outbox: SimpleQueue[Snapshot | StepReport | None]
    unanswered: deque[tuple[int, float]]
    """(step, when it was sent) of reports that no plan has covered yet."""
    wants_hello: bool = True
    newest: Plan | None = None
    sent_step: int = 0


class ServiceLink:
    """Keeps one stream to the service, and the newest plan that came over it.

    All methods belong to one thread, or to threads that take turns. In the link's own thread it
    calls `changed` whenever `wants_hello`, `plan` or `policy` may have changed.
    """

    def __init__(
        self, endpoint: str, identity: wire.WorkerIdentity, changed: Callable[[], None]
    ) -> None:
        self.endpoint = endpoint
        self.policy: PolicySpec | None = None
        """The service's policy, for the engine that takes over when it is away."""
        self._identity = identity
        self._changed = changed
        self._ttl_s = 0.0
        self._stream: _Stream | None = None
        self._call: grpc.Call | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="laps-link", daemon=True)
        self._thread.start()

    @property
    def wants_hello(self) -> bool:
        """Whether the service was reached and waits for a snapshot (`attach`)."""
        stream = self._stream
        return stream is not None and stream.wants_hello

    def attach(self, snapshot: Snapshot) -> None:
        """Open the exchange on the present stream with everything that the worker holds."""
        stream = self._stream
        if stream is not None:
            stream.wants_hello = False
            self._put(stream, snapshot, snapshot.step)

    def send(self, report: StepReport) -> None:
        """Hand `report` over. Dropped while there is no stream: the next snapshot will tell."""
        stream = self._stream
        if stream is not None and not stream.wants_hello:
            self._put(stream, report, report.step)
            if stream.outbox.qsize() > MAX_UNSENT and self._call is not None:
                logger.warning("laps: the service does not keep up: giving up the stream")
                self._call.cancel()

    def _put(self, stream: _Stream, message: Snapshot | StepReport, step: int) -> None:
        stream.sent_step = step
        stream.unanswered.append((step, time.monotonic()))
        stream.outbox.put(message)

    def plan(self) -> Plan | None:
        """Return the service's newest plan; None if it has none, or if it has fallen silent."""
        stream = self._stream
        plan = stream.newest if stream is not None else None
        if stream is None or plan is None:
            return None
        unanswered = stream.unanswered
        while unanswered and unanswered[0][0] <= plan.step:
            unanswered.popleft()
        if unanswered and time.monotonic() - unanswered[0][1] > self._ttl_s:
            return None
        return plan

    def close(self) -> None:
        """Close the stream and wait for the link's thread."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join(timeout=5)

    # --- link's thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s, missing = RECONNECT_S[0], False
        while not self._closed.wait(pause_s):
            with grpc.insecure_channel(self.endpoint, options=_CHANNEL_OPTIONS) as channel:
                try:
                    grpc.channel_ready_future(channel).result(timeout=RECONNECT_S[1])
                except grpc.FutureTimeoutError:
                    if not missing:
                        logger.warning("laps: no service at %s: trying on", self.endpoint)
                    missing = True
                    continue
                missing = False
                welcomed = self._exchange(channel)
            pause_s = RECONNECT_S[0] if welcomed else min(2 * pause_s, RECONNECT_S[1])

    def _exchange(self, channel: grpc.Channel) -> bool:
        """Serve one stream until it ends; return whether the service took us."""
        stream = _Stream(SimpleQueue(), deque())
        welcomed = False
        self._call = call = worker_pb2_grpc.WorkerLinkStub(channel).Attach(self._outgoing(stream))
        self._stream = stream
        self._changed()
        try:
            for message in call:
                body = message.WhichOneof("body")
                if body == "welcome":
                    self._greet(message.welcome)
                    if not welcomed:
                        logger.info("laps: attached to the service at %s", self.endpoint)
                    welcomed = True
                elif body == "plan":
                    self._take(stream, message.plan)
                self._changed()
        except grpc.RpcError as error:
            if not self._closed.is_set():
                logger.warning("laps: lost the service at %s: %s", self.endpoint, _reason(error))
        except wire.WireError as error:
            logger.error("laps: the service at %s talks nonsense: %s", self.endpoint, error)
        finally:
            self._stream = None
            stream.outbox.put(None)
            call.cancel()
            self._changed()
        return welcomed

    def _greet(self, welcome: worker_pb2.Welcome) -> None:
        if welcome.protocol != wire.PROTOCOL:
            raise wire.WireError(
                f"it speaks version {welcome.protocol} of the contract, this worker {wire.PROTOCOL}"
            )
        self._ttl_s = welcome.plan_ttl_s
        policy = wire.policy_from_proto(welcome.policy)
        try:
            build_policy(policy)
        except PolicyError as error:
            # Its plans are as good as any; only the engine that stands in for it cannot follow.
            logger.warning("laps: the service has a policy that this worker lacks: %s", error)
        else:
            self.policy = policy

    def _take(self, stream: _Stream, message: worker_pb2.Plan) -> None:
        plan = wire.plan_from_proto(message, stream.newest or Plan())
        if plan.step > stream.sent_step:
            raise wire.WireError(
                f"a plan for step {plan.step}, but the newest step sent is {stream.sent_step}"
            )
        if len(set(plan.order)) < len(plan.order):
            raise wire.WireError(f"plan {plan.seq} names a request twice")
        stream.newest = plan

    def _outgoing(self, stream: _Stream) -> Iterator[worker_pb2.WorkerMessage]:
        while (message := stream.outbox.get()) is not None:
            if isinstance(message, Snapshot):
                hello = wire.hello_to_proto(self._identity, message)
                yield worker_pb2.WorkerMessage(hello=hello)
            else:
                yield worker_pb2.WorkerMessage(report=wire.report_to_proto(message))


def _reason(error: grpc.RpcError) -> str:
    """Return the status and text of a failed call."""
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)

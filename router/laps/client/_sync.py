"""The synchronous client: method for method the asynchronous one, on a channel of its own kind."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

import grpc

from laps.client import _convert
from laps.client._channel import DEFAULT_ENDPOINT, OPTIONS
from laps.client._errors import error_of
from laps.client._types import (
    Answer,
    Event,
    Explanation,
    Message,
    Queue,
    RequestStatus,
    Sampling,
    WorkerStatus,
)
from laps.engine.types import Hints, PolicySpec
from laps.v1 import client_pb2, client_pb2_grpc, operator_pb2, operator_pb2_grpc

Q = TypeVar("Q")
A = TypeVar("A")


class SyncLapsClient:
    """A connection to a scheduling service; threads may share it.

    `timeout_s` bounds every call but generation, which may take as long as it takes. Every method
    raises a `LapsError`.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, *, timeout_s: float = 10.0) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(endpoint, options=OPTIONS)
        self._inference = client_pb2_grpc.InferenceStub(self._channel)
        self._operator = operator_pb2_grpc.OperatorStub(self._channel)

    def __enter__(self) -> SyncLapsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def generate(
        self,
        prompt: str | Sequence[Message],
        *,
        sampling: Sampling | None = None,
        hints: Hints | None = None,
        rid: str = "",
        worker_id: str = "",
    ) -> Generator[Event, None, None]:
        """Yield Started, a Delta for each piece of text, and Completed.

        A string is a plain prompt; messages go through the model's chat template. Without `rid` the
        service makes one, without `worker_id` it chooses. Closing the iterator aborts the request.
        """
        call = self._inference.Generate(
            _convert.generate_request(prompt, sampling, hints, rid, worker_id)
        )
        try:
            for message in call:
                yield _convert.event(message)
        except grpc.RpcError as error:
            raise error_of(error, self.endpoint) from None
        finally:
            call.cancel()

    def generate_text(
        self,
        prompt: str | Sequence[Message],
        *,
        sampling: Sampling | None = None,
        hints: Hints | None = None,
        rid: str = "",
        worker_id: str = "",
    ) -> Answer:
        """Return the whole answer; arguments as for `generate`."""
        events = self.generate(prompt, sampling=sampling, hints=hints, rid=rid, worker_id=worker_id)
        return _convert.answer(events)

    def cancel(self, rid: str) -> str:
        """Abort a request wherever it is; return the id of the worker that holds it."""
        request = client_pb2.CancelRequest(rid=rid)
        return (self._ask(self._inference.Cancel, request)).worker_id

    def get_request(self, rid: str) -> RequestStatus:
        """Return a request, live or lately departed."""
        request = client_pb2.GetRequestRequest(rid=rid)
        return _convert.request_status(self._ask(self._inference.GetRequest, request))

    def list_workers(self) -> list[WorkerStatus]:
        """Return the workers by id, also those that detached lately."""
        request = operator_pb2.ListWorkersRequest()
        listing = self._ask(self._operator.ListWorkers, request)
        return [_convert.worker_status(worker) for worker in listing.workers]

    def list_queues(self, worker_id: str = "") -> list[Queue]:
        """Return the queues of one worker, or of all attached ones."""
        request = operator_pb2.ListQueuesRequest(worker_id=worker_id)
        listing = self._ask(self._operator.ListQueues, request)
        return [_convert.queue(queue) for queue in listing.queues]

    def list_requests(
        self, worker_id: str = "", *, include_departed: bool = False
    ) -> list[RequestStatus]:
        """Return the requests of one worker, or of all attached ones, best first."""
        request = operator_pb2.ListRequestsRequest(
            worker_id=worker_id, include_departed=include_departed
        )
        listing = self._ask(self._operator.ListRequests, request)
        return [_convert.request_status(status) for status in listing.requests]

    def explain(self, rid: str) -> Explanation:
        """Return why a request runs, or what it waits for."""
        request = operator_pb2.ExplainRequest(rid=rid)
        return _convert.explanation(self._ask(self._operator.Explain, request))

    def set_policy(self, spec: PolicySpec) -> None:
        """Order all workers by another policy, from the next plan on."""
        self._ask(self._operator.SetPolicy, _convert.set_policy_request(spec))

    def _ask(self, method: grpc.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, self.endpoint) from None

"""What can go wrong with a call, and what to do about it."""

from __future__ import annotations

from typing import Any, Protocol

import grpc


class LapsError(Exception):
    """A call to the scheduling service failed. All errors of this package derive from it."""


class ServiceUnreachableError(LapsError):
    """No service answers at the endpoint, or it went away before the answer was complete."""


class WorkerUnavailableError(LapsError):
    """The service is well, but the worker that is needed is not attached or does not answer."""


class WorkerBusyError(LapsError):
    """The worker takes no more requests for now; try again later."""


class NotFoundError(LapsError):
    """No worker holds such a request, or there is no such worker."""


class InvalidRequestError(LapsError):
    """The request cannot be served as it is; the message says what is wrong with it."""


class _FailedCall(Protocol):
    """What the errors of synchronous and asynchronous calls have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Any: ...


_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: WorkerBusyError,
}


def error_of(failed: _FailedCall, endpoint: str) -> LapsError:
    """Return the error that a failed call to the service at `endpoint` means."""
    code, details = failed.code(), failed.details() or ""
    if ("laps-error", "worker") in tuple(failed.trailing_metadata() or ()):
        return WorkerUnavailableError(details)
    if code in _GONE:
        return ServiceUnreachableError(f"no service at {endpoint}: start one with `laps serve`")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServiceUnreachableError(f"the service at {endpoint} did not answer in time")
    if code in _BY_CODE:
        return _BY_CODE[code](details)
    return LapsError(f"{code.name}: {details}")

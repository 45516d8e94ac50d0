"""How a call ends in an error that tells the client what went wrong."""

from __future__ import annotations

from typing import NoReturn

import grpc

WORKER_ERROR = (("laps-error", "worker"),)
"""Trailing metadata of UNAVAILABLE where a worker is missing: the service itself is well."""


async def refuse(
    context: grpc.aio.ServicerContext[object, object], code: grpc.StatusCode, message: str
) -> NoReturn:
    """End the call with `code` and `message`."""
    trailing = WORKER_ERROR if code is grpc.StatusCode.UNAVAILABLE else ()
    await context.abort(code, message, trailing)
    raise AssertionError("unreachable: abort raises")

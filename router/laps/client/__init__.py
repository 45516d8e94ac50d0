"""Python client of the scheduling service.

    with SyncLapsClient() as client:
        print(client.generate_text([Message("user", "Why is the sky blue?")]).text)
        for request in client.list_requests():
            print(request.rid, request.phase.name, request.remaining_s)

`LapsClient` is the same for asyncio. What they return are the frozen dataclasses below.
"""

from __future__ import annotations

from laps.client._async import LapsClient
from laps.client._channel import DEFAULT_ENDPOINT
from laps.client._errors import (
    InvalidRequestError,
    LapsError,
    NotFoundError,
    ServiceUnreachableError,
    WorkerBusyError,
    WorkerUnavailableError,
)
from laps.client._sync import SyncLapsClient
from laps.client._types import (
    Answer,
    Completed,
    Delta,
    Event,
    Explanation,
    KeyPart,
    Message,
    Queue,
    RequestStatus,
    Sampling,
    Started,
    WorkerStatus,
)
from laps.engine.types import Hints, Phase, PolicySpec

__all__ = [
    "DEFAULT_ENDPOINT",
    "Answer",
    "Completed",
    "Delta",
    "Event",
    "Explanation",
    "Hints",
    "InvalidRequestError",
    "KeyPart",
    "LapsClient",
    "LapsError",
    "Message",
    "NotFoundError",
    "Phase",
    "PolicySpec",
    "Queue",
    "RequestStatus",
    "Sampling",
    "ServiceUnreachableError",
    "Started",
    "SyncLapsClient",
    "WorkerBusyError",
    "WorkerStatus",
    "WorkerUnavailableError",
]

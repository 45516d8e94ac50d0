"""Requests and engines that tests begin with."""

from __future__ import annotations

from typing import Any

from laps.engine.engine import Engine
from laps.engine.types import (
    Arrival,
    Capacity,
    Hints,
    Phase,
    PolicySpec,
    Progress,
    Snapshot,
    StepReport,
)

EMPTY = Snapshot(step=0, time_s=100.0, capacity=Capacity(max_running=2, max_resident=4))


def arrival(handle: int, **changes: object) -> Arrival:
    known = {"rid": f"r{handle}", "arrival_s": 100.0, "prompt_tokens": 7, "max_new_tokens": 64}
    return Arrival(handle=handle, **(known | changes))  # type: ignore[arg-type]


def engine_with(*handles: int, policy: str = "laps-sd") -> Engine:
    """Return an engine whose requests have had their prefill and one round of 2 tokens."""
    engine = Engine(EMPTY, PolicySpec(policy))
    engine.observe(
        StepReport(
            step=1,
            time_s=101.0,
            arrived=tuple(map(arrival, handles)),
            prefilled=handles,
            decoded=handles,
            committed=(2,) * len(handles),
            drafts=3,
            round_s=0.05,
        )
    )
    return engine


Parameters = dict[str, float | int | str | bool]

EVEN = 3
"""Accept length of every round in these examples, so that acceptance is stable at min_rounds."""


def request(handle: int, rounds: int, predicted: int = 0, arrival_s: float = 0.0) -> Arrival:
    """Return a request with `rounds` rounds of EVEN tokens each and its first token."""
    accepted = EVEN - 1
    return Arrival(
        handle=handle,
        rid=f"r{handle}",
        arrival_s=arrival_s,
        prompt_tokens=10,
        max_new_tokens=10_000,
        hints=Hints(predicted_tokens=predicted),
        phase=Phase.PAUSED if rounds else Phase.WAITING,
        progress=Progress(
            output_tokens=1 + EVEN * rounds if rounds else 0,
            rounds=rounds,
            proposed=4 * rounds,
            accepted=accepted * rounds,
            accepted_sq=accepted * accepted * rounds,
        ),
    )


def planned(
    *requests: Arrival, name: Any = "laps-sd", **parameters: float | int | str | bool
) -> list[int]:
    snapshot = Snapshot(step=1, time_s=10.0, capacity=Capacity(2, 20), requests=requests)
    return list(Engine(snapshot, PolicySpec(name, parameters)).plan().order)


# Perceived from 8 rounds on; an unperceived one counts its rounds in whole quanta of 4.
#   handle  rounds  predicted  output  what it is                      key on one scale
#   1       0       -          0       unperceived                     0
#   2       3       -          10      unperceived, first quantum      0
#   3       4       -          13      unperceived, second quantum     4
#   4       7       -          22      unperceived, second quantum     4
#   5       8       31         25      perceived, 6 tokens left        2
#   6       8       85         25      perceived, 60 tokens left       20
#   7       40      136        121     perceived, 15 tokens left       5
#   8       40      421        121     perceived, 300 tokens left      100
EXAMPLE = (
    request(1, 0, arrival_s=5.0),
    request(2, 3, arrival_s=4.0),
    request(3, 4, arrival_s=3.0),
    request(4, 7, arrival_s=2.0),
    request(5, 8, predicted=31),
    request(6, 8, predicted=85),
    request(7, 40, predicted=136),
    request(8, 40, predicted=421),
)

"""`laps` for a comparison: with an oracle, and blind to what the load tells of lengths.

    python -m gpu.service serve --listen 127.0.0.1:50070

The oracle is one policy more, which knows how many rounds every request takes from a first pass:
its parameter `rounds` is the path of a `Pool`, and a request whose id ends in -P is of prompt P.

The load gives every request its own length as `max_tokens`, so that all policies do the same work.
No client knows that; so here every request is one that may get `gpu.workload.MAX_TOKENS`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, cast

from gpu.names import ORACLE
from gpu.workload import MAX_TOKENS
from laps import wire
from laps.cli.main import app
from laps.engine.table import Request
from laps.engine.types import Arrival
from laps.policies.base import OneQueue, PolicyError
from laps.policies.registry import POLICIES, Kind
from laps.v1 import worker_pb2


@dataclass(frozen=True)
class ReplayedOracle(OneQueue):
    """Fewest rounds left first, as `sim.oracle`; requests that are not of the pool go last."""

    rounds: str = ""
    """Path of the pool."""

    name: ClassVar[str] = ORACLE
    queues: ClassVar[tuple[str, ...]] = ("rounds left",)
    key_parts: ClassVar[tuple[str, ...]] = ("rounds left", "arrival_s", "handle")
    rule: ClassVar[str] = "fewest rounds left first"

    def __post_init__(self) -> None:
        try:
            _rounds_of(self.rounds)
        except (OSError, ValueError, KeyError) as error:
            raise PolicyError(f"policy 'oracle' needs the path of a pool: {error!r}") from error

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by rounds left."""
        # 1. Fewer rounds left.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        return (self._rounds(request.rid) - request.rounds, request.arrival_s, request.handle)

    def _rounds(self, rid: str) -> float:
        rounds, number = _rounds_of(self.rounds), rid.rpartition("-")[2]
        known = number.isdecimal() and int(number) < len(rounds)
        return rounds[int(number)] if known else float("inf")


_arrival_from_proto = wire.arrival_from_proto


@cache
def _rounds_of(path: str) -> tuple[int, ...]:
    return tuple(json.loads(Path(path).read_text())["rounds"])


def _of_unknown_length(message: worker_pb2.Request) -> Arrival:
    return replace(_arrival_from_proto(message), max_new_tokens=MAX_TOKENS)


def main() -> None:
    wire.arrival_from_proto = _of_unknown_length
    POLICIES[ReplayedOracle.name] = cast(Kind, ReplayedOracle)
    app()


if __name__ == "__main__":
    main()

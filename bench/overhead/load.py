"""A worker that keeps an engine under a steady load: as one request finishes, another arrives.

It has no model and takes no time: what a round brings is drawn at random, and every round is said
to have taken `ROUND_S`. It follows the engine's plans as a worker does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from laps.engine.types import Arrival, Capacity, Handle, Plan, Snapshot, StepReport

ROUND_S = 0.01
DRAFTS = 3
MAX_NEW_TOKENS = 1024
PAUSED = 16
"""Requests that may be paused in place, for lack of memory for more."""


@dataclass(slots=True)
class _Work:
    left: int
    """Tokens still to come."""
    acceptance: float
    """Probability that a draft is accepted."""


class SteadyWorker:
    """Keeps `requests` live and runs `running` of them at a time."""

    def __init__(self, requests: int, running: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._running = running
        self._capacity = Capacity(max_running=running, max_resident=running + PAUSED)
        self._works: dict[Handle, _Work] = {}
        """Requests that have run."""
        self._resident: set[Handle] = set()
        self._step = 0
        self._newest = requests

    def snapshot(self) -> Snapshot:
        """Return the load to begin with: requests that came in over the last minute."""
        newest = self._newest
        requests = tuple(self._arrival(h, (h / newest - 1.0) * 60.0) for h in range(1, newest + 1))
        return Snapshot(step=0, time_s=0.0, capacity=self._capacity, requests=requests)

    def run(self, plan: Plan) -> StepReport:
        """Do one verify round by `plan` and report it."""
        self._step += 1
        now_s = self._step * ROUND_S
        decoded = plan.order[: self._running]
        prefilled = tuple(handle for handle in decoded if handle not in self._resident)
        self._resident.update(prefilled)
        requeued = tuple(self._demoted(plan, decoded))
        self._resident.difference_update(requeued)
        committed = tuple(map(self._accept_length, decoded))
        finished = tuple(handle for handle in decoded if self._works[handle].left <= 0)
        arrived = tuple(self._arrival(self._newest + 1 + i, now_s) for i in range(len(finished)))
        self._newest += len(finished)
        for handle in finished:
            self._resident.remove(handle)
            del self._works[handle]
        return StepReport(
            step=self._step,
            time_s=now_s,
            arrived=arrived,
            prefilled=prefilled,
            decoded=decoded,
            committed=committed,
            drafts=DRAFTS,
            round_s=ROUND_S,
            requeued=requeued,
            finished=finished,
            plan_seq=plan.seq,
        )

    def _arrival(self, handle: Handle, arrival_s: float) -> Arrival:
        # As a server names them: 32 hexadecimal digits, which are most of what a request takes.
        return Arrival(handle, f"{handle:032x}", arrival_s, 500, MAX_NEW_TOKENS)

    def _demoted(self, plan: Plan, decoded: tuple[Handle, ...]) -> Iterator[Handle]:
        """Yield the residents for which there is no memory: those that the plan wants least."""
        too_many = len(self._resident) - self._capacity.max_resident
        if too_many > 0:
            position = {handle: index for index, handle in enumerate(plan.order)}
            last = len(position)
            paused = self._resident.difference(decoded)
            yield from sorted(paused, key=lambda h: (-position.get(h, last), -h))[:too_many]

    def _accept_length(self, handle: Handle) -> int:
        """Draw what a request commits in a round, and in its first one what it is like."""
        draw = self._random
        work = self._works.get(handle)
        if work is None:
            # Like the outputs of a public trace of chats: median 130, mean 210, at most 1000.
            length = min(max(int(draw.lognormvariate(4.87, 1.0)), 4), 1000)
            acceptance = min(max(draw.gauss(0.5, 0.25), 0.02), 0.97)
            work = self._works[handle] = _Work(length, acceptance)
        accept_length = 1
        while accept_length <= DRAFTS and draw.random() < work.acceptance:
            accept_length += 1
        work.left -= accept_length
        return accept_length

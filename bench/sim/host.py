"""Runs a workload on simulated workers: the loop over arrivals and ends of iterations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from time import perf_counter, process_time
from typing import Literal

import numpy as np

from laps.engine.engine import Engine
from laps.engine.types import Arrival, Handle, Hints, PolicySpec
from laps.policies.base import Policy
from sim.physics import STEADY, Pace, Physics
from sim.request import SimRequest
from sim.worker import SimWorker
from sim.workload import Floats, Workload

Dispatch = Literal["round-robin", "fewest"]
"""To which worker a request goes: in turn, or to the one with the fewest unfinished requests."""


@dataclass(frozen=True)
class Run:
    """What became of a workload."""

    latency_s: Floats
    """From a request's arrival to the end of the iteration that brings its last token."""
    busy_s: float
    """Time in prefills and rounds, all workers together."""
    live_s: float
    """Integral over time of the number of requests that workers have, in request-seconds."""
    end_s: float
    """When the last request finished."""
    rounds: int
    iterations: int
    preemptions: int
    demotions: int
    kv_peak_tokens: int
    """The most KV cache that one worker held, paused requests included."""
    wall_s: float
    """What the simulation itself took, and of it what it had the processor."""
    cpu_s: float


def run(
    workload: Workload,
    physics: Physics,
    policy: PolicySpec | Policy,
    workers: int = 1,
    dispatch: Dispatch = "fewest",
    progress: Callable[[int], None] | None = None,
    pace: Pace = STEADY,
) -> Run:
    """Run `workload` to its end. `progress` is told of requests as they are sent, in portions."""
    begun_s, cpu_s = perf_counter(), process_time()
    finish_s = [math.nan] * len(workload)

    def on_finish(handle: Handle, now_s: float) -> None:
        finish_s[handle - 1] = now_s

    fleet = [
        SimWorker(
            physics, workload.drafts, lambda snapshot: Engine(snapshot, policy), on_finish, pace
        )
        for _ in range(workers)
    ]
    _play(workload, fleet, dispatch, progress)
    finished_s = np.array(finish_s)
    if np.isnan(finished_s).any():
        raise RuntimeError(f"{int(np.isnan(finished_s).sum())} requests never finished")
    return Run(
        latency_s=finished_s - workload.arrival_s,
        busy_s=sum(worker.busy_s for worker in fleet),
        live_s=sum(worker.live_s for worker in fleet),
        end_s=float(finished_s.max(initial=0.0)),
        rounds=sum(worker.rounds for worker in fleet),
        iterations=sum(worker.iterations for worker in fleet),
        preemptions=sum(worker.engine.stats().preemptions for worker in fleet),
        demotions=sum(worker.memory.demotions for worker in fleet),
        kv_peak_tokens=max(worker.memory.peak for worker in fleet),
        wall_s=perf_counter() - begun_s,
        cpu_s=process_time() - cpu_s,
    )


PORTION = 256
"""Requests between two calls of `progress`."""


def _play(
    workload: Workload,
    fleet: Sequence[SimWorker],
    dispatch: Dispatch,
    progress: Callable[[int], None] | None,
) -> None:
    """Take events in order of time; of those at one time, arrivals come first."""
    arrival_s: list[float] = workload.arrival_s.tolist()
    ends: list[tuple[float, int]] = []  # when the iteration of which worker ends
    sent, count = 0, len(arrival_s)
    while ends or sent < count:
        if sent < count and (not ends or arrival_s[sent] <= ends[0][0]):
            index = sent % len(fleet) if dispatch == "round-robin" else _fewest(fleet)
            worker = fleet[index]
            worker.inbox.append(request_at(workload, sent))
            if not worker.awake:
                worker.awake = True
                heappush(ends, (arrival_s[sent], index))
            sent += 1
            if progress is not None and sent % PORTION == 0:
                progress(PORTION)
            continue
        now_s, index = ends[0]
        end_s = fleet[index].advance(now_s)
        if end_s is None:
            heappop(ends)
        else:
            heapreplace(ends, (end_s, index))


def request_at(workload: Workload, index: int) -> SimRequest:
    """Return request `index` of the workload, as it arrives; its handle is `index` + 1."""
    first, last = workload.rounds.offsets[index : index + 2]
    arrival = Arrival(
        handle=index + 1,
        rid=str(index),
        arrival_s=float(workload.arrival_s[index]),
        prompt_tokens=int(workload.prompt_tokens[index]),
        max_new_tokens=workload.max_new_tokens,
        hints=Hints(
            predicted_tokens=int(workload.predicted_tokens[index]),
            tenant=workload.tenants[int(workload.tenant[index])],
        ),
    )
    return SimRequest(arrival, workload.rounds.accept_lengths[first:last].tobytes())


def _fewest(fleet: Sequence[SimWorker]) -> int:
    if len(fleet) == 1:
        return 0
    return min(range(len(fleet)), key=lambda i: (len(fleet[i].live) + len(fleet[i].inbox), i))

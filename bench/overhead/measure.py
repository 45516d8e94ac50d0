"""Time and memory of the engine's decisions under a steady load."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from laps.engine.engine import Engine
from laps.engine.types import PolicySpec
from overhead.load import ROUND_S, SteadyWorker

REPETITIONS = 3
"""Of the same load, decision by decision. A figure is of the median over these."""
WARM_UP = 2_000
"""Rounds before the first that is measured: they fill the predictor's window and the queues."""
ROUNDS = 2_000
MOST_TRACED = 100_000
"""Requests by which memory is measured: tracing a million allocations takes minutes."""


_OLDEST = 2
"""The generation of Python's collector that a full collection takes in."""


@dataclass(frozen=True)
class Case:
    """What is measured."""

    policy: str
    requests: int
    """Live requests, at all times."""
    running: int = 48


@dataclass(frozen=True)
class Figures:
    """One case's figures. A decision is `observe` of one verify round and the `plan` after it."""

    policy: str
    requests: int
    running: int
    plan_size: int
    """Requests that a plan names, at most."""
    decide_p50_ms: float
    decide_p99_ms: float
    decide_max_ms: float
    """Processor time of the deciding thread, over decisions, each the median of its repetitions.
    The engine never waits, so with a core of its own this is the time on the wall."""
    plan_p50_ms: float
    """The part of it that `plan` takes."""
    wall_p99_ms: float
    """The same decisions by the clock on the wall: what else the machine did is in here."""
    step_share: float
    """Mean decision over a step of 10 ms."""
    bytes_per_request: float
    """Of a request that waits, what the engine allocates for it, its id included."""
    full_collections: int
    """Full garbage collections that fell into the measured rounds of all repetitions."""
    full_collection_ms: float
    """What one takes with so many requests: a decision that it falls into is so much later."""
    preemptions_per_round: float
    finishes_per_round: float


def measure(case: Case) -> Figures:
    """Measure a case in this process."""
    runs: list[npt.NDArray[np.float64]] = []
    full_collections = Counter[int]()
    for _ in range(REPETITIONS):
        worker = SteadyWorker(case.requests, case.running, seed=1)
        engine = Engine(worker.snapshot(), PolicySpec(case.policy))
        _rounds(engine, worker, WARM_UP)
        before = engine.stats()
        with _counted(full_collections):
            runs.append(_rounds(engine, worker, ROUNDS))
        after = engine.stats()
        begin = time.thread_time()
        gc.collect()
        collection_s = time.thread_time() - begin
    observe_ms, plan_ms, wall_ms = 1e3 * np.median(runs, axis=0).T
    decide_ms = observe_ms + plan_ms
    return Figures(
        policy=case.policy,
        requests=case.requests,
        running=case.running,
        plan_size=engine.plan_size,
        decide_p50_ms=float(np.percentile(decide_ms, 50)),
        decide_p99_ms=float(np.percentile(decide_ms, 99)),
        decide_max_ms=float(decide_ms.max()),
        plan_p50_ms=float(np.percentile(plan_ms, 50)),
        wall_p99_ms=float(np.percentile(wall_ms, 99)),
        step_share=float(decide_ms.mean() / 1e3 / ROUND_S),
        bytes_per_request=_bytes_per_request(case),
        full_collections=full_collections[_OLDEST],
        full_collection_ms=1e3 * collection_s,
        preemptions_per_round=(after.preemptions - before.preemptions) / ROUNDS,
        finishes_per_round=(after.finished - before.finished) / ROUNDS,
    )


def _rounds(engine: Engine, worker: SteadyWorker, rounds: int) -> npt.NDArray[np.float64]:
    """Return for each round the seconds of `observe`, of `plan`, and of both on the wall."""
    thread_s, wall_s = time.thread_time, time.perf_counter
    times = np.empty((rounds, 3))
    plan = engine.plan()
    for index in range(rounds):
        report = worker.run(plan)
        begun = wall_s()
        begin = thread_s()
        engine.observe(report)
        middle = thread_s()
        plan = engine.plan()
        end = thread_s()
        times[index] = middle - begin, end - middle, wall_s() - begun
    return times


@contextmanager
def _counted(collections: Counter[int]) -> Iterator[None]:
    """Count the garbage collections inside by generation."""

    def count(phase: str, info: dict[str, int]) -> None:
        collections[info["generation"]] += phase == "start"

    gc.callbacks.append(count)
    try:
        yield
    finally:
        gc.callbacks.remove(count)


def _bytes_per_request(case: Case) -> float:
    """Return what the engine allocates for each of many waiting requests."""
    requests = min(case.requests, MOST_TRACED)
    worker = SteadyWorker(requests, case.running, seed=1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        engine = Engine(worker.snapshot(), PolicySpec(case.policy))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert engine.stats().waiting == requests
    return (after - before) / requests

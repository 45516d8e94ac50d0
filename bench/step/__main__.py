"""`make bench-step`: what the plugin adds to a step of SGLang's overlap loop.

SGLang's own scheduler (tests/engine) over a model that costs nothing and paces the loop at 10 ms a
step. Cases take turns, the unpatched scheduler among them, and each number is the median over the
turns.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

import engine.real_scheduler as real_scheduler
from engine.real_loop import HOOKS, PROBE, REMOVED, RealLoop
from engine.real_scheduler import Setup
from engine.scheduler_state import FakeDevice
from laps import wire
from laps.engine.types import PolicySpec
from laps_sglang.planner import PlannerProcess
from laps_sglang.planner import Setup as PlannerSetup
from step.cheap_model import FakeCheapModel, FakePacedEvent
from step.meter import Meter
from testbed.service import LapsService

RESULTS = Path(__file__).parents[1] / "results"
RUNNING = (1, 8, 48, 256)
PAUSED = (0, 100, 1000)
MODES = ("embedded", "remote")
STOCK = "stock"
TURNS = 3
STEPS = 300
WARM_UP = 50
STEP_S = 0.010


@dataclass(frozen=True)
class Case:
    """So many requests decode while so many are paused, under a plan from `mode` (or unpatched)."""

    running: int
    paused: int
    mode: str


@dataclass(frozen=True)
class Turn:
    """Times of one run, in microseconds, step by step."""

    added: list[float]
    quiet: list[bool]
    """Whether the step moved no request and got no new plan."""
    fresh: list[bool]
    """Whether the step ran on the plan made from the newest report that was there when the step
    before it was decided. A later one is handed over as the step is decided: the overlap loop
    decides on a step at once when it has the result of the last but one."""
    busy: list[float]
    """All that the scheduler's thread did in the step: the step less the wait for the model."""
    planner: float
    """CPU time of the planner process a step."""
    hooks: dict[str, float]
    """Mean time a step by hook."""


def measure(case: Case, endpoint: str) -> Turn:
    """Run one case once; `endpoint` is the service's."""
    total = case.running + case.paused
    setup = Setup(
        slots=total,
        kv_tokens=total * 64 + case.running * (STEPS + WARM_UP) * 8 + 4096,
        chunk=1 << 16,
        context=4096,
    )
    loop, meter = RealLoop(setup), Meter()
    worker = loop.worker
    FakePacedEvent.step_s = 0.0
    quiet: list[bool] = []
    fresh: list[bool] = []
    busy: list[float] = []
    sent = [0]
    lengths = random.Random(total)
    planner: PlannerProcess | None = None
    ready = 0
    cpu_s = 0.0
    moves: dict[str, int] = {}
    last = time.perf_counter()

    def script(iteration: int) -> bool:
        """At the start of every step: account for the one before."""
        nonlocal planner, ready, cpu_s, moves, last
        meter.next_step()
        busy.append((time.perf_counter() - last - FakePacedEvent.waited()) * 1e6)
        quiet.append(worker.counters == moves)
        moves = dict(worker.counters)
        fresh.append(planner is None or planner.step >= sent[-2 if sent[1:] else -1])
        sent.append(worker.ledger.step)
        if iteration == 1:
            for number in range(total):
                hints = {"laps": {"predicted_tokens": lengths.randint(100, 3000)}}
                loop.submit(f"r{number}", range(number % 7, 12), 3000, custom_params=hints)
        resident = len(worker.paused) + len(loop.scheduler.running_batch.reqs)
        if not ready and resident == total:
            # All are resident: from now on most pause.
            ready, FakePacedEvent.step_s = iteration, STEP_S
            if case.mode != STOCK:
                worker.capacity = replace(worker.capacity, max_running=case.running)
                planner = planner_for(loop, case, endpoint)
                loop.plan_with(planner)
        if planner is not None and iteration == ready + WARM_UP:
            cpu_s = cpu_time_s(planner.pid)
        last = time.perf_counter()
        return bool(ready) and iteration >= ready + WARM_UP + STEPS

    PROBE.append(meter.probe)
    if case.mode == STOCK:
        REMOVED.update(target for target, _, _ in HOOKS.table())
    try:
        loop.expect_answers(0.0)
        loop.run(script, limit=20_000)
        cpu_s = cpu_time_s(planner.pid) - cpu_s if planner is not None else 0.0
    finally:
        PROBE.pop()
        REMOVED.clear()
        if planner is not None:
            planner.close()
        loop.close()
    steps = slice(len(meter.steps) - STEPS, None)
    added = [sum(step.values()) * 1e6 for step in meter.steps[steps]]
    hooks = {
        name: statistics.mean(step.get(name, 0.0) for step in meter.steps[steps]) * 1e6
        for name in sorted({name for step in meter.steps[steps] for name in step})
    }
    return Turn(added, quiet[steps], fresh[steps], busy[steps], cpu_s / STEPS * 1e6, hooks)


def cpu_time_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def planner_for(loop: RealLoop, case: Case, endpoint: str) -> PlannerProcess:
    """Return a planner that is up and has planned."""
    setup = PlannerSetup(
        wire.WorkerIdentity("bench/dp0", time.time_ns()),
        PolicySpec("laps-sd"),
        endpoint if case.mode == "remote" else None,
    )
    planner = PlannerProcess(setup, loop.worker.snapshot)
    decider = "service" if case.mode == "remote" else "embedded engine"
    while not planner.newest().order or planner.describe()["decided_by"] != decider:
        planner.submit(None)
        time.sleep(0.01)
    return planner


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(case: Case, turns: list[Turn], stock: list[Turn]) -> dict[str, Any]:
    """Return the medians over the turns of one case; `stock` are those of the unpatched loop."""

    def median(values: Iterable[float]) -> float:
        return round(statistics.median(values), 1)

    calm = [[a for a, q in zip(t.added, t.quiet, strict=True) if q] for t in turns]
    return {
        "running": case.running,
        "paused": case.paused,
        "mode": case.mode,
        "added_p50_us": median(percentile(turn.added, 0.50) for turn in turns),
        "added_p99_us": median(percentile(turn.added, 0.99) for turn in turns),
        "unchanged_p50_us": median(map(statistics.median, filter(None, calm)))
        if any(calm)
        else None,
        "busy_p50_us": median(percentile(turn.busy, 0.50) for turn in turns),
        "stock_busy_p50_us": median(percentile(turn.busy, 0.50) for turn in stock),
        "planner_cpu_us": median(turn.planner for turn in turns),
        "fresh_share": round(statistics.mean(f for turn in turns for f in turn.fresh), 5),
    }


def main() -> None:
    argparse.ArgumentParser(prog="step", description=__doc__).parse_args()
    cases = [Case(*values) for values in itertools.product(RUNNING, PAUSED, MODES)]
    stock = [Case(running, 0, STOCK) for running in RUNNING]
    turns: dict[Case, list[Turn]] = {case: [] for case in (*stock, *cases)}
    setattr(FakeDevice, "Event", FakePacedEvent)  # noqa: B010 - a fake takes a fake's place
    setattr(real_scheduler, "FakeModel", FakeCheapModel)  # noqa: B010 - no export of its own
    rows = []
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(
            LapsService("--plan-ttl-s", "60", log_path=logs / "service.log")
        )
        for turn, case in itertools.product(range(TURNS), turns):
            turns[case].append(measure(case, service.address))
            if turn == TURNS - 1 and case.mode != STOCK:
                row = summary(case, turns[case], turns[Case(case.running, 0, STOCK)])
                print(json.dumps(row), flush=True)
                rows.append(row)
    (RESULTS / "step.json").write_text(json.dumps(rows, indent=1) + "\n")
    raw = [
        {
            **vars(case),
            "turns": [
                {
                    "added_us": [round(value) for value in turn.added],
                    "busy_us": [round(value) for value in turn.busy],
                    "hooks_us": {name: round(value, 1) for name, value in turn.hooks.items()},
                }
                for turn in turns[case]
            ],
        }
        for case in turns
    ]
    with gzip.open(RESULTS / "step-raw.json.gz", "wt") as file:
        json.dump(raw, file)


if __name__ == "__main__":
    main()

"""`make bench-step`: what the plugin adds to a step of SGLang's overlap loop.

SGLang's own scheduler (tests/engine) over a model that costs nothing and paces the loop at 10 ms a
step. Cases take turns, and each number is the median over the turns.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import engine.real_scheduler as real_scheduler
from engine.real_loop import PROBE, RealLoop
from engine.real_scheduler import Setup
from engine.scheduler_state import FakeDevice
from laps import wire
from laps.engine.types import PolicySpec
from laps_sglang.link import ServiceLink
from laps_sglang.planner import EmbeddedPlanner, Planner, RemotePlanner
from step.cheap_model import FakeCheapModel, FakePacedEvent
from step.meter import Meter, link_cpu_s
from testbed.service import LapsService

RESULTS = Path(__file__).parents[1] / "results"
RUNNING = (1, 8, 48, 256)
PAUSED = (0, 100, 1000)
MODES = ("embedded", "remote")
TURNS = 3
STEPS = 300
WARM_UP = 50
STEP_S = 0.010


@dataclass(frozen=True)
class Case:
    """So many requests decode while so many are paused, under a plan from `mode`."""

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
    stock: list[float]
    """What the scheduler's thread did in the step besides: SGLang's own work."""
    link: float
    """CPU time of the link's threads a step."""
    hooks: dict[str, float]
    """Mean time a step by hook."""


def measure(case: Case, planner_of: Callable[[RealLoop], Planner]) -> Turn:
    """Run one case once."""
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
    stock: list[float] = []
    sent = [0]
    lengths = random.Random(total)
    state: dict[str, Any] = {"moves": None, "cpu": 0.0, "ready": 0, "link": 0.0}

    def script(iteration: int) -> bool:
        """At the start of every step: account for the one before."""
        meter.next_step()
        cpu = time.thread_time()
        stock.append((cpu - state["cpu"]) * 1e6)
        moves = dict(worker.counters)
        quiet.append(moves == state["moves"])
        state["moves"] = moves
        fresh.append(case.mode == "embedded" or worker.plan.step >= sent[-2 if sent[1:] else -1])
        sent.append(worker.ledger.step)
        if iteration == 1:
            for number in range(total):
                hints = {"laps": {"predicted_tokens": lengths.randint(100, 3000)}}
                loop.submit(f"r{number}", range(number % 7, 12), 3000, custom_params=hints)
        resident = len(worker.paused) + len(loop.scheduler.running_batch.reqs)
        if not state["ready"] and resident == total:
            # All are resident: from now on most pause.
            state["ready"], FakePacedEvent.step_s = iteration, STEP_S
            worker.capacity = replace(worker.capacity, max_running=case.running)
            loop.plan_with(planner_of(loop))
        if iteration == state["ready"] + WARM_UP:
            state["link"] = link_cpu_s()
        state["cpu"] = time.thread_time()
        return bool(state["ready"]) and iteration >= state["ready"] + WARM_UP + STEPS

    PROBE.append(meter.probe)
    try:
        loop.expect_answers(0.0)
        loop.run(script, limit=20_000)
    finally:
        PROBE.pop()
        if worker.planner is not None:
            worker.planner.close()
        loop.close()
    last = slice(len(meter.steps) - STEPS, None)
    added = [sum(step.values()) * 1e6 for step in meter.steps[last]]
    hooks = {
        name: statistics.mean(step.get(name, 0.0) for step in meter.steps[last]) * 1e6
        for name in sorted({name for step in meter.steps[last] for name in step})
    }
    own = [whole - part for whole, part in zip(stock[last], added, strict=True)]
    link = (link_cpu_s() - state["link"]) / STEPS * 1e6
    return Turn(added, quiet[last], fresh[last], own, link, hooks)


def embedded(loop: RealLoop) -> Planner:
    return EmbeddedPlanner(PolicySpec("laps-sd"), loop.worker.snapshot)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(case: Case, turns: list[Turn]) -> dict[str, Any]:
    """Return the medians over the turns of one case."""

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
        "stock_p50_us": median(percentile(turn.stock, 0.50) for turn in turns),
        "link_cpu_us": median(turn.link for turn in turns),
        "fresh_share": round(statistics.mean(f for turn in turns for f in turn.fresh), 5),
    }


def main() -> None:
    cases = [Case(*values) for values in itertools.product(RUNNING, PAUSED, MODES)]
    turns: dict[Case, list[Turn]] = {case: [] for case in cases}
    setattr(FakeDevice, "Event", FakePacedEvent)  # noqa: B010 - a fake takes a fake's place
    setattr(real_scheduler, "FakeModel", FakeCheapModel)  # noqa: B010 - no export of its own
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(
            LapsService("--plan-ttl-s", "60", log_path=logs / "service.log")
        )

        def remote(loop: RealLoop) -> Planner:
            identity = wire.WorkerIdentity("bench/dp0", time.time_ns())
            link = ServiceLink(service.address, identity)
            while not link.wants_hello:
                time.sleep(0.01)
            return RemotePlanner(link, PolicySpec("laps-sd"), loop.worker.snapshot)

        for turn, case in itertools.product(range(TURNS), cases):
            turns[case].append(measure(case, embedded if case.mode == "embedded" else remote))
            if turn == TURNS - 1:
                print(json.dumps(summary(case, turns[case])), flush=True)
    rows = [summary(case, turns[case]) for case in cases]
    (RESULTS / "step.json").write_text(json.dumps(rows, indent=1) + "\n")
    raw = [
        {
            **vars(case),
            "turns": [
                {
                    "added_us": [round(value) for value in turn.added],
                    "hooks_us": {name: round(value, 1) for name, value in turn.hooks.items()},
                }
                for turn in turns[case]
            ],
        }
        for case in cases
    ]
    with gzip.open(RESULTS / "step-raw.json.gz", "wt") as file:
        json.dump(raw, file)


if __name__ == "__main__":
    main()

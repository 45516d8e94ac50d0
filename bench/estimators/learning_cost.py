"""What it costs to learn lengths: `PYTHONPATH=bench python -m estimators.learning_cost`, a minute.

Prompts of random tokens, in microseconds of the thread that does it (medians, and P99): writes
bench/results/learning-cost.json.
"""

from __future__ import annotations

import json
import pickle
import random
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from laps.engine.types import Arrival, Hints, StepReport
from laps_sglang.lengths.hints import LengthHints
from laps_sglang.lengths.learner import ENOUGH, KEPT
from laps_sglang.lengths.prompts import PromptLog, Told

RESULTS = Path(__file__).parents[1] / "results" / "learning-cost.json"
PROMPT_TOKENS = (100, 1000)
VOCABULARY = 150_000
TENANTS, LENGTHS = ("chat", "code"), (400, 40)
"""So that there is something to learn: who learns nothing predicts nothing."""
REPEATED = 1000
TOGETHER = 32
"""Arrivals in one report, where many come at once."""


def main() -> None:
    table = Table("prompt tokens", *(costs := costs_by_prompt())[PROMPT_TOKENS[0]])
    for tokens, by_what in costs.items():
        table.add_row(str(tokens), *(f"{half:.0f} ({late:.0f})" for half, late in by_what.values()))
    Console().print(table)
    RESULTS.write_text(json.dumps(costs, indent=1) + "\n")


def costs_by_prompt() -> dict[int, dict[str, tuple[float, float]]]:
    """Return median and P99 in microseconds by the length of prompts, then by what is done."""
    return {tokens: costs_of(tokens) for tokens in PROMPT_TOKENS}


def costs_of(prompt_tokens: int) -> dict[str, tuple[float, float]]:
    draw = random.Random(1)
    log = PromptLog()
    with tempfile.TemporaryDirectory() as folder:
        hints = LengthHints(Path(folder) / "lengths.npz", saves=False)
    spent: dict[str, list[float]] = {}

    def timed(what: str, count: int, do: Callable[[], object]) -> None:
        begin = time.thread_time_ns()
        do()
        spent.setdefault(what, []).append((time.thread_time_ns() - begin) / 1000 / count)

    def told_of(first: int, count: int) -> tuple[Told, StepReport]:
        arrivals = []
        for handle in range(first, first + count):
            prompt = array("q", (draw.randrange(VOCABULARY) for _ in range(prompt_tokens)))
            tenant = Hints(tenant=TENANTS[handle % 2])
            arrivals.append(Arrival(handle, f"r{handle}", 0.0, prompt_tokens, 1024, tenant))
            timed("scheduler, an arrival", 1, lambda: log.arrived(handle, prompt))  # noqa: B023
        told = log.take()
        assert told is not None
        timed("scheduler, to send it", count, lambda: pickle.dumps(told, pickle.HIGHEST_PROTOCOL))
        return told, StepReport(first, 0.0, arrived=tuple(arrivals))

    def arrive(first: int, count: int, what: str) -> None:
        told, report = told_of(first, count)
        hints.take(told)
        timed(what, count, lambda: hints.report(report))

    def finish(handle: int) -> None:
        hints.take(Told((), ((handle, LENGTHS[handle % 2]),)))
        hints.report(StepReport(handle, 0.0, finished=(handle,)))
        timed("planner process, a finish", 1, hints.rest)

    for handle in range(KEPT + ENOUGH + REPEATED):
        arrive(handle, 1, "planner process, an arrival")
        finish(handle)
    assert hints.description["predicts"]
    for first in range(handle + 1, handle + 1 + TOGETHER * (REPEATED // TOGETHER), TOGETHER):
        arrive(first, TOGETHER, f"planner process, each of {TOGETHER} arrivals")
    return {
        what: (float(np.median(last)), float(np.quantile(last, 0.99)))
        for what, us in spent.items()
        if (last := us[-REPEATED:])
    }


if __name__ == "__main__":
    main()

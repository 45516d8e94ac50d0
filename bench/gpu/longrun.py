"""Simulate runs far longer than those that were measured, on a worker that was measured.

    python -m gpu.longrun --out DIR [--jobs 2]

Near capacity a queue takes hundreds of services to grow to what it will be, which is more time than
a run on a GPU can have for each policy. `gpu.replay` shows how well the simulator repeats the runs
of a comparison; this goes on with them: `REQUESTS` requests a run, of the same pool, with the same
times for all policies. Rounds take what they took in one run, of those under a form of LAPS-SD the
one with the median full round; prefills what they took in all of these in the mean, at the pace of
that one, and for stock SGLang what they took in its own runs. Loads are shares of what stock could
do at these times. Needs no GPU. Writes DIR/longrun.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from gpu.accepted import accept_lengths, recorded
from gpu.figures import Row
from gpu.names import BLIND, ORACLE, STOCK
from gpu.replay import full_round_s, service_s, simulated, timed_rows
from gpu.summary import JUDGED, OURS
from gpu.workload import LOADS, Drawn, Pool, draw_by_chance, pool_path, read_pool
from sim.workload import Bytes

POLICIES = (
    *(STOCK, "fcfs", "srtf", "mlfq", "laps-sd"),
    *("laps-sd+", "laps-sd+:patience=1e6", BLIND, ORACLE),
)
REQUESTS = 10_000
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu.longrun",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    folder: Path = options.out
    path = folder / "longrun.jsonl"
    workers = {stage: found for stage in JUDGED if (found := median_worker(folder, stage))}
    if not workers:
        path.unlink(missing_ok=True)
        print("no runs with prefills of stock and of a form of LAPS-SD: nothing to go on with")
        return
    # Without an end to overload there is no long run of it.
    loads = [name for name, load in LOADS.items() if load.of_capacity < 1.0]
    wanted = itertools.product(workers, range(1, SEEDS + 1), loads, POLICIES)
    with ProcessPoolExecutor(options.jobs) as processes:
        simulate = partial(long_run, workers, options.requests)
        rows = list(processes.map(simulate, *zip(*wanted, strict=True)))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} runs simulated")


@dataclass(frozen=True)
class Measured:
    """A worker as it was measured."""

    pool: Pool
    """With the capacity that stock SGLang has at these times: a few hundredths double a queue."""
    row: Row
    """A run that has these times."""
    stock: Row
    """The same for stock SGLang: its prefills are each of a request, and take less."""
    accepted: Sequence[Bytes]
    """Accept lengths by prompt."""


def median_worker(folder: Path, stage: str) -> Measured | None:
    """Return the worker of a stage; None if there are no runs that tell its times."""
    rows = timed_rows(folder / f"{stage}.jsonl")
    ours, stocks = ([row for row in rows if row["policy"] in some] for some in (OURS, (STOCK,)))
    if not ours or not stocks:
        return None
    median = sorted(ours, key=full_round_s)[len(ours) // 2]
    row, stock = ({**median, **mean_prefills(of, full_round_s(median))} for of in (ours, stocks))
    pool = read_pool(pool_path(folder, stage))
    capacity_rps = 1.0 / service_s(stock, fmean(pool.rounds))
    pool = replace(pool, capacity_rps=capacity_rps)
    return Measured(pool, row, stock, accept_lengths(pool, recorded(folder, stage)))


def mean_prefills(rows: Sequence[Row], round_s: float) -> Row:
    """Return what prefills took, had each host done full rounds in `round_s`."""
    return {
        name: fmean(row[name] * round_s / full_round_s(row) for row in rows)
        for name in ("prefill_s", "prefill_request_s")
    }


def long_run(
    workers: Mapping[str, Measured], requests: int, stage: str, seed: int, load: str, policy: str
) -> Row:
    """Simulate one run; its row has the names of those that are measured."""
    worker = workers[stage]
    seconds = requests / (LOADS[load].of_capacity * worker.pool.capacity_rps)
    rng = np.random.default_rng([seed, list(LOADS).index(load)])
    drawn = Drawn(draw_by_chance(worker.pool, load, rng, seconds))
    row = worker.stock if policy == STOCK else worker.row
    figures = simulated(drawn, worker.pool, worker.accepted, row, policy)
    return {"stage": stage, "round": seed, "load": load, "policy": policy, "n": requests, **figures}


if __name__ == "__main__":
    main()

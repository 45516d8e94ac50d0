"""Simulate runs far longer than those that were measured, on the worker that was measured.

    python -m gpu.longrun --out DIR [--jobs 2]

Near capacity a queue takes hundreds of services to grow to what it will be, which is more time than
a run on a GPU can have for each policy. `gpu.replay` shows how well the simulator repeats the runs
of `gpu.large` that were measured; this goes on with it: `REQUESTS` requests a run, of the same
pool, with the times of rounds and prefills of the first run in which prefills were shared (in those
of stock SGLang few are of more than one request, so what one more costs is not known). Loads are
shares of what these times make of stock SGLang's capacity. Needs no GPU. Writes DIR/longrun.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from gpu.figures import Row
from gpu.names import ORACLE, STOCK
from gpu.replay import service_s, simulated, timed_rows
from gpu.summary import OURS
from gpu.workload import LOADS, Pool, draw_by_chance

POLICIES = (
    *(STOCK, "fcfs", "srtf", "mlfq", "laps-sd"),
    *("laps-sd+", "laps-sd+:patience=1e6", ORACLE),
)
REQUESTS = 10_000
SEEDS = 3
STAGE = "large"


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
    measured = [row for row in timed_rows(folder / f"{STAGE}.jsonl") if row["policy"] in OURS]
    if not measured:
        print(f"no run of {STAGE} with prefills under a form of LAPS-SD: nothing to go on with")
        return
    pool = Pool(**json.loads((folder / f"{STAGE}-pool.json").read_text()))
    # Loads are of what this very worker can do: a few hundredths more or less double a queue.
    capacity_rps = 1.0 / service_s(measured[0], fmean(pool.rounds))
    pool = replace(pool, capacity_rps=capacity_rps)
    # Without an end to overload there is no long run of it.
    loads = [name for name, load in LOADS.items() if load.of_capacity < 1.0]
    simulate = partial(long_run, pool, measured[0], options.requests)
    wanted = itertools.product(range(1, SEEDS + 1), loads, POLICIES)
    with ProcessPoolExecutor(options.jobs) as processes:
        rows = list(processes.map(simulate, *zip(*wanted, strict=True)))
    (folder / "longrun.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} runs simulated")


def long_run(pool: Pool, measured: Row, requests: int, seed: int, load: str, policy: str) -> Row:
    """Simulate one run; its row has the names of those that are measured."""
    seconds = requests / (LOADS[load].of_capacity * pool.capacity_rps)
    rng = np.random.default_rng([seed, list(LOADS).index(load)])
    jobs = draw_by_chance(pool, load, rng, seconds)
    figures = simulated(jobs, pool, measured, policy)
    return {"round": seed, "load": load, "policy": policy, "n": len(jobs), **figures}


if __name__ == "__main__":
    main()

"""Simulate what was compared as if all policies of a round had had the same host.

    python -m gpu.same_host --out DIR [--jobs 2]

The host sets the pace of a small model. If it changes that from run to run by more than the share
of capacity that a load leaves free, what is compared is the host. `gpu.replay` shows that the
simulator, told of a run's times, repeats the run. So here every policy of a round is given the
times of every run in it, one after the other, but for those of stock SGLang, in which few prefills
are of more than one request, so that what one more costs is not known. What is left is what the
order does. Needs no GPU. Writes DIR/same-host.jsonl, from DIR/compare.jsonl and its pool.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from gpu.figures import Row
from gpu.names import STOCK, STOCK_PRIORITY
from gpu.replay import pace_of, simulated, timed_rows
from gpu.workload import Pool, draw

STAGE = "compare"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="gpu.same_host",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args()
    folder: Path = options.out
    wanted = list(pairs(timed_rows(folder / f"{STAGE}.jsonl")))
    if not wanted:
        print(f"no run of {STAGE} with prefills under the service: nothing to simulate")
        return
    pool = Pool(**json.loads((folder / f"{STAGE}-pool.json").read_text()))
    with ProcessPoolExecutor(options.jobs) as processes:
        rows = list(processes.map(partial(on_host, pool), *zip(*wanted, strict=True)))
    (folder / "same-host.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} runs simulated")


def pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Yield each run whose host is had by all, with each policy of its round and load."""
    for host in rows:
        if host["policy"] in (STOCK, STOCK_PRIORITY):
            continue
        beside = [row for row in rows if all(row[name] == host[name] for name in ("round", "load"))]
        yield from ((host, row["policy"]) for row in beside if row["policy"] != STOCK_PRIORITY)


def on_host(pool: Pool, host: Row, policy: str) -> Row:
    """Simulate `policy` with the times of the run `host`; a round is of one such run."""
    jobs = draw(pool, host["load"], host["round"], host["seconds"])
    return {
        "round": f"{host['round']} as {host['policy']} had it",
        "load": host["load"],
        "policy": policy,
        "n": len(jobs),
        **simulated(jobs, pool, host, policy, pace_of(host)),
    }


if __name__ == "__main__":
    main()

"""Measure the engine (`make bench-engine`): prints a table, writes bench/results/engine.json."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from overhead.load import ROUND_S
from overhead.measure import Case, Figures, measure

OUT = Path(__file__).parents[1] / "results" / "engine.json"
CASES = (
    *(Case("laps-sd", requests) for requests in (1_000, 10_000, 100_000, 1_000_000)),
    *(Case("fcfs", requests) for requests in (1_000, 10_000, 100_000, 1_000_000)),
    Case("laps-sd", 64, running=16),
    Case("fcfs", 64, running=16),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="overhead", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file to write")
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out larger cases")
    options = parser.parse_args()
    console = Console()
    figures: list[Figures] = []
    for case in CASES:
        if case.requests <= options.most:
            console.print(f"{case.policy}, {case.requests:,} requests, {case.running} running ...")
            # A process for each: what one leaves in memory would slow the next one's collector.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                figures.append(pool.apply(measure, (case,)))
    options.out.write_text(json.dumps([asdict(one) for one in figures], indent=1) + "\n")
    console.print(_table(figures))
    console.print(f"written to {options.out}")


def _table(figures: list[Figures]) -> Table:
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        title="One decision: a report taken in, a plan made",
        caption=f"Times in ms; the share is that of a step of {ROUND_S * 1e3:.0f} ms; the last "
        "column is a full garbage collection, should the host have one then",
    )
    table.add_column("policy", no_wrap=True)
    for name in ("requests", "running", "p50", "p99", "worst", "share", "bytes each", "full GC"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in figures:
        table.add_row(
            one.policy,
            f"{one.requests:,}",
            str(one.running),
            f"{one.decide_p50_ms:.3f}",
            f"{one.decide_p99_ms:.3f}",
            f"{one.decide_max_ms:.3f}",
            f"{one.step_share:.2%}",
            f"{one.bytes_per_request:,.0f}",
            f"{one.full_collection_ms:.0f}",
        )
    return table


if __name__ == "__main__":
    main()

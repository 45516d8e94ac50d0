"""Other definitions of load than `Case.work_s`, and what they come to in the reference case.

    python -m sim.definitions

Each takes another amount of work for a request. Its factor is this simulator's amount over that:
a load of 0.9 by that definition is 0.9 times the factor here.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, stdev

import numpy as np
from rich.console import Console
from rich.table import Table

from sim import theory
from sim.acceptance import Rates
from sim.case import Case
from sim.direct import latencies
from sim.physics import Physics

SAMPLE = 400_000
SHORT, SHORT_RUNS, HIGHER = 6_000, 40, 1.08
POINTS = ((16, 0.9), (16, 0.95), (1, 0.9))
"""Most requests in a round, and the load by another definition."""


def definitions() -> Iterator[tuple[str, list[float]]]:
    """Yield definitions, each with its factor at every one of `POINTS`."""
    workload = Case(requests=SAMPLE).draw(0)
    rounds, tokens = float(workload.rounds.counts.mean()), float(workload.output_tokens.mean())
    p = Rates().draw(np.random.default_rng(0), SAMPLE)
    accept_length = 1.0 + p + p**2 + p**3
    at_mean_p = rounds * 1.875 / tokens
    yield "mean L / mean accept length, for mean R", [rounds * accept_length.mean() / tokens] * 3
    yield "mean L / accept length at the mean of p, for mean R", [at_mean_p] * 3
    yield (
        "mean L · mean of 1 / accept length, for mean R",
        [rounds / tokens / (1 / accept_length).mean()] * 3,
    )
    busy = [full_over_busy(running, load) for running, load in POINTS]
    yield "time of a round of load · max_running requests, for a full one", busy
    yield "the second and the fourth", [at_mean_p * factor for factor in busy]


def full_over_busy(running: int, load: float) -> float:
    """Return the time of a full batch over that of one with the mean number in it."""
    time = Physics(max_running=running).round_time
    full, base = time.seconds(running), time.seconds(0)
    return full / (base + (full - base) * load)


def fcfs_over_srpt(load: float) -> float:
    """Return the ratio of the means with one running, by theory: in runs without end."""
    sizes, counts = np.unique(Case(requests=SAMPLE).draw(0).rounds.counts, return_counts=True)
    chances = counts / counts.sum()
    rate = load / float(sizes @ chances)
    return theory.mg1_fcfs(rate, sizes, chances) / theory.mg1_srpt(rate, sizes, chances)


def mean_s(running: int, load: float, shortest: bool) -> float:
    """Return the mean latency of one long run."""
    case = Case(load=load, requests=SAMPLE, physics=Physics(max_running=running))
    measured = slice(SAMPLE // 10, SAMPLE * 9 // 10)
    return float(latencies(case.draw(0), case.physics, shortest)[measured].mean())


def short_runs(running: int, load: float) -> tuple[float, float]:
    """Return FCFS over oracle, mean and standard deviation over short runs from an empty worker.

    All requests are counted.
    """
    case = Case(load=load, requests=SHORT, physics=Physics(max_running=running))
    ratios = []
    for seed in range(SHORT_RUNS):
        workload = case.draw(seed)
        fcfs, oracle = (latencies(workload, case.physics, kind).mean() for kind in (False, True))
        ratios.append(fcfs / oracle)
    return fmean(ratios), stdev(ratios)


def main() -> None:
    table = Table("definition", *(f"{load}, {running} running" for running, load in POINTS))
    for name, factors in definitions():
        loads = (load * factor for (_, load), factor in zip(POINTS, factors, strict=True))
        table.add_row(name, *(f"{load:.3f}" for load in loads))
    console = Console()
    console.print(table)
    for load in (0.9, 0.95):
        console.print(f"1 running, load {load}: FCFS / SRPT {fcfs_over_srpt(load):.2f} by theory")
    for running, load in ((16, 0.9), (16, 0.95), (16, 0.97), (16, 0.99), (1, 0.9), (1, 0.95)):
        means = [mean_s(running, load, shortest) for shortest in (False, True)]
        ratio = means[0] / means[1]
        console.print(
            f"{running} running, load {load}: FCFS / oracle {ratio:.2f}, {SAMPLE} requests"
        )
    for running, load in POINTS:
        mean, deviation = short_runs(running, load * HIGHER)
        console.print(
            f"{running} running, load {load} * {HIGHER}: FCFS / oracle {mean:.2f}, standard "
            f"deviation {deviation:.2f}, {SHORT_RUNS} runs of {SHORT} requests"
        )


if __name__ == "__main__":
    main()

"""What `laps-sd+` was meant to reach, and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.cells import Row
from sim.experiments.catalogue import NO_AGE
from sim.simulate import STOCK
from sim.tables import ORACLE, against, markdown

PLUS = "laps-sd+"
HEADINGS = ("target", "at most", "operating point", "load as named", "load as far from the oracle")
BY_NAME = {
    "0.9": "16 running, load 0.9",
    "0.95": "16 running, load 0.95",
    "one": "1 running, load 0.9",
}
AS_FAR = {
    "0.9": "16 running, load 0.975",
    "0.95": "16 running, load 1.0",
    "one": "1 running, load 0.95",
}
"""The cases in which FCFS's mean is about the multiple of the oracle's that the targets go with."""


@dataclass(frozen=True)
class Target:
    """A figure of `laps-sd+` as a multiple of another policy's, and the most it is to be."""

    what: str
    load: str
    figure: str
    other: str
    most: float
    policy: str = NO_AGE


TARGETS = (
    Target("mean / oracle", "0.9", "mean_s", ORACLE, 1.10),
    Target("mean / oracle, the tail in mind", "0.9", "mean_s", ORACLE, 1.15, PLUS),
    Target("... and P99 / FCFS with that", "0.9", "p99_s", STOCK, 1.75, PLUS),
    Target("P99 slowdown / FCFS", "0.9", "slowdown_p99", STOCK, 0.25),
    Target("mean / `laps-sd`", "0.9", "mean_s", "laps-sd", 1.0),
    Target("P99 / `laps-sd`", "0.9", "p99_s", "laps-sd", 1.0),
    Target("0.95: mean / FCFS", "0.95", "mean_s", STOCK, 0.50),
    Target("one running: mean / FCFS", "one", "mean_s", STOCK, 0.45),
    Target("one running: mean / MLFQ", "one", "mean_s", "mlfq", 0.61),
    Target("one running: mean / LAS", "one", "mean_s", "las", 0.61),
    Target("one running: mean / SRTF by length", "one", "mean_s", "srtf", 0.85),
)
BURSTS = Target("Azure arrivals, load 0.95: mean / FCFS", "", "mean_s", STOCK, 0.50)


def table(reference: Sequence[Row], arrivals: Sequence[Row]) -> str:
    """Return the targets with what was measured, in Markdown."""
    lines = []
    for target in TARGETS:
        cells = (measured(target, at(reference, cases[target.load])) for cases in (BY_NAME, AS_FAR))
        lines.append([target.what, f"{target.most:.2f}", f"`{target.policy}`", *cells])
    trace = [row for row in arrivals if row["arrivals"] == "Azure trace"]
    what = [BURSTS.what, f"{BURSTS.most:.2f}", f"`{BURSTS.policy}`"]
    lines.append([*what, measured(BURSTS, trace), ""])
    return markdown(HEADINGS, lines)


def at(rows: Sequence[Row], case: str) -> list[Row]:
    return [row for row in rows if row["case"] == case]


def measured(target: Target, rows: Sequence[Row]) -> str:
    value = against(rows, target.policy, target.other, target.figure)
    if value is None:
        return ""
    return f"{value}, {'met' if value.mean <= target.most else 'missed'}"

"""Policies side by side: of the rows of one case, one line for each policy."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from sim.cells import Row
from sim.simulate import STOCK
from sim.statistics import Estimate, estimate, ratio

ORACLE = "oracle"

HEADINGS = (
    "policy",
    "mean (s)",
    "mean / oracle",
    "mean / FCFS",
    "P50 (s)",
    "P99 (s)",
    "P99 / FCFS",
    "slowdown",
    "P99 slowdown",
    "P99 slowdown / FCFS",
    "Jain",
    "preemptions",
)


def policies_of(rows: Sequence[Row]) -> list[str]:
    """Return the policies of `rows`, each once, in order."""
    return list(dict.fromkeys(row["policy"] for row in rows))


def column(rows: Sequence[Row], policy: str, figure: str) -> dict[int, float]:
    """Return a figure of a policy, by seed."""
    return {row["seed"]: row[figure] for row in rows if row["policy"] == policy}


def mean_of(rows: Sequence[Row], policy: str, figure: str) -> Estimate:
    """Return a figure of a policy over all its seeds."""
    return estimate(list(column(rows, policy, figure).values()))


def against(rows: Sequence[Row], policy: str, other: str, figure: str) -> Estimate | None:
    """Return a figure of a policy as a multiple of another's; None if they share no seeds."""
    values, yardsticks = column(rows, policy, figure), column(rows, other, figure)
    seeds = sorted(values.keys() & yardsticks.keys())
    if not seeds:
        return None
    return ratio([values[seed] for seed in seeds], [yardsticks[seed] for seed in seeds])


def line(rows: Sequence[Row], policy: str) -> list[str]:
    """Return the cells of a policy's line; see `HEADINGS`."""

    def own(figure: str, digits: int = 2) -> str:
        return f"{mean_of(rows, policy, figure).mean:.{digits}f}"

    def ratio_to(other: str, figure: str) -> str:
        return str(against(rows, policy, other, figure) or "")

    return [
        policy,
        str(mean_of(rows, policy, "mean_s")),
        ratio_to(ORACLE, "mean_s"),
        ratio_to(STOCK, "mean_s"),
        own("p50_s"),
        own("p99_s"),
        ratio_to(STOCK, "p99_s"),
        own("slowdown_mean"),
        own("slowdown_p99", 1),
        ratio_to(STOCK, "slowdown_p99"),
        own("jain"),
        own("preemptions"),
    ]


def terminal(title: str, rows: Sequence[Row]) -> Table:
    """Return the table for a terminal."""
    table = Table(title=title)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for policy in policies_of(rows):
        table.add_row(*line(rows, policy))
    return table


def markdown(headings: Sequence[str], content: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (headings, rule, *content))

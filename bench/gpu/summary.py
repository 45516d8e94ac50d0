"""The figures of the raw data: by load and policy, and against stock SGLang."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from gpu.costs import Costs
from gpu.figures import Row
from gpu.names import EMBEDDED, REMOTE, in_tables
from gpu.spread import Spread, ratios, spread
from gpu.workload import contests

OURS = ("laps-sd", "laps-sd:order=strict", "laps-sd+", "laps-sd+:patience=1e6")
"""Forms of LAPS-SD."""
JUDGED = ("compare", "large")
"""Comparisons that the targets are about."""
FIGURES = (
    *("mean_s", "p50_s", "p99_s", "ttft_mean_s", "ttft_p99_s", "slowdown_mean"),
    *("throughput_tok_s", "preemptions", "demotions", "accept_length", "estimate_error"),
    *("running_mean", "step_p50_s", "step_p99_s", "hooks_s", "loop_s", "waited_s", "step_drift"),
    "lateness_p99_s",
)


@dataclass(frozen=True)
class Contest:
    """The rows of `gpu.contest`: one for each policy, load and round."""

    rows: Sequence[Row]

    @property
    def loads(self) -> list[str]:
        """Loads, each once, in order."""
        return list(dict.fromkeys(row["load"] for row in self.rows))

    def policies(self, load: str) -> list[str]:
        """Policies that were run under a load, each once, as tables have them."""
        return sorted({row["policy"] for row in self.rows if row["load"] == load}, key=in_tables)

    def by_round(self, load: str, policy: str, figure: str) -> dict[int, float]:
        """Return a figure of a policy by round; without those in which there is none."""
        return {
            row["round"]: row[figure]
            for row in self.rows
            if row["load"] == load and row["policy"] == policy and row.get(figure) is not None
        }

    def of(self, load: str, policy: str, figure: str) -> Spread | None:
        """Return a figure of a policy over all its rounds; None if it has none."""
        values = list(self.by_round(load, policy, figure).values())
        return spread(values) if values else None

    def against(self, load: str, policy: str, other: str, figure: str) -> Spread | None:
        """Return a figure as a multiple of another policy's, formed round by round."""
        mine, yard = (self.by_round(load, name, figure) for name in (policy, other))
        return ratios(mine, yard)

    def forms(self, load: str) -> list[str]:
        """Return the forms of LAPS-SD that were run in more than half of a load's rounds.

        Of one that was not, the rounds may have been the lucky ones.
        """
        rounds = {row["round"] for row in self.rows if row["load"] == load}
        return [
            policy
            for policy in OURS
            if 2 * len(self.by_round(load, policy, "mean_s")) > len(rounds)
        ]

    def best(self, load: str) -> str | None:
        """Return the form of LAPS-SD with the lowest mean under a load; None if none was run."""
        means = {
            policy: of.median
            for policy in self.forms(load)
            if (of := self.of(load, policy, "mean_s"))
        }
        return min(means, key=lambda policy: means[policy]) if means else None


@dataclass(frozen=True)
class Results:
    """Everything that was measured, as it lies in a folder; what is missing is empty."""

    compare: Contest
    large: Contest
    others: dict[str, Contest]
    """What was compared besides, by the name of its files."""
    longrun: dict[str, Contest]
    """By the stage that gave the worker."""
    throughput: Costs
    large_throughput: Costs
    moves: Sequence[Row]
    replay: Sequence[Row]
    identity: dict[str, Row]
    """By case."""
    machines: dict[str, Row]
    """By stage."""


def read_results(folder: Path) -> Results:
    """Read a folder of raw data."""

    def rows(name: str) -> list[Row]:
        path = folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def by_name(prefix: str) -> dict[str, Row]:
        paths = sorted(folder.glob(f"{prefix}-*.json"))
        return {
            path.stem.removeprefix(f"{prefix}-"): json.loads(path.read_text()) for path in paths
        }

    return Results(
        compare=Contest(rows("compare")),
        large=Contest(rows("large")),
        others={stage: Contest(rows(stage)) for stage in contests(folder) if stage not in JUDGED},
        longrun={
            stage: Contest(list(of))
            for stage, of in groupby(rows("longrun"), key=lambda row: row["stage"])
        },
        throughput=Costs(rows("throughput")),
        large_throughput=Costs(rows("throughput-large")),
        moves=rows("moves"),
        replay=rows("replay"),
        identity=by_name("identity"),
        machines=by_name("machine"),
    )


def summary(results: Results) -> dict[str, Any]:
    """Return what the page quotes, for programs; None where something was not measured."""

    def contest(of: Contest) -> dict[str, Any]:
        return {
            load: {
                policy: {
                    name: figure.median if (figure := of.of(load, policy, name)) else None
                    for name in FIGURES
                }
                for policy in of.policies(load)
            }
            for load in of.loads
        }

    cases = results.identity.values()
    return {
        "loads": contest(results.compare),
        "large": contest(results.large),
        "others": {stage: contest(of) for stage, of in results.others.items()},
        "longrun": {stage: contest(of) for stage, of in results.longrun.items()},
        "identity": {
            "pauses": sum(case["pauses"] for case in cases),
            "differences": sum(case["differences"] for case in cases),
            "demotions": sum(case.get("demotions", 0) for case in cases),
        },
        "throughput_ratio": results.throughput.throughput_ratio(REMOTE),
        "throughput_ratio_embedded": results.throughput.throughput_ratio(EMBEDDED),
        "throughput_ratio_large": results.large_throughput.throughput_ratio(REMOTE),
        "step_added_p99_share": results.throughput.worst_step_share(REMOTE),
        "step_added_p99_share_embedded": results.throughput.worst_step_share(EMBEDDED),
        "step_added_p99_share_large": results.large_throughput.worst_step_share(REMOTE),
    }

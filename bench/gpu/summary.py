"""The figures of the raw data: by load and policy, against stock SGLang, and of the targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.costs import Costs
from gpu.figures import Row
from gpu.names import EMBEDDED, ORACLE, REMOTE, STOCK
from gpu.spread import Spread, ratios, spread

OURS = ("laps-sd", "laps-sd:order=strict", "laps-sd+")
"""Forms of LAPS-SD."""
FIGURES = (
    *("mean_s", "p50_s", "p99_s", "ttft_mean_s", "ttft_p99_s", "slowdown_mean"),
    *("throughput_tok_s", "preemptions", "demotions", "accept_length", "estimate_error"),
    *("running_mean", "step_p50_s", "step_p99_s", "lateness_p99_s"),
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
        """Policies that were run under a load, each once, in order."""
        return list(dict.fromkeys(row["policy"] for row in self.rows if row["load"] == load))

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

    def best(self, load: str) -> str | None:
        """Return the form of LAPS-SD with the lowest mean under a load; None if none was run."""
        means = {policy: of.median for policy in OURS if (of := self.of(load, policy, "mean_s"))}
        return min(means, key=lambda policy: means[policy]) if means else None


@dataclass(frozen=True)
class Results:
    """Everything that was measured, as it lies in a folder; what is missing is empty."""

    compare: Contest
    large: Contest
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


@dataclass(frozen=True)
class Target:
    """What was to be reached: `found` at most (or at least) `bound`."""

    what: str
    found: float | None
    bound: float
    at_most: bool = True
    oracle: float | None = None
    """The same figure for the oracle: what any order can reach."""

    @property
    def verdict(self) -> str:
        """Say whether it is met."""
        if self.found is None:
            return "not measured"
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        return "met" if met else "missed"


def targets(results: Results) -> list[Target]:
    """Hold the results against what was wanted, with the best form of LAPS-SD at each load."""
    of = results.compare

    def ratio(load: str, other: str) -> float | None:
        best = of.best(load)
        found = of.against(load, best, other, "mean_s") if best else None
        return found.median if found else None

    def over_stock(what: str, load: str, bound: float) -> Target:
        oracle = of.against(load, ORACLE, STOCK, "mean_s")
        return Target(
            f"mean {what}, over stock's",
            ratio(load, STOCK),
            bound,
            oracle=oracle.median if oracle else None,
        )

    def every(loads: Sequence[str], value: Callable[[str], float | None]) -> float | None:
        found = [value(load) for load in loads]
        kept = [one for one in found if one is not None]
        return max(kept) if len(kept) == len(found) else None

    tails = [
        found.median
        for load in of.loads
        for policy in OURS
        if (found := of.against(load, policy, STOCK, "p99_s"))
    ]
    hard = ("0.95", "0.95-bursts")
    identity = results.identity
    return [
        over_stock("at 0.95", "0.95", 0.61),
        over_stock("under bursts", "0.95-bursts", 0.61),
        over_stock("at 0.9", "0.9", 0.70),
        Target(
            "mean over MLFQ's, at 0.95 and under bursts",
            every(hard, lambda load: ratio(load, "mlfq")),
            1.0,
        ),
        Target(
            "mean over SRTF's, at 0.95 and under bursts",
            every(hard, lambda load: ratio(load, "srtf")),
            0.90,
        ),
        Target(
            "mean over the oracle's, at 0.95 and under bursts",
            every(hard, lambda load: ratio(load, ORACLE)),
            1.15,
        ),
        Target("P99 over stock's, at one operating point", min(tails, default=None), 1.75),
        *(
            target
            for model, costs in (
                ("", results.throughput),
                (", larger shape", results.large_throughput),
            )
            for target in (
                Target(
                    f"throughput over stock's{model}",
                    costs.throughput_ratio(REMOTE),
                    0.99,
                    at_most=False,
                ),
                Target(f"P99 of a step: added{model}", costs.worst_step_share(REMOTE), 0.01),
            )
        ),
        Target(
            "outputs that differ in the identity runs",
            float(sum(case["differences"] for case in identity.values())) if identity else None,
            0.0,
        ),
        Target(
            "pauses in the identity runs",
            float(sum(case["pauses"] for case in identity.values())) if identity else None,
            10_000.0,
            at_most=False,
        ),
    ]

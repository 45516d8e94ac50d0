"""What was to be reached, and what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu.costs import Costs
from gpu.names import ORACLE, REMOTE, STOCK
from gpu.summary import OURS, Contest, Results

HARD = ("0.95", "0.95-bursts")


@dataclass(frozen=True)
class Target:
    """What was to be reached: `found` at most (or at least) `bound`."""

    what: str
    found: float | None
    bound: float
    at_most: bool = True
    form: str = ""
    """The form of LAPS-SD that it was found with."""
    oracle: float | None = None
    """The same figure for the oracle: what any order can reach."""

    @property
    def wanted(self) -> str:
        """Say what is wanted."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"

    @property
    def verdict(self) -> str:
        """Say what was found, and whether that is enough."""
        if self.found is None:
            return "not measured"
        met = self.found <= self.bound if self.at_most else self.found >= self.bound
        return f"{self.found:.4g}, {'met' if met else 'missed'}"


def contest_targets(of: Contest) -> list[Target]:
    """Hold a comparison against what was wanted, with the best form of LAPS-SD at each load."""

    def worst(
        policy: str | None, other: str, loads: Sequence[str], figure: str = "mean_s"
    ) -> tuple[float, str] | None:
        """Return the largest multiple of `other`'s figure, and of whom; None if one is missing.

        Of `policy`, or of the best form of LAPS-SD at each load.
        """
        found = []
        for load in loads:
            mine = policy or of.best(load)
            ratio = of.against(load, mine, other, figure) if mine else None
            if ratio is None or mine is None:
                return None
            found.append((ratio.median, mine))
        return max(found)

    def mean(what: str, other: str, bound: float, *loads: str) -> Target:
        ours, oracle = (worst(policy, other, loads) for policy in (None, ORACLE))
        found, form = ours or (None, "")
        return Target(what, found, bound, form=form, oracle=oracle and oracle[0])

    forms = [policy for policy in OURS if all(policy in of.forms(load) for load in HARD)]
    tails = [worst(policy, STOCK, HARD, "p99_s") for policy in forms]
    tail, form = min((found for found in tails if found is not None), default=(None, ""))
    return [
        mean("mean at 0.95, over stock's", STOCK, 0.61, "0.95"),
        mean("mean under bursts, over stock's", STOCK, 0.61, "0.95-bursts"),
        mean("mean at 0.9, over stock's", STOCK, 0.70, "0.9"),
        mean("mean over MLFQ's, at 0.95 and under bursts", "mlfq", 1.0, *HARD),
        mean("mean over SRTF's, at 0.95 and under bursts", "srtf", 0.90, *HARD),
        mean("mean over the oracle's, at 0.95 and under bursts", ORACLE, 1.15, *HARD),
        Target("P99 over stock's, at 0.95 and under bursts, of one form", tail, 1.75, form=form),
    ]


def other_targets(results: Results) -> list[Target]:
    """Hold costs and identity against what was wanted."""
    cases = results.identity.values()

    def counted(what: str) -> float | None:
        return float(sum(case[what] for case in cases)) if cases else None

    return [
        *cost_targets("", results.throughput),
        *cost_targets(", larger shape", results.large_throughput),
        Target("outputs that differ in the identity runs", counted("differences"), 0.0),
        Target("pauses in the identity runs", counted("pauses"), 10_000.0, at_most=False),
    ]


def cost_targets(model: str, costs: Costs) -> list[Target]:
    """Hold what the plugin costs, under a service, against what was wanted."""
    return [
        Target(
            f"throughput over stock's{model}", costs.throughput_ratio(REMOTE), 0.99, at_most=False
        ),
        Target(f"P99 of a step: added{model}", costs.worst_step_share(REMOTE), 0.01),
    ]

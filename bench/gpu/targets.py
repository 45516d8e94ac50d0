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
    """The same figure for the oracle, at the load where `found` is: what an order can come to that
    knows all lengths."""
    worst: float | None = None
    """The worst of the turns that `found` is the median of, where turns may differ by more than the
    bound."""

    @property
    def wanted(self) -> str:
        """Say what is wanted."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}"

    @property
    def verdict(self) -> str:
        """Say what was found, and whether that is enough."""
        if self.found is None:
            return "not measured"
        if not self._enough(self.found):
            said = "missed"
        elif self.worst is not None and not self._enough(self.worst):
            said = f"not decided: turns differ by more, to {self.worst:.2g}"
        else:
            said = "met"
        shown = f"{self.found:,.0f}" if self.found >= 1000 else f"{round(self.found, 4):g}"
        return f"{shown}, {said}"

    def _enough(self, found: float) -> bool:
        return found <= self.bound if self.at_most else found >= self.bound


def contest_targets(of: Contest) -> list[Target]:
    """Hold a comparison against what was wanted, with the best form of LAPS-SD at each load."""

    def worst(
        policy: str | None, other: str, loads: Sequence[str], figure: str = "mean_s"
    ) -> tuple[float, str, str] | None:
        """Return the largest multiple of `other`'s figure, of whom, and at which load.

        Of `policy`, or of the best form of LAPS-SD at each load; None if one is missing.
        """
        found = []
        for load in loads:
            mine = policy or of.best(load)
            ratio = of.against(load, mine, other, figure) if mine else None
            if ratio is None or mine is None:
                return None
            found.append((ratio.median, mine, load))
        return max(found)

    def mean(what: str, other: str, bound: float, *loads: str) -> Target:
        ours = worst(None, other, loads)
        if ours is None:
            return Target(what, None, bound)
        found, form, load = ours
        oracle = worst(ORACLE, other, [load])
        return Target(what, found, bound, form=form, oracle=oracle and oracle[0])

    forms = [policy for policy in OURS if all(policy in of.forms(load) for load in HARD)]
    tails = [worst(policy, STOCK, HARD, "p99_s") for policy in forms]
    tail, form, _ = min((found for found in tails if found is not None), default=(None, "", ""))
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
        Target(
            f"P99 of a step: added{model}",
            costs.worst_step_share(REMOTE),
            0.01,
            worst=costs.most_step_share(REMOTE),
        ),
    ]

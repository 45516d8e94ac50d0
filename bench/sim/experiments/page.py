"""The results page: its text with the tables and figures of the raw data put in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sim.case import describe
from sim.cells import Row
from sim.experiments import figures, targets
from sim.experiments.catalogue import Experiment
from sim.experiments.store import Store
from sim.simulate import STOCK
from sim.statistics import Estimate
from sim.tables import HEADINGS, ORACLE, against, line, markdown, mean_of, policies_of

TEXT = Path(__file__).with_name("page.md")
ESTIMATES = Path(__file__).parents[2] / "results" / "estimates.json"
"""Written by `python -m estimators`."""
PROMPTS = ESTIMATES.with_name("prompts.json")
"""Written by `python -m estimators.prompts`."""


@dataclass(frozen=True)
class Page:
    """Where everything goes."""

    store: Store
    path: Path

    @property
    def figures(self) -> Path:
        return self.path.parent / "figures"

    def write(self, experiments: Sequence[Experiment]) -> None:
        """Write page, figures and summary from what the store has."""
        parts = {experiment.name: self.part(experiment) for experiment in experiments}
        rows = {experiment.name: self.store.rows(experiment) for experiment in experiments}
        parts["estimates"] = estimates(ESTIMATES)
        parts["prompts"] = "\n\n".join(prompts(PROMPTS))
        parts["targets"] = targets.table(rows["reference"], rows["arrivals"])
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], TEXT.read_text())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
        reference = next(e for e in experiments if e.name == "reference")
        summary = self.store.folder / "sim.json"
        content = reference_summary(reference, rows["reference"])
        summary.write_text(json.dumps(content, indent=1) + "\n")

    def part(self, experiment: Experiment) -> str:
        """Return the tables of an experiment, and draw its figure."""
        rows = self.store.rows(experiment)
        # Some points may be there for another experiment's sake.
        if not all(at(experiment, rows, label) for label in experiment.cases):
            return f"Not run yet: `python -m sim run {experiment.name}`."
        if experiment.name == "million":
            return took(rows)
        if experiment.name in ("reference", "limits"):
            return full_tables(experiment, rows)
        path = self.figures / f"sim-{experiment.name}.svg"
        if experiment.name == "frontier":
            figures.frontier(rows, path)
            table = full_tables(experiment, rows)
        else:
            figures.along_axis(experiment, rows, path)
            table = along_axis(experiment, rows)
        if experiment.name == "tenants":
            table += f"\n\n{by_tenant(experiment, rows)}"
        return f"{table}\n\n![{experiment.title}](figures/{path.name})"


def full_tables(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Return one table with all figures for each case."""
    tables = []
    for label in experiment.cases:
        here = at(experiment, rows, label)
        content = [line(here, policy) for policy in policies_of(here)]
        tables.append(f"**{label}** ({size(here)})\n\n{markdown(HEADINGS, content)}")
    return "\n\n".join(tables)


def took(rows: Sequence[Row]) -> str:
    """Return how long the runs took, in a sentence each."""
    return "\n".join(
        f"{row['requests']:,} requests under `{row['policy']}`, {row['cpu_s']:.0f} s of one core."
        for row in rows
    )


def estimates(path: Path) -> str:
    """Return a table of how far estimates are off: mean and median by stage of the request."""
    by_stage = json.loads(path.read_text())
    content = [
        [name, *(f"{mean:.1%}, {half:.1%}" for mean, half in stages.values())]
        for name, stages in by_stage.items()
    ]
    return markdown(["", *next(iter(by_stage.values()))], content)


def prompts(path: Path) -> Iterator[str]:
    """Yield for each set of answers a table of how well predictors do, by data set."""
    for answers, found in json.loads(path.read_text()).items():
        counts = found.pop("requests")
        content = []
        for predictor, by_source in found.items():
            cells = ((f"{of['error']:.2f}", of["tau"]) for of in by_source.values())
            both = (
                error if tau is None else f"{error}, {round(tau, 2) + 0.0:.2f}"
                for error, tau in cells
            )
            content.append([predictor, *both])
        headings = [answers, *(f"{source} ({count:,})" for source, count in counts.items())]
        yield markdown(headings, content)


def by_tenant(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Return the mean slowdown of each tenant's requests, a line for each case."""
    policies = policies_of(rows)
    content = []
    for label, case in experiment.cases.items():
        here = at(experiment, rows, label)
        for tenant in case.tenants:
            figure = f"slowdown of {tenant.name}"
            slowdowns = (f"{mean_of(here, policy, figure).mean:.2f}" for policy in policies)
            content.append([f"{label}: {tenant.name}", *slowdowns])
    headings = [experiment.axis, *policies]
    return f"Mean slowdown of each tenant's requests.\n\n{markdown(headings, content)}"


def along_axis(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Return a table of a line for each label: mean over oracle's and P99 over FCFS's."""
    policies = policies_of(rows)
    content = []
    for label in experiment.cases:
        here = at(experiment, rows, label)
        content.append([label, *(both(here, policy) for policy in policies)])
    headings = [experiment.axis, *policies]
    return f"Mean / oracle, P99 / FCFS ({size(rows)}).\n\n{markdown(headings, content)}"


def both(rows: Sequence[Row], policy: str) -> str:
    mean, tail = against(rows, policy, ORACLE, "mean_s"), against(rows, policy, STOCK, "p99_s")
    return f"{mean.mean:.2f}, {tail.mean:.2f}" if mean and tail else ""


def at(experiment: Experiment, rows: Sequence[Row], label: str) -> list[Row]:
    return [row for row in rows if row[experiment.axis] == label]


def size(rows: Sequence[Row]) -> str:
    requests = sorted({row["requests"] for row in rows})
    seeds = len({row["seed"] for row in rows})
    return f"{' / '.join(f'{count:,}' for count in requests)} requests, {seeds} seeds"


def reference_summary(experiment: Experiment, rows: Sequence[Row]) -> dict[str, Any]:
    """Return mean and P99 by policy for each reference case, with 95 % confidence intervals."""
    summary: dict[str, Any] = {}
    for label, case in experiment.cases.items():
        here = at(experiment, rows, label)
        policies = {}
        for policy in policies_of(here):
            figures_of: dict[str, Estimate | None] = {
                "mean_s": mean_of(here, policy, "mean_s"),
                "p99_s": mean_of(here, policy, "p99_s"),
                "slowdown_p99": mean_of(here, policy, "slowdown_p99"),
                "mean_over_oracle": against(here, policy, ORACLE, "mean_s"),
                "mean_over_fcfs": against(here, policy, STOCK, "mean_s"),
                "p99_over_fcfs": against(here, policy, STOCK, "p99_s"),
                "slowdown_p99_over_fcfs": against(here, policy, STOCK, "slowdown_p99"),
            }
            policies[policy] = {name: asdict(v) for name, v in figures_of.items() if v is not None}
        summary[label] = {
            "case": describe(case),
            "seeds": len({row["seed"] for row in here}),
            "policies": policies,
        }
    return summary

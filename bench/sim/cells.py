"""Cells: one case under one policy with one seed, each simulated apart, in several processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sim.case import Case, describe
from sim.simulate import simulate

Row = dict[str, Any]
"""A finished cell as plain JSON: its axes, policy and seed, and its figures."""


@dataclass(frozen=True)
class Cell:
    """What is simulated, and how its row is labelled."""

    case: Case
    policy: str
    seed: int
    axes: Mapping[str, str | float] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Names the cell by all that its figures depend on, but the code."""
        content = [describe(self.case), self.policy, self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def row(self, progress: Callable[[int], None] | None = None) -> Row:
        """Simulate the cell."""
        figures = asdict(simulate(self.case, self.policy, self.seed, progress).figures)
        for tenant, slowdown in figures.pop("tenants").items():
            figures[f"slowdown of {tenant}"] = slowdown
        return {
            "digest": self.digest,
            **self.axes,
            "policy": self.policy,
            "seed": self.seed,
            "requests": self.case.requests,
            **{name: float(f"{value:.6g}") for name, value in figures.items()},
        }


def simulate_all(
    cells: Sequence[Cell], jobs: int, console: Console, done: Callable[[Row], None]
) -> None:
    """Simulate `cells` in `jobs` processes, and hand over each row as soon as it is there."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        total = sum(cell.case.requests for cell in cells)
        task = progress.add_task(f"{len(cells)} simulations", total=total)

        def advance(requests: int) -> None:
            progress.advance(task, requests)

        completed = 0
        rows = _in_processes(cells, jobs) if jobs > 1 else (cell.row(advance) for cell in cells)
        for row in rows:
            done(row)
            completed += row["requests"]
            progress.update(task, completed=completed)


def _in_processes(cells: Sequence[Cell], jobs: int) -> Iterable[Row]:
    with ProcessPoolExecutor(jobs) as pool:
        # The long ones first, so that none is left alone at the end.
        longest = sorted(cells, key=lambda cell: -cell.case.requests)
        for future in as_completed([pool.submit(cell.row) for cell in longest]):
            yield future.result()

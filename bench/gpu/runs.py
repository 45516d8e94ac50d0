"""One policy under one load, once, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu.figures import Row, latency_figures, step_figures
from gpu.load import Clients
from gpu.servers import internal_state
from gpu.systems import System
from gpu.workload import Drawn, Pool


@dataclass(frozen=True)
class Run:
    """One policy under one load, once; those of a turn get the same requests."""

    turn: int
    load: str
    policy: str

    @property
    def label(self) -> str:
        """Begin the ids of its requests."""
        return f"{self.load}.{self.turn}.{self.policy}"


def run_of(row: Row) -> Run:
    """Return the run that a row is of."""
    return Run(row["round"], row["load"], row["policy"])


def measure(
    system: System,
    clients: Clients,
    run: Run,
    drawn: Drawn,
    pool: Pool,
    texts: Sequence[str],
) -> Row:
    """Send the requests of one run, and return its row."""
    errors: list[float] = []

    def meanwhile() -> None:
        if system.service is not None:
            errors.extend(estimate_errors(system, run.label, pool))

    before = internal_state(system.server)  # begins what the tap tells next time
    timings = clients.run(system.server.base_url, run.label, drawn.jobs, texts, meanwhile=meanwhile)
    after = internal_state(system.server)

    def counted(name: str) -> int:
        laps, then = (state.get("laps") or {} for state in (after, before))
        return int(laps.get(name, 0)) - int(then.get(name, 0))

    return {
        "round": run.turn,
        "load": run.load,
        "policy": run.policy,
        **latency_figures(pool, drawn, timings),
        **step_figures(after["bench"]),
        "rows_per_round": after["bench"]["rows"]
        / sum(pool.rounds[job.prompt] for job in drawn.jobs),
        "preemptions": counted("pauses"),
        "demotions": counted("demotions"),
        "fallbacks": counted("fallbacks"),
        "estimate_error": round(float(np.median(np.abs(errors))), 4) if errors else None,
    }


def estimate_errors(system: System, label: str, pool: Pool) -> list[float]:
    """Return ln(T~ / true) of the requests of a run that have an estimate now.

    T~ is rounds left times the time of a round; so is the truth, with the rounds of the pool.
    """
    with system.operator() as operator:
        round_s = max((worker.round_s for worker in operator.list_workers()), default=0.0)
        statuses = operator.list_requests()
    errors = []
    for status in statuses:
        if not status.rid.startswith(f"{label}-") or status.remaining_s <= 0:
            continue
        left = pool.rounds[int(status.rid.rpartition("-")[2])] - status.rounds
        if left > 0 and round_s > 0:
            errors.append(float(np.log(status.remaining_s / (left * round_s))))
    return errors

"""What the demo says at its end: a table for people, a JSON file for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from demo.load import Answer
from laps.client import Queue, RequestStatus


@dataclass(frozen=True)
class Run:
    """One policy's run over the load: what the client measured, and what the service saw."""

    answers: Sequence[Answer]
    statuses: Sequence[RequestStatus]
    half_way: Sequence[Queue]
    """The queues when half of the requests had finished."""
    wall_s: float

    def figures(self) -> dict[str, float]:
        """Return latencies in seconds (end to end, at the client) and preemptions."""
        latencies = [answer.latency_s for answer in self.answers]
        return {
            "mean_s": float(np.mean(latencies)),
            "p50_s": float(np.percentile(latencies, 50)),
            "p99_s": float(np.percentile(latencies, 99)),
            "preemptions": sum(status.preemptions for status in self.statuses),
            "wall_s": self.wall_s,
            "tokens": sum(answer.tokens for answer in self.answers),
        }

    def requests(self) -> list[dict[str, float | str]]:
        """Return the raw data, request by request in order of arrival."""
        seen = {status.rid: status for status in self.statuses}
        return [
            {
                "rid": answer.rid,
                "latency_s": answer.latency_s,
                "tokens": answer.tokens,
                "rounds": seen[answer.rid].rounds,
                "accept_length": seen[answer.rid].accept_length,
                "preemptions": seen[answer.rid].preemptions,
            }
            for answer in self.answers
        ]


def summary(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return the demo's figures by policy, and whether the policies gave the same texts."""
    texts = [[answer.text for answer in run.answers] for run in runs.values()]
    accepted = [s.accept_length for run in runs.values() for s in run.statuses if s.rounds]
    return {
        "policies": {name: run.figures() for name, run in runs.items()},
        "outputs_identical": all(text == texts[0] for text in texts),
        "accept_length_min": min(accepted, default=0.0),
        "accept_length_max": max(accepted, default=0.0),
        "requests": {name: run.requests() for name, run in runs.items()},
    }


def latency_table(figures: Mapping[str, Any]) -> Table:
    """Return the comparison, with the first policy as the yardstick."""
    table = Table(title="End-to-end latency of the same requests")
    table.add_column("policy")
    for heading in ("mean (s)", "P50 (s)", "P99 (s)", "mean, against FCFS", "preemptions"):
        table.add_column(heading, justify="right")
    yardstick = figures["policies"]["fcfs"]["mean_s"]
    for name, row in figures["policies"].items():
        table.add_row(
            name,
            *(f"{row[key]:.2f}" for key in ("mean_s", "p50_s", "p99_s")),
            f"{row['mean_s'] / yardstick - 1:+.0%}",
            str(row["preemptions"]),
        )
    same = "identical" if figures["outputs_identical"] else "DIFFERENT"
    table.caption = (
        f"Outputs of the policies: {same}. Mean accept length of a request, bonus token included: "
        f"{figures['accept_length_min']:.2f} to {figures['accept_length_max']:.2f}."
    )
    return table


def queue_table(run: Run) -> Table:
    """Return the queues as an operator saw them half way."""
    table = Table(title="The queues under LAPS-SD when half of the requests had finished")
    table.add_column("queue")
    for heading in ("running", "paused", "waiting"):
        table.add_column(heading, justify="right")
    table.add_column("best first", overflow="fold")
    for queue in run.half_way:
        counts = (str(count) for count in (queue.running, queue.paused, queue.waiting))
        table.add_row(queue.name, *counts, " ".join(queue.rids))
    return table


def write(figures: Mapping[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")

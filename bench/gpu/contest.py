"""Policies in turns under the same load, run by run, each a line as soon as it is done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from gpu.figures import Row, latency_figures, step_figures
from gpu.load import Clients, Job
from gpu.names import ORACLE, STOCK, STOCK_PRIORITY
from gpu.servers import MeasurementError, internal_state, note_machine
from gpu.shapes import SHAPES
from gpu.systems import SLOTS, System, running_systems, system_of
from gpu.workload import LOADS, Pool, draw, load_pool
from laps.policies.registry import build_policy
from sim.simulate import parse_policy

Item = TypeVar("Item")

ROUNDS = 3
SECONDS = 40.0
RUNNING = 16
WARM_UP_S = 20.0
"""Arrivals of the warm-up; it is no longer than a run."""
WARM_UP_LOAD = "1.1"


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


def add_arguments(parser: argparse.ArgumentParser, policies: Sequence[str]) -> None:
    """Add what a contest asks for."""
    parser.add_argument(
        "--policies",
        type=policy_names,
        default=list(policies),
        help="NAME or NAME:PARAMETER=VALUE, by comma",
    )
    parser.add_argument(
        "--loads", type=load_names, default=list(LOADS), help=f"of {', '.join(LOADS)}, by comma"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each policy and load")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="arrivals of one run")
    parser.add_argument("--running", type=int, default=RUNNING, help="most requests in a step")
    parser.add_argument("--shape", choices=SHAPES, default="tree", help="form of the draft")


def load_names(text: str) -> list[str]:
    """Return the loads of a list by comma; raise ArgumentTypeError before any server starts."""
    names = text.split(",")
    if unknown := [name for name in names if name not in LOADS]:
        raise argparse.ArgumentTypeError(f"no load {', '.join(unknown)}")
    return names


def policy_names(text: str) -> list[str]:
    """Return the policies of a list by comma; errors as for `load_names`."""
    names = text.split(",")
    for name in names:
        try:
            if name not in (STOCK, STOCK_PRIORITY, ORACLE):
                build_policy(parse_policy(name))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return names


def shorten(options: argparse.Namespace) -> None:
    """Make a contest as small as one can be, if that is wanted."""
    if options.short:
        options.rounds, options.seconds, options.running = 2, 4.0, 2
        options.loads = options.loads[:2]


def contest(
    options: argparse.Namespace,
    name: str,
    texts: Sequence[str],
    environment: Mapping[str, str],
    make_pool: Callable[[System, Clients], Pool],
) -> None:
    """Run what is missing in OUT/NAME.jsonl; make OUT/NAME-pool.json before, if it is missing.

    Rounds outermost, then loads, then policies: what is cut short is balanced.
    """
    path, pool_path = options.out / f"{name}.jsonl", options.out / f"{name}-pool.json"
    rows = read_rows(path)
    refuse_other_lengths(rows, options.loads, options.seconds)
    done = {(row["round"], row["load"], row["policy"]) for row in rows}
    wanted = [
        (turn, load, policy)
        for turn in range(1, options.rounds + 1)
        for load in options.loads
        for policy in in_turn(options.policies, turn)
    ]
    missing = [Run(*run) for run in wanted if run not in done]
    if not missing and pool_path.exists():
        return
    note_machine(options, name)
    policies = [run.policy for run in missing]
    with (
        Clients() as clients,
        running_systems(options, name, policies, environment) as systems,
    ):
        if not pool_path.exists():
            make_pool(systems[STOCK], clients).save(pool_path)
        pool = load_pool(pool_path, texts, options.running)
        warm_up(systems, clients, pool, texts, options)
        for number, run in enumerate(missing, start=1):
            system = systems[system_of(run.policy)]
            system.prepare(run.policy, pool_path)
            jobs = draw(pool, run.load, run.turn, options.seconds)
            row = measure(system, clients, run, jobs, pool, texts)
            row |= {
                "running": options.running,
                "resident": SLOTS * options.running,
                "seconds": options.seconds,
            }
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number}/{len(missing)} {run.label}: {row['mean_s']} s", flush=True)


def in_turn(items: Sequence[Item], turn: int) -> list[Item]:
    """Return `items` as they are in turn 1, and with another one first in each turn after it.

    So nobody is always first, when a host or a cache may still be cold.
    """
    first = (turn - 1) % len(items)
    return [*items[first:], *items[:first]]


def refuse_other_lengths(rows: Sequence[Row], loads: Sequence[str], seconds: float) -> None:
    """Raise MeasurementError if there are runs of `loads` longer or shorter than `seconds`.

    Queues near capacity are the longer, the longer the run: no median is of both.
    """
    for row in rows:
        if row["load"] in loads and row["seconds"] != seconds:
            raise MeasurementError(
                f"there are runs of {row['seconds']:g} s at load {row['load']}, and these would "
                f"take {seconds:g} s: give --seconds {row['seconds']:g}, or another --out"
            )


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warm_up(
    systems: Mapping[str, System],
    clients: Clients,
    pool: Pool,
    texts: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Overload each system for a while, unmeasured: new shapes of batches compile kernels.

    Under the service many requests pause meanwhile, and what finishes teaches its predictors.
    """
    jobs = draw(pool, WARM_UP_LOAD, 0, min(WARM_UP_S, options.seconds))
    for label, system in systems.items():
        clients.run(system.server.base_url, f"warm-up.{label}", jobs, texts)


def measure(
    system: System,
    clients: Clients,
    run: Run,
    jobs: Sequence[Job],
    pool: Pool,
    texts: Sequence[str],
) -> Row:
    """Send the requests of one run, and return its row."""
    errors: list[float] = []

    def meanwhile() -> None:
        if system.service is not None:
            errors.extend(estimate_errors(system, run.label, pool))

    before = internal_state(system.server)  # begins what the tap tells next time
    timings = clients.run(system.server.base_url, run.label, jobs, texts, meanwhile=meanwhile)
    after = internal_state(system.server)

    def counted(name: str) -> int:
        laps, then = (state.get("laps") or {} for state in (after, before))
        return int(laps.get(name, 0)) - int(then.get(name, 0))

    return {
        "round": run.turn,
        "load": run.load,
        "policy": run.policy,
        **latency_figures(pool, jobs, timings),
        **step_figures(after["bench"]),
        "rows_per_round": after["bench"]["rows"] / sum(pool.rounds[job.prompt] for job in jobs),
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

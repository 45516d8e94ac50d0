"""Policies in turns under the same load, each run a line as soon as it is done.

With several GPUs as many policies run at the same time: what the host does to one of them it does,
more or less, to all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch.cuda import device_count

from gpu.figures import Row
from gpu.lanes import Lane, started_lanes
from gpu.load import Clients
from gpu.names import ORACLE, STOCK, STOCK_PRIORITY
from gpu.runs import Run, measure
from gpu.servers import GPU, MeasurementError, note_machine
from gpu.shapes import SHAPES
from gpu.systems import SLOTS, System, system_of
from gpu.workload import LOADS, Pool, draw, load_pool
from laps.policies.registry import build_policy
from sim.simulate import parse_policy

Item = TypeVar("Item")

ROUNDS = 3
SECONDS = 40.0
RUNNING = 16
MOST_GPUS = 64
WARM_UP_S = 20.0
"""Arrivals of the warm-up; it is no longer than a run."""
WARM_UP_LOAD = "1.1"


def add_arguments(parser: argparse.ArgumentParser, policies: Sequence[str]) -> None:
    """Add what a contest asks for."""
    parser.add_argument(
        "--policies",
        type=policy_names,
        default=list(policies),
        help="NAME or NAME:PARAMETER=VALUE, by comma",
    )
    parser.add_argument(
        "--loads",
        type=load_lengths,
        default=dict.fromkeys(LOADS, SECONDS),
        help=f"LOAD or LOAD:SECONDS (arrivals of one run; {SECONDS:g}), of {', '.join(LOADS)}",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each policy and load")
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        choices=range(1, MOST_GPUS + 1),
        metavar="N",
        help="policies that run at the same time, each on a GPU of its own",
    )
    parser.add_argument("--running", type=int, default=RUNNING, help="most requests in a step")
    parser.add_argument("--shape", choices=SHAPES, default="tree", help="form of the draft")


def load_lengths(text: str) -> dict[str, float]:
    """Return seconds by load, of a list by comma; raise ArgumentTypeError before a server starts.

    Raises ValueError if what should be seconds is no number.
    """
    parts = [part.partition(":") for part in text.split(",")]
    if unknown := [load for load, _, _ in parts if load not in LOADS]:
        raise argparse.ArgumentTypeError(f"no load {', '.join(unknown)}")
    return {load: float(seconds) if seconds else SECONDS for load, _, seconds in parts}


def policy_names(text: str) -> list[str]:
    """Return the policies of a list by comma; errors as for `load_lengths`."""
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
        options.rounds, options.running = 2, 2
        options.loads = dict.fromkeys(list(options.loads)[:2], 4.0)


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
    refuse_other_lengths(rows, options.loads)
    done = {Run(row["round"], row["load"], row["policy"]) for row in rows}
    batches = [
        {number: run for number, run in enumerate(batch) if run not in done}
        for batch in schedule(options.rounds, options.loads, options.policies, options.gpus)
    ]
    if not any(batches) and pool_path.exists():
        return
    if GPU and options.gpus > device_count():
        raise MeasurementError(f"--gpus {options.gpus}: this machine has {device_count()}")
    note_machine(options, name)
    policies = [
        {batch[number].policy for batch in batches if number in batch}
        for number in range(options.gpus)
    ]
    if not pool_path.exists():
        policies[0].add(STOCK)
    with started_lanes(options, name, policies, environment) as lanes:
        if not pool_path.exists():
            stock = lanes[0].systems[STOCK]
            lanes[0].submit(make_pool, stock, lanes[0].clients).result().save(pool_path)
        pool = load_pool(pool_path, texts, options.running)
        seconds = min(WARM_UP_S, *options.loads.values())
        for warm in [lane.submit(warm_up, lane, pool, texts, seconds) for lane in lanes]:
            warm.result()

        def measured(lane: Lane, run: Run) -> Row:
            system = lane.systems[system_of(run.policy)]
            system.prepare(run.policy, pool_path)
            jobs = draw(pool, run.load, run.turn, options.loads[run.load])
            return measure(system, lane.clients, run, jobs, pool, texts)

        for batch in batches:
            begun = [
                (number, run, lanes[number].submit(measured, lanes[number], run))
                for number, run in batch.items()
            ]
            for number, run, row in begun:
                said = row.result() | {
                    "running": options.running,
                    "resident": SLOTS * options.running,
                    "seconds": options.loads[run.load],
                    "lane": number,
                }
                with path.open("a") as file:
                    file.write(json.dumps(said) + "\n")
                print(f"{run.label}: {said['mean_s']} s", flush=True)


def schedule(
    rounds: int, loads: Iterable[str], policies: Sequence[str], lanes: int
) -> Iterator[list[Run]]:
    """Return what is run at the same time, one after the other: each on the lane of its place."""
    for turn in range(1, rounds + 1):
        for load in loads:
            runs = [Run(turn, load, policy) for policy in in_turn(policies, turn)]
            for first in range(0, len(runs), lanes):
                yield runs[first : first + lanes]


def in_turn(items: Sequence[Item], turn: int) -> list[Item]:
    """Return `items` as they are in turn 1, and with another one first in each turn after it.

    So nobody is always first, when a host or a cache may still be cold.
    """
    first = (turn - 1) % len(items)
    return [*items[first:], *items[:first]]


def refuse_other_lengths(rows: Sequence[Row], loads: Mapping[str, float]) -> None:
    """Raise MeasurementError if there are runs of `loads` longer or shorter than these say.

    Queues near capacity are the longer, the longer the run: no median is of both.
    """
    for row in rows:
        load, seconds = row["load"], row["seconds"]
        if load in loads and seconds != loads[load]:
            raise MeasurementError(
                f"there are runs of {seconds:g} s at load {load}, and these would take "
                f"{loads[load]:g} s: give --loads {load}:{seconds:g}, or another --out"
            )


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warm_up(lane: Lane, pool: Pool, texts: Sequence[str], seconds: float) -> None:
    """Overload each system for a while, unmeasured: new shapes of batches compile kernels.

    Under the service many requests pause meanwhile, and what finishes teaches its predictors.
    """
    jobs = draw(pool, WARM_UP_LOAD, 0, seconds)
    for label, system in lane.systems.items():
        lane.clients.run(system.server.base_url, f"warm-up.{label}", jobs, texts)

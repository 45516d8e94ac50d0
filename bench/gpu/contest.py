"""Policies in turns under the same load, each run a line as soon as it is done.

With several GPUs as many policies run at the same time: what the host does to one of them it does,
more or less, to all.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from torch.cuda import device_count

from gpu.drawn import Key, Requests, requests_path
from gpu.figures import Row
from gpu.lanes import Lane, all_of, started_lanes
from gpu.load import Clients
from gpu.names import ORACLE, STOCK, STOCK_PRIORITY
from gpu.runs import Run, measure, run_of
from gpu.servers import GPU, MeasurementError, internal_state, note_machine, refuse_others
from gpu.shapes import SHAPES
from gpu.systems import SLOTS, System, system_of
from gpu.workload import LOADS, Drawn, Pool, draw, load_pool, pool_path
from laps.policies.registry import build_policy
from sim.simulate import parse_policy

Item = TypeVar("Item")

ROUNDS = 3
SECONDS = 40.0
RUNNING = 16
MOST_GPUS = 64
"""More than one host has."""
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
    add_gpus(parser)
    parser.add_argument("--running", type=int, default=RUNNING, help="most requests in a step")
    parser.add_argument("--shape", choices=SHAPES, default="tree", help="form of the draft")


def add_gpus(parser: argparse.ArgumentParser) -> None:
    """Add how much is run at the same time."""
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        choices=range(1, MOST_GPUS + 1),
        metavar="N",
        help="policies that are compared at the same time, each on a GPU of its own",
    )


def load_lengths(text: str) -> dict[str, float]:
    """Return seconds by load, of a list by comma; raise ArgumentTypeError before a server starts.

    Raises ValueError if what should be seconds is no number.
    """
    lengths: dict[str, float] = {}
    for load, colon, seconds in (part.partition(":") for part in text.split(",")):
        if load not in LOADS:
            raise argparse.ArgumentTypeError(f"no load {load}: there are {', '.join(LOADS)}")
        if load in lengths:
            raise argparse.ArgumentTypeError(f"load {load} is there twice")
        lengths[load] = float(seconds) if colon else SECONDS
        if not 0.0 < lengths[load] < math.inf:
            raise argparse.ArgumentTypeError(f"load {load} for {seconds} s: give more than 0")
    return lengths


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
        wanted = list(options.loads)
        # Of all loads the first and the last: runs under bursts, the second, begin with many.
        options.loads = dict.fromkeys((wanted[0], wanted[-1]), 4.0)


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
    path, pool_file = options.out / f"{name}.jsonl", pool_path(options.out, name)
    gpus = min(options.gpus, len(options.policies))
    rows = read_rows(path)
    if rows:
        refuse_others(options, name)
    refuse_other_ways(rows, options.loads, gpus)
    done = {run_of(row) for row in rows}
    batches = [
        (key, missing)
        for key, batch in schedule(options.rounds, options.loads, options.policies, gpus)
        if (missing := {number: run for number, run in batch.items() if run not in done})
    ]
    if not batches and pool_file.exists():
        return
    if GPU and gpus > device_count():
        raise MeasurementError(f"--gpus {gpus}: this machine has {device_count()}")
    note_machine(options, name)
    policies = [
        {batch[number].policy for _, batch in batches if number in batch} for number in range(gpus)
    ]
    if not pool_file.exists():
        policies = [{STOCK, *wanted} for wanted in policies]
    with started_lanes(options, name, policies, environment) as lanes:
        if not pool_file.exists():
            # On all of them at once, as what is measured after it.
            pools = [lane.submit(make_pool, lane.systems[STOCK], lane.clients) for lane in lanes]
            all_of(pools)[0].save(pool_file)
        pool = load_pool(pool_file, texts, options.running)
        longest = max(options.loads.values())
        all_of([lane.submit(warm_up, lane, pool, texts, min(WARM_UP_S, longest)) for lane in lanes])

        def measured(lane: Lane, run: Run, drawn: Drawn, seconds: float) -> Row:
            system = lane.systems[system_of(run.policy)]
            system.prepare(run.policy, pool_file)
            return {
                **measure(system, lane.clients, run, drawn, pool, texts),
                "running": options.running,
                "resident": SLOTS * options.running,
                "seconds": seconds,
                "gpus": gpus,
            }

        begun_with = {(run.turn, run.load) for run in done}
        requests = Requests(requests_path(options.out, name), pool, begun_with)
        for (turn, load), batch in batches:
            seconds = options.loads[load]
            drawn = requests.of(turn, load, seconds)
            begun = [
                lanes[number].submit(measured, lanes[number], run, drawn, seconds)
                for number, run in batch.items()
            ]
            for ended in as_completed(begun):
                if ended.exception() is None:  # what the others found is kept in any case
                    keep(ended.result(), path)
            all_of(begun)


def keep(row: Row, path: Path) -> None:
    """Add a row to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{run_of(row).label}: {row['mean_s']} s", flush=True)


def schedule(
    rounds: int, loads: Iterable[str], policies: Sequence[str], lanes: int
) -> Iterator[tuple[Key, dict[int, Run]]]:
    """Return what is run at the same time, one after the other: round, load, and runs by lane.

    In every round each policy has another lane than in the one before.
    """
    for turn in range(1, rounds + 1):
        order = in_turn([*enumerate(policies)], turn)
        for load in loads:
            of_lanes: list[list[Run]] = [[] for _ in range(lanes)]
            for place, policy in order:
                of_lanes[(place + turn - 1) % lanes].append(Run(turn, load, policy))
            for at_once in zip_longest(*of_lanes):
                yield (turn, load), {lane: run for lane, run in enumerate(at_once) if run}


def in_turn(items: Sequence[Item], turn: int) -> list[Item]:
    """Return `items` as they are in turn 1; another one is first in each turn after it.

    Every second turn goes backwards. So nobody is always first, when a host or a cache may still be
    cold, or always after the same one, when the host is still in the state that this one left.
    """
    step = 1 if turn % 2 else -1
    return [items[(turn - 1 + step * place) % len(items)] for place in range(len(items))]


def refuse_other_ways(rows: Sequence[Row], loads: Mapping[str, float], gpus: int) -> None:
    """Raise MeasurementError if there are runs of `loads` that were run in another way than these.

    Queues near capacity are the longer, the longer the run, and what runs beside others is slower:
    no median is of both.
    """
    for row in rows:
        load, seconds, beside = row["load"], row["seconds"], row.get("gpus", 1)
        if load not in loads:
            continue
        if seconds != loads[load]:
            raise MeasurementError(
                f"there are runs of {seconds:g} s at load {load}, and these would take "
                f"{loads[load]:g} s: give --loads {load}:{seconds:g}, or another --out"
            )
        if beside != gpus:
            raise MeasurementError(
                f"there are runs of {beside} policies at the same time, and these would be of "
                f"{gpus}: give --gpus {beside}, or another --out"
            )


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warm_up(lane: Lane, pool: Pool, texts: Sequence[str], seconds: float) -> None:
    """Overload each system for a while, unmeasured: new shapes of batches compile kernels.

    Under the service many requests pause meanwhile, and what finishes teaches its predictors.
    """
    jobs = draw(pool, WARM_UP_LOAD, 0, seconds).jobs
    for label, system in lane.systems.items():
        lane.clients.run(system.server.base_url, f"warm-up.{label}", jobs, texts)
        metered = internal_state(system.server)["bench"]["hooks_s"] > 0.0
        if metered != (system.service is not None):
            raise MeasurementError(
                f"{label}: hooks of the plugin are not metered as they should be"
            )

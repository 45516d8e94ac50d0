"""What the plugin costs: throughput and step time, against stock SGLang that does the same work.

    python -m gpu.throughput --model MODEL --draft HEAD --prompts A.jsonl --out DIR

Three servers are up: stock, patched with the engine embedded, and patched under `laps serve`; both
under `fcfs` with the same cap as stock, so that they do the same work and pay for reports and
plans, and with more slots, as a patched server should have. The load goes to one after the other,
in turns. Two measures: output tokens per second when all have more than they can do, with the time
of a full step, and the time of a step with fewer requests running. Each is a line in
DIR/throughput.jsonl, written when it is done; what is there is not run again. With --large it is
the model of `gpu.large`, without the embedded engine (two such models fill a GPU of 80 GB), and
DIR/throughput-large.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from gpu.contest import in_turn, read_rows
from gpu.figures import Row, prefill_figures, steps_at
from gpu.large import enlarge, recording
from gpu.load import Clients
from gpu.names import EMBEDDED, MODES, REMOTE, STOCK
from gpu.prompts import Prompt, read_prompts, send_closed
from gpu.servers import (
    MeasurementError,
    arguments,
    internal_state,
    note_machine,
    refuse_others,
    server,
    tapped,
)
from gpu.systems import PLAN_TTL, SLOTS, wait_for_service
from gpu.workload import all_at_once
from laps.client import SyncLapsClient
from testbed.launch import SglangServer
from testbed.service import LapsService

TURNS = 8
RUNNING = 48
CLIENTS = 64
REQUESTS = 256
MAX_TOKENS = 256
STEPS_AT = 16
"""Requests at once when steps of a batch that is not full are timed."""
STEP_TOKENS = 512
WAVES = 3
"""Requests for each that runs, when those steps are timed."""
SEED = 0


def main() -> None:
    parser = arguments("gpu.throughput", __doc__)
    parser.add_argument("--large", action="store_true", help="the model of gpu.large")
    parser.add_argument("--turns", type=int, default=TURNS, help="times that each is measured")
    options = parser.parse_args()
    if not options.large:
        measure(options, "throughput", MODES, tapped())
        return
    with tempfile.TemporaryDirectory() as scratch:
        enlarge(options, Path(scratch))
        measure(options, "throughput-large", (STOCK, REMOTE), tapped(recording("tree")))


def measure(
    options: argparse.Namespace, name: str, modes: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Measure what is missing in OUT/NAME.jsonl."""
    path = options.out / f"{name}.jsonl"
    turns, size = (1, 4) if options.short else (options.turns, STEPS_AT)
    measures = [("throughput", RUNNING), ("steps", size)]
    rows = read_rows(path)
    if rows:
        refuse_others(options, name)
    refuse_other_slots(rows)
    done = {(row["turn"], row["measure"], row["running"], row["mode"]) for row in rows}
    missing = [
        (turn, measure, running, mode)
        for turn in range(1, turns + 1)
        for measure, running in measures
        for mode in in_turn(modes, turn)
        if (turn, measure, running, mode) not in done
    ]
    if not missing:
        return
    note_machine(options, name)
    prompts = read_prompts(options.prompts, SEED)[: 8 if options.short else REQUESTS]
    with Clients() as clients, ExitStack() as stack:
        service = stack.enter_context(
            LapsService(
                *("--policy", "fcfs", *PLAN_TTL),
                log_path=options.out / "logs" / f"{name}-service.log",
            )
        )
        servers = start(options, name, modes, environment, service, stack)
        for mode, process in servers.items():
            saturated(process, prompts, f"warm-up {mode}", options.short)
            step_times(process, clients, prompts, size, f"warm-up {mode}", options.short)
        for turn, measure, running, mode in missing:
            process = servers[mode]
            label = f"{measure} {running} {mode} {turn}"
            row: Row = {"measure": measure, "running": running, "mode": mode, "turn": turn}
            row["resident"] = resident_of(mode)
            if measure == "throughput":
                row |= saturated(process, prompts, label, options.short)
            else:
                row |= step_times(process, clients, prompts, running, label, options.short)
            if mode == REMOTE:
                with SyncLapsClient(service.address) as operator:
                    row["fresh_share"] = operator.list_workers()[0].fresh_share
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def resident_of(mode: str) -> int:
    """Return how many requests may be resident: in stock SGLang all of them run."""
    return RUNNING if mode == STOCK else SLOTS * RUNNING


def refuse_other_slots(rows: Sequence[Row]) -> None:
    """Raise MeasurementError if some of `rows` are of servers with other slots than they get now.

    Those with slots to spare prefill some ahead of their turn: no median is of both.
    """
    for row in rows:
        if row["resident"] != (slots := resident_of(row["mode"])):
            raise MeasurementError(
                f"there are rows of {row['mode']!r} with {row['resident']} slots, and now it has "
                f"{slots}: remove them, or use another --out"
            )


def start(
    options: argparse.Namespace,
    name: str,
    modes: Sequence[str],
    environment: Mapping[str, str],
    service: LapsService,
    stack: ExitStack,
) -> dict[str, SglangServer]:
    """Start the servers of `modes` at once; they are stopped with `stack`."""
    cap = ("--laps-max-running", str(RUNNING))
    flags: dict[str, tuple[str, ...]] = {
        STOCK: (),
        EMBEDDED: (*cap, "--laps-embedded", "--laps-policy", "fcfs"),
        REMOTE: (*cap, "--laps-endpoint", service.address),
    }
    servers = {
        mode: server(
            options,
            "tree",
            f"{name}-{mode}",
            *("--max-running-requests", str(resident_of(mode))),
            *flags[mode],
            environment=environment,
        )
        for mode in modes
    }
    for process in servers.values():
        stack.callback(process.stop)
        process.start()
    for process in servers.values():
        process.wait_until_ready()
    wait_for_service(servers[REMOTE])
    return servers


def saturated(process: SglangServer, prompts: Sequence[Prompt], label: str, short: bool) -> Row:
    """Run the saturating load; return output tokens per second, full steps, and prefills."""
    internal_state(process)  # begins what the tap tells next time
    begin = time.perf_counter()
    longest = 16 if short else MAX_TOKENS
    replies = asyncio.run(send_closed(process.base_url, prompts, label, CLIENTS, longest))
    rate = sum(r.completion_tokens for r in replies) / (time.perf_counter() - begin)
    full = len(prompts) if short else RUNNING
    bench = internal_state(process)["bench"]
    return {"tokens_per_s": round(rate, 1), **steps_at(bench, full), **prefill_figures(bench)}


def step_times(
    process: SglangServer,
    clients: Clients,
    prompts: Sequence[Prompt],
    running: int,
    label: str,
    short: bool,
) -> Row:
    """Have `running` requests decode together; return the times of the steps that had them all."""
    count = WAVES * running
    texts = [prompts[index % len(prompts)].text for index in range(count)]
    jobs = all_at_once(range(count), [32 if short else STEP_TOKENS] * count)
    internal_state(process)  # begins what the tap tells next time
    clients.run(process.base_url, label, jobs, texts, clients=running)
    return steps_at(internal_state(process)["bench"], running)


if __name__ == "__main__":
    main()

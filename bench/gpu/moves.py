"""What a pause costs: the time of a round, by how many rows of the batch change with each.

    python -m gpu.moves --model MODEL --draft HEAD --prompts A.jsonl --out DIR

Twice as many requests are resident as run, all of one length. A service that is no policy (but a
real worker link) has so many of those that run change places with those that are paused after each
report. Each number of swaps is a line in DIR/moves.jsonl, written when it is done; what is there is
not run again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpu.contest import in_turn, read_rows
from gpu.figures import Row
from gpu.load import Clients
from gpu.prompts import read_prompts
from gpu.servers import arguments, internal_state, note_machine, refuse_others, server, tapped
from gpu.workload import all_at_once
from laps import wire
from laps.v1 import worker_pb2, worker_pb2_grpc
from testbed.worker_link import serving

RUNNING = 16
SWAPS = (0, 1, 2, 4, 8)
"""Requests that pause after each report, and as many that resume."""
TOKENS = 1024
TURNS = 3
SEED = 0
PLAN_TTL_S = 60.0


class FakeRotatingService(worker_pb2_grpc.WorkerLinkServicer):
    """Orders requests in a ring, and turns it by `swaps` places after each report of a round."""

    def __init__(self) -> None:
        self.swaps = 0

    def Attach(self, request_iterator: Any, context: Any) -> Iterator[worker_pb2.ServiceMessage]:  # noqa: N802
        ring: deque[int] = deque()
        for seq, message in enumerate(request_iterator, start=1):
            if message.WhichOneof("body") == "hello":
                welcome = worker_pb2.Welcome(plan_ttl_s=PLAN_TTL_S, protocol=wire.PROTOCOL)
                yield worker_pb2.ServiceMessage(welcome=welcome)
                arrived, gone, step = message.hello.requests, set(), message.hello.step
                ring.clear()
            else:
                report = message.report
                arrived, gone, step = (
                    report.arrived,
                    {*report.finished, *report.aborted},
                    report.step,
                )
                if report.decoded:
                    ring.rotate(-self.swaps)
            ring.extend(request.handle for request in arrived)
            ring = deque(handle for handle in ring if handle not in gone)
            plan = worker_pb2.Plan(seq=seq, step=step, order=ring, horizon=max(ring, default=0))
            yield worker_pb2.ServiceMessage(plan=plan)


def main() -> None:
    options = arguments("gpu.moves", __doc__).parse_args()
    path = options.out / "moves.jsonl"
    turns, most, tokens, running = (1, 2, 48, 2) if options.short else (TURNS, 99, TOKENS, RUNNING)
    done = {(row["turn"], row["swaps"]) for row in read_rows(path)}
    if done:
        refuse_others(options, "moves")
    missing = [
        (turn, swaps)
        for turn in range(1, turns + 1)
        for swaps in in_turn(SWAPS, turn)
        if swaps <= most and (turn, swaps) not in done
    ]
    if not missing:
        return
    note_machine(options, "moves")
    prompts = read_prompts(options.prompts, SEED)
    texts = [prompts[index % len(prompts)].text for index in range(2 * running)]
    service = FakeRotatingService()
    with serving(service) as address, Clients() as clients:
        laps = ("--laps-endpoint", address, "--laps-max-running", str(running))
        slots = ("--max-running-requests", str(len(texts)))
        with server(options, "tree", "moves", *laps, *slots, environment=tapped()) as process:

            def measure(label: str, swaps: int) -> Row:
                service.swaps = swaps
                before = internal_state(process)["laps"]
                jobs = all_at_once(range(len(texts)), [tokens] * len(texts))
                clients.run(process.base_url, label, jobs, texts)
                after = internal_state(process)
                steps = [time_us for rows, time_us, _ in after["bench"]["steps"] if rows == running]
                return {
                    "swaps": swaps,
                    "running": running,
                    "rounds": len(steps),
                    "pauses": after["laps"]["pauses"] - before["pauses"],
                    "mean_s": float(np.mean(steps)) / 1e6,
                    "p50_s": float(np.percentile(steps, 50)) / 1e6,
                    "p99_s": float(np.percentile(steps, 99)) / 1e6,
                }

            for swaps in dict.fromkeys(swaps for _, swaps in missing):
                measure(f"warm-up {swaps}", swaps)
            for turn, swaps in missing:
                row = {"turn": turn, **measure(f"{turn} {swaps}", swaps)}
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

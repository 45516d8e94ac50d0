"""Compare the throughput of a patched server with stock SGLang's when both have all they can do.

    python -m gpu.throughput --model MODEL --draft HEAD --prompts A.jsonl --out DIR

Both servers are up; the load goes to one and the other in turn, ROUNDS times. The patched one is
under `laps serve --policy fcfs` with the same cap as stock SGLang, so that it does the same work
and pays for reports and plans. Writes DIR/throughput.json: output tokens per second of each run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from contextlib import ExitStack

from gpu.prompts import Prompt, read_prompts, send_closed
from gpu.servers import arguments, server
from testbed.launch import SglangServer
from testbed.service import LapsService

ROUNDS = 4
RUNNING = 48
CLIENTS = 64
REQUESTS = 512
MAX_TOKENS = 256
SEED = 0


def main() -> None:
    options = arguments("gpu.throughput", __doc__).parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    prompts = read_prompts(options.prompts, SEED)[:REQUESTS]
    runs: dict[str, list[float]] = {"stock": [], "patched": []}
    with ExitStack() as stack:
        service = stack.enter_context(
            LapsService("--policy", "fcfs", log_path=options.out / "laps.log")
        )
        cap = ("--max-running-requests", str(RUNNING))
        servers = {
            "stock": server(options, "tree", "throughput-stock", *cap),
            "patched": server(
                options, "tree", "throughput-patched", *cap, "--laps-endpoint", service.address
            ),
        }
        for process in servers.values():
            stack.callback(process.stop)
            process.start()
        for process in servers.values():
            process.wait_until_ready()
        for name, process in servers.items():
            tokens_per_s(process, prompts, f"warm-up {name}")
        for turn in range(ROUNDS):
            # The one that goes first changes: whatever drifts meanwhile is shared.
            for name in sorted(servers, reverse=bool(turn % 2)):
                rate = tokens_per_s(servers[name], prompts, f"{name} {turn + 1}")
                runs[name].append(round(rate, 1))
    medians = {name: statistics.median(rates) for name, rates in runs.items()}
    result = {"tokens_per_s": runs, "ratio": medians["patched"] / medians["stock"]}
    path = options.out / "throughput.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), path)


def tokens_per_s(process: SglangServer, prompts: list[Prompt], label: str) -> float:
    """Run the load; return the output tokens per second."""
    begin = time.perf_counter()
    replies = asyncio.run(send_closed(process.base_url, prompts, label, CLIENTS, MAX_TOKENS))
    return sum(r.completion_tokens for r in replies) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()

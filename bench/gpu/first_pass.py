"""What must be known before policies can be compared: lengths, rounds, and what stock can do."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from gpu.figures import capacity_rps
from gpu.load import Clients
from gpu.prompts import Prompt, send_closed
from gpu.servers import flush_cache, internal_state
from gpu.systems import System
from gpu.workload import MAX_TOKENS, Pool, all_at_once, digest

CLIENTS_PER_RUNNING = 4
"""Clients of a saturated server, for each request that runs at once."""
CAPACITY_REQUESTS = 10
"""Requests of the run that measures the capacity, for each that runs at once."""
ALONE = 5
"""Requests that are sent one by one to an idle server."""
LEAST_TOKENS = 2
"""So that every request has a verify round."""
SHORT_TOKENS = 16


def natural_lengths(
    stock: System, prompts: Sequence[Prompt], running: int, short: bool
) -> tuple[list[int], list[int]]:
    """Have stock SGLang answer all prompts; return output lengths and verify rounds, by prompt."""
    longest = SHORT_TOKENS if short else MAX_TOKENS
    clients = CLIENTS_PER_RUNNING * running
    replies = asyncio.run(
        send_closed(stock.server.base_url, prompts, "first-pass", clients, longest)
    )
    lengths = [max(reply.completion_tokens, LEAST_TOKENS) for reply in replies]
    return lengths, [max(reply.rounds, 1) for reply in replies]


def measure_pool(
    stock: System,
    clients: Clients,
    texts: Sequence[str],
    lengths: list[int],
    rounds: list[int],
    running: int,
) -> Pool:
    """Measure stock SGLang with requests of known length: one alone, and all that it can do.

    The saturated run is made twice; the first one, of half as many, warms the server up.
    """
    url = stock.server.base_url
    jobs = all_at_once(range(len(texts)), lengths)[: CAPACITY_REQUESTS * running]
    begin = time.monotonic()
    for turn, some in enumerate((jobs[: len(jobs) // 2], jobs)):
        flush_cache(stock.server)
        internal_state(stock.server)  # begins what the tap tells next time
        clients.run(url, f"capacity.{turn}", some, texts, clients=CLIENTS_PER_RUNNING * running)
    bench = internal_state(stock.server)["bench"]
    # In the overlap loop a request that has finished keeps its place for one round more.
    behind = (bench["rows"] - sum(rounds[job.prompt] for job in jobs)) / len(jobs)
    capacity = capacity_rps(bench, running, statistics.fmean(rounds) + behind)
    print(
        f"capacity: {capacity:.4g} requests/s, {behind:.2f} rounds behind the last "
        f"({time.monotonic() - begin:.0f} s)",
        flush=True,
    )
    alone = [
        (timing.done_s - timing.sent_s, rounds[job.prompt])
        for job in jobs[:ALONE]
        for timing in clients.run(url, "alone", [job], texts)
    ]
    return Pool(
        prompts=digest(texts),
        output_tokens=lengths,
        rounds=rounds,
        alone_s=sum(time_s for time_s, _ in alone) / sum(count for _, count in alone),
        capacity_rps=capacity,
        running=running,
    )

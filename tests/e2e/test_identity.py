"""Pausing changes when a token comes and never which: outputs equal stock SGLang's, id by id.

Requests are greedy, weights and KV cache float32, and the order is random at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.fake_random_service import fake_random_service
from e2e.load import Job, Output, ask_all
from e2e.servers import (
    CHAIN,
    EAGLE,
    OVERLAP,
    PLAIN,
    SMOLLM2,
    SYNC,
    TREE,
    Variant,
    assert_clean,
    flush,
    internal_state,
    laps_block,
    sglang,
    until,
)
from e2e.stock import Stock, jobs_of
from testbed.launch import SglangServer

MAX_RUNNING = 4
# The engine tests run every form of draft in both loops; here each form and each loop is seen.
CASES = [
    (PLAIN, (OVERLAP,)),
    (TREE, (SYNC, OVERLAP)),
    (CHAIN, (SYNC,)),
    (EAGLE, (OVERLAP,)),
    (SMOLLM2, (SYNC,)),
]


@pytest.mark.parametrize(("variant", "loops"), CASES, ids=[variant.name for variant, _ in CASES])
def test_outputs_equal_those_of_stock_sglang(
    variant: Variant, loops: Sequence[str], stock: Stock, tmp_path: Path
) -> None:
    load = jobs_of(variant)
    with ExitStack() as stack:
        # All start together and serve together: most of the time is Python importing modules.
        servers = {loop: start_shuffled(variant, loop, tmp_path, stack) for loop in loops}
        with ThreadPoolExecutor() as pool:
            pending = {loop: pool.submit(serve, server, load) for loop, server in servers.items()}
            expected = stock.outputs(variant)
            outputs = {loop: future.result() for loop, future in pending.items()}
        for loop, server in servers.items():
            assert outputs[loop] == expected
            assert_clean(server)
            state = internal_state(server)
            assert state["disable_overlap_schedule"] == (loop == SYNC)
            assert state["laps"]["decided_by"] == "service"
            assert state["laps"]["pauses"] > MAX_RUNNING
    if variant is not SMOLLM2:
        assert {output.finish_reason for output in expected.values()} == {"length", "stop"}


def serve(server: SglangServer, load: Sequence[Job]) -> dict[str, Output]:
    """Run `load` as soon as the server is ready."""
    server.wait_until_ready()
    assert until(lambda: flush(server))
    assert until(lambda: laps_block(server)["decided_by"] == "service")
    return ask_all(server.base_url, load)


def start_shuffled(variant: Variant, loop: str, logs: Path, stack: ExitStack) -> SglangServer:
    """Start a server whose requests run in random order, a few at a time; `stack` stops it."""
    address = stack.enter_context(fake_random_service())
    server = sglang(
        variant,
        logs / f"{loop}.log",
        *("--laps-endpoint", address, "--laps-max-running", str(MAX_RUNNING)),
        loop=loop,
    )
    stack.callback(server.stop)
    server.start()
    return server

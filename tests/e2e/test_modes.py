"""Servers without a service, and servers that must not start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from e2e.load import ask_all
from e2e.servers import OVERLAP, TREE, assert_clean, laps_block, processes, sglang, until
from e2e.stock import Stock, jobs_of
from laps.policies.registry import POLICIES
from testbed.launch import ServerFailedError, SglangServer

Flag = tuple[str, str]

MAX_RUNNING = 4
REFUSALS = {
    ("--schedule-policy", "lpm"): "sglang-laps cannot schedule this server: "
    "--schedule-policy lpm: it reorders what the plan has ordered.",
    ("--laps-max-running", "0"): "sglang-laps refuses to start: --laps-max-running "
    "(SGLANG_LAPS_MAX_RUNNING) must be a whole number of at least 1, not '0'",
    ("--laps-policy", "best"): "sglang-laps refuses to start: "
    f"no policy 'best'; there are: {', '.join(sorted(POLICIES))}",
}


EMBEDDED = ("--laps-max-running", str(MAX_RUNNING))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Flag, SglangServer]]:
    """Servers without a service, by the flag that sets each apart; started together."""
    logs = tmp_path_factory.mktemp("modes")
    with ExitStack() as stack:
        started = {}
        for number, flag in enumerate((EMBEDDED, *REFUSALS)):
            log = logs / f"{number}.log"
            server = sglang(TREE, log, "--laps-embedded", *flag, loop=OVERLAP)
            stack.callback(server.stop)
            server.start()
            started[flag] = server
        yield started


def test_the_embedded_engine_decides_without_a_service(
    servers: dict[Flag, SglangServer], stock: Stock
) -> None:
    server = servers[EMBEDDED]
    server.wait_until_ready()
    assert ask_all(server.base_url, jobs_of(TREE)) == stock.outputs(TREE)
    block = laps_block(server)
    assert (block["mode"], block["policy"]) == ("embedded", "laps-sd")
    assert block["max_running"] == MAX_RUNNING
    assert block["pauses"] > 0
    assert_clean(server)


@pytest.mark.parametrize("flag", REFUSALS, ids=" ".join)
def test_a_server_that_cannot_be_scheduled_does_not_start(
    servers: dict[Flag, SglangServer], flag: Flag
) -> None:
    server = servers[flag]
    group = server.pid
    with pytest.raises(ServerFailedError, match=r"exited \(status -?[1-9]"):
        server.wait_until_ready()
    assert until(lambda: not processes(group))
    log = server.log_path.read_text(errors="replace").splitlines()
    assert sum(line.endswith(REFUSALS[flag]) for line in log) == 1

"""Servers without a service, and servers that must not start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.load import ask_all
from e2e.servers import OVERLAP, PLAIN, TREE, assert_clean, laps_block, processes, sglang, until
from e2e.stock import Stock, jobs_of
from testbed.launch import ServerFailedError, SglangServer

MAX_RUNNING = 4
REFUSALS = {
    ("--schedule-policy", "lpm"): "sglang-laps cannot schedule this server: "
    "--schedule-policy other than fcfs: it reorders what the plan has ordered.",
    ("--laps-max-running", "0"): "sglang-laps refuses to start: --laps-max-running "
    "(SGLANG_LAPS_MAX_RUNNING) must be a whole number of at least 1, not '0'",
    ("--laps-policy", "best"): "sglang-laps refuses to start: "
    "no policy 'best'; there are: fcfs, laps-sd",
}


def test_the_embedded_engine_decides_without_a_service(stock: Stock, tmp_path: Path) -> None:
    flags = ("--laps-embedded", "--laps-max-running", str(MAX_RUNNING))
    with sglang(TREE, tmp_path / "sglang.log", *flags, loop=OVERLAP) as server:
        assert ask_all(server.base_url, jobs_of(TREE)) == stock.outputs(TREE)
        block = laps_block(server)
        assert (block["mode"], block["policy"]) == ("embedded", "laps-sd")
        assert block["max_running"] == MAX_RUNNING
        assert block["pauses"] > 0
        assert_clean(server)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SglangServer]]:
    """Servers that must refuse to start, by the flag at fault; started together."""
    logs = tmp_path_factory.mktemp("refusals")
    with ExitStack() as stack:
        servers = {}
        for flag, value in REFUSALS:
            servers[flag] = sglang(PLAIN, logs / f"{flag}.log", "--laps-embedded", flag, value)
            stack.callback(servers[flag].stop)
            servers[flag].start()
        yield servers


@pytest.mark.parametrize(("flag", "value"), REFUSALS)
def test_a_server_that_cannot_be_scheduled_does_not_start(
    refusing: dict[str, SglangServer], flag: str, value: str
) -> None:
    server = refusing[flag]
    group = server.pid
    with pytest.raises(ServerFailedError, match=r"exited \(status -?[1-9]"):
        server.wait_until_ready()
    assert until(lambda: not processes(group))
    log = server.log_path.read_text(errors="replace").splitlines()
    assert sum(line.endswith(REFUSALS[flag, value]) for line in log) == 1

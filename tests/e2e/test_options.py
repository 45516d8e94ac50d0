"""Whatever options a request carries, it comes out as from stock SGLang, under random plans.

Stock SGLang is asked one thing after the other, the patched server all at once, with slots for a
few only: whoever comes often displaces a paused request, which has to be admitted again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.fake_random_service import fake_random_service
from e2e.kinds import FEW_SLOTS, FLAGS, KINDS, answers
from e2e.servers import EAGLE, OVERLAP, PLAIN, SYNC, flush, laps_blocks, sglang, until
from testbed.launch import SglangServer

PLAIN_SYNC, EAGLE_OVERLAP = "plain-sync", "eagle-overlap"
KINDS_IN = {
    # SGLang refuses beams where it speculates, and has one text for penalties only where nothing
    # else is served (tests/engine/test_penalties.py).
    EAGLE_OVERLAP: [kind for kind in KINDS if kind not in ("beams", "penalties")],
    # Last, for test_parallel.py goes on with its server, which keeps a core busy. SGLang sends
    # the requests of a session to any of its replicas.
    PLAIN_SYNC: [kind for kind in KINDS if kind != "session"],
}
CASES = [
    pytest.param(mode, kind, id=f"{mode}-{kind}")
    for mode, kinds in KINDS_IN.items()
    for kind in kinds
]


@dataclass(frozen=True)
class Answered:
    """What stock SGLang and the patched server answered, by kind; the latter each time that it was
    asked."""

    stock: dict[str, list[Any]]
    patched: list[dict[str, list[Any]]]


@pytest.fixture(scope="module")
def eagle_overlap(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    logs = tmp_path_factory.mktemp(EAGLE_OVERLAP)
    with ExitStack() as stack:
        address = stack.enter_context(fake_random_service())
        laps = ("--laps-endpoint", address, "--laps-max-running", "3", *FEW_SLOTS)
        stock = sglang(EAGLE, logs / "stock.log", *FLAGS, loop=OVERLAP)
        patched = sglang(EAGLE, logs / "patched.log", *FLAGS, *laps, loop=OVERLAP)
        for server in (stock, patched):
            stack.callback(server.stop)
            server.start()
        return ask(EAGLE_OVERLAP, stock, patched)


@pytest.fixture(scope="module")
def plain_sync(tmp_path_factory: pytest.TempPathFactory, replicas: SglangServer) -> Answered:
    log = tmp_path_factory.mktemp(PLAIN_SYNC) / "stock.log"
    with sglang(PLAIN, log, *FLAGS, loop=SYNC) as stock:
        return ask(PLAIN_SYNC, stock, replicas)


def ask(mode: str, stock: SglangServer, patched: SglangServer) -> Answered:
    """Ask both servers everything, the patched one until each replica has paused and demoted."""
    came: list[dict[str, list[Any]]] = []

    def all_moved() -> bool:
        # Where two replicas and their planners share two busy cores, plans are rare.
        assert until(lambda: flush(patched))
        came.append(answers(patched, KINDS_IN[mode], at_once=True))
        blocks = laps_blocks(patched)
        pauses = [int(block["pauses"]) for block in blocks]
        return (
            min(pauses) > 0 and sum(pauses) > 10 and all(block["demotions"] > 0 for block in blocks)
        )

    for server in (stock, patched):
        server.wait_until_ready()
    assert until(lambda: flush(stock))
    with ThreadPoolExecutor() as pool:
        expected = pool.submit(answers, stock, KINDS_IN[mode], at_once=False)
        assert until(all_moved)
        return Answered(expected.result(), came)


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_it_comes_out_as_from_stock_sglang(
    request: pytest.FixtureRequest, mode: str, kind: str
) -> None:
    found: Answered = request.getfixturevalue(mode.replace("-", "_"))
    for answered in found.patched:
        for expected, came in zip(found.stock[kind], answered[kind], strict=True):
            assert [(text, reason) for text, reason, _ in came] == [
                (text, reason) for text, reason, _ in expected
            ]
            for (_, reason, numbers), (*_, others) in zip(expected, came, strict=True):
                assert reason is not None
                assert others == pytest.approx(numbers, abs=1e-3)

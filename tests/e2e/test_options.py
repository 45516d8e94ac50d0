"""Whatever options a request carries, it comes out as from stock SGLang, under random plans.

Stock SGLang is asked one thing after the other, the patched server all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from e2e.fake_random_service import fake_random_service
from e2e.kinds import FLAGS, KINDS, answers
from e2e.servers import EAGLE, OVERLAP, PLAIN, SYNC, flush, laps_blocks, sglang, until

PLAIN_SYNC, EAGLE_OVERLAP = "plain-sync", "eagle-overlap"
KINDS_IN = {
    # SGLang refuses beams where it speculates, and has one text for penalties only where nothing
    # else is served (tests/engine/test_penalties.py).
    EAGLE_OVERLAP: [kind for kind in KINDS if kind not in ("beams", "penalties")],
    # Last, for test_parallel.py goes on with its server, which keeps a core busy.
    PLAIN_SYNC: list(KINDS),
}
CASES = [
    pytest.param(mode, kind, id=f"{mode}-{kind}")
    for mode, kinds in KINDS_IN.items()
    for kind in kinds
]


@dataclass(frozen=True)
class Answered:
    """What stock SGLang and the patched server answered, by kind; and how often the latter paused
    requests, by replica."""

    stock: dict[str, list[Any]]
    patched: dict[str, list[Any]]
    pauses: list[int]


@pytest.fixture(scope="module")
def answered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Answered]:
    """Asks the servers of a mode everything at the first call for it."""

    @cache
    def ask(mode: str) -> Answered:
        logs = tmp_path_factory.mktemp(mode)
        with ExitStack() as stack:
            variant, loop = (PLAIN, SYNC) if mode == PLAIN_SYNC else (EAGLE, OVERLAP)
            stock = sglang(variant, logs / "stock.log", *FLAGS, loop=loop)
            stack.callback(stock.stop)
            stock.start()
            if mode == PLAIN_SYNC:
                patched = request.getfixturevalue("replicas")
            else:
                address = stack.enter_context(fake_random_service())
                laps = ("--laps-endpoint", address, "--laps-max-running", "3")
                patched = stack.enter_context(
                    sglang(variant, logs / "patched.log", *FLAGS, *laps, loop=loop)
                )
            stock.wait_until_ready()
            assert until(lambda: flush(stock) and flush(patched))
            with ThreadPoolExecutor() as pool:
                expected = pool.submit(answers, stock, KINDS_IN[mode], at_once=False)
                came = answers(patched, KINDS_IN[mode], at_once=True)
                pauses = [int(block["pauses"]) for block in laps_blocks(patched)]
                return Answered(expected.result(), came, pauses)

    return ask


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_it_comes_out_as_from_stock_sglang(
    answered: Callable[[str], Answered], mode: str, kind: str
) -> None:
    found = answered(mode)
    for expected, came in zip(found.stock[kind], found.patched[kind], strict=True):
        assert [(text, reason) for text, reason, _ in came] == [
            (text, reason) for text, reason, _ in expected
        ]
        for (_, reason, numbers), (*_, others) in zip(expected, came, strict=True):
            assert reason is not None
            assert others == pytest.approx(numbers, abs=1e-3)
    assert all(pauses > 10 for pauses in found.pauses)

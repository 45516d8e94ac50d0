"""Stock SGLang, no plugin: with penalties the overlap loop has no one text to hold on to.

It is why docs/modes.md promises the same text with penalties in the synchronous loop only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.real_loop import HOOKS, REMOVED, RealLoop
from engine.real_scheduler import Setup

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    REMOVED.update(target for target, _, _ in HOOKS.table())
    yield
    REMOVED.clear()


def text(setup: Setup, others: int) -> list[int]:
    """What a request with a penalty comes to while `others` arrive, each with its prefill."""
    loop = RealLoop(setup)
    try:
        penalised = loop.submit("penalised", range(5), 60, frequency_penalty=0.1)
        reqs: list[Any] = [penalised]

        def script(iteration: int) -> bool:
            if iteration % 7 == 0 and len(reqs) <= others:
                reqs.append(loop.submit(f"other{len(reqs)}", range(3), 5))
            return all(req.finished() for req in reqs) and loop.scheduler.is_fully_idle()

        loop.run(script)
        return list(penalised.output_ids)[:60]
    finally:
        loop.close()


@pytest.mark.parametrize(("overlap", "same"), [(False, True), (True, False)])
def test_the_text_depends_on_what_else_is_served(overlap: bool, same: bool) -> None:
    setup = Setup(speculative=False, overlap=overlap)
    assert (text(setup, others=0) == text(setup, others=5)) == same

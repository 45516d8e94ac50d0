"""Beam search (SGLang 0.5.22 and newer): a group of beams is one request that cannot start anew."""

from __future__ import annotations

import types
from typing import Any

import pytest

from engine.one_at_a_time import finish, one_at_a_time, same_texts
from engine.real_scheduler import NEWEST

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not NEWEST, reason="this SGLang has no beam search"),
]

FAKE_GROUP = types.SimpleNamespace(
    member_rows=None, num_member_rows=0, beam_width=1, retired=True, extra_uncached_tokens=lambda: 0
)


def test_a_group_of_beams_is_never_demoted() -> None:
    """Its rows share the leader's KV cache, so that SGLang would abort it rather than retract it.

    All slots are held, and the newcomer is the best of all: it waits for the one that runs.
    """
    with one_at_a_time(slots=2) as (loop, planner):
        reqs: list[Any] = []

        def each(iteration: int) -> None:
            if iteration % 6 == 1 and len(reqs) < 3:
                reqs.append(loop.submit(f"r{len(reqs)}", range(len(reqs), 9), 50))
                planner.order(*range(len(reqs), 0, -1))
            beams = reqs[0]
            beams.beam_group = FAKE_GROUP if beams in loop.worker.paused else None

        assert finish(loop, reqs, each) == ["r1", "r2", "r0"]
        assert loop.worker.memory.demotions == 0
        same_texts(reqs)

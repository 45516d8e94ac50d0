"""Random pauses over SGLang's real loops: the text is the same, and nothing leaks."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from engine.random_load import Load, run_random_load
from engine.real_loop import RealLoop
from engine.real_scheduler import Setup

pytestmark = pytest.mark.engine

MODES = [
    pytest.param(
        speculative,
        overlap,
        id=f"{'eagle' if speculative else 'plain'}-{'overlap' if overlap else 'sync'}",
    )
    for speculative, overlap in itertools.product((True, False), (True, False))
]
LOADS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mixed": ({}, {}),
    "aborts": ({}, {"aborts": 4}),
    "penalties": ({}, {"penalties": True}),
    "chunked prefill": ({"chunk": 16}, {"longest_prompt": 120}),
    "no radix cache": ({"radix_cache": False}, {}),
    "pages": ({"page": 16}, {"aborts": 2}),
    "stops": ({}, {"stops": True, "tokens": (20, 60)}),
    "tight memory": ({"kv_tokens": 420, "slots": 14}, {"aborts": 2}),
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_random_pauses_change_no_text(speculative: bool, overlap: bool, load: str) -> None:
    setup, shape = LOADS[load]
    total: Counter[str] = Counter()
    for seed in range(5):
        total += run_random_load(
            Setup(speculative=speculative, overlap=overlap, seed=seed, **setup),
            Load(seed=seed, **shape),
        )
    # At least 2,000 in all: eight loads in four modes.
    assert total["pauses"] >= 65
    assert total["resumes"] >= 65
    if shape.get("aborts"):
        assert total["aborted_paused"] > 0


@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_never_more_than_the_cap_decode_and_no_round_is_empty(
    speculative: bool, overlap: bool
) -> None:
    loop = RealLoop(Setup(speculative=speculative, overlap=overlap, slots=8, max_running=3))
    try:
        reqs: list[Any] = []

        def script(iteration: int) -> bool:
            if iteration == 1:
                reqs.extend(loop.submit(f"r{i}", range(3, 9 + i), 20 + i) for i in range(8))
            return all(req.finished() for req in reqs) and loop.scheduler.is_fully_idle()

        loop.run(script)
        rounds = [rids for mode, rids in loop.scheduler.model_worker.batches if mode == "DECODE"]
        assert rounds
        assert all(0 < len(rids) <= 3 for rids in rounds)
        if not overlap:
            # Work-conserving: a round below the cap only once nobody is left to join. (The overlap
            # loop learns of a finish one round late, with or without the plugin.)
            first_short = next(i for i, rids in enumerate(rounds) if len(rids) < 3)
            assert all(set(rids) <= set(rounds[first_short]) for rids in rounds[first_short:])
        loop.check_no_leak()
    finally:
        loop.close()

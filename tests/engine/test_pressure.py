"""KV cache and slots too few for the load: paused requests give way, and no running one is lost."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.random_load import Load, run_random_load
from engine.real_scheduler import Setup
from engine.test_pause import MODES

pytestmark = pytest.mark.engine

PAUSES = 2_500
"""In each of four modes: 10,000 in all."""


@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_ten_thousand_pauses_without_memory_lose_nothing(speculative: bool, overlap: bool) -> None:
    """`run_random_load` fails if a request is aborted, its text differs, or anything leaks."""
    total: Counter[str] = Counter()
    for seed in range(100):
        setup = Setup(speculative, overlap, slots=24, kv_tokens=400, seed=seed)
        total += run_random_load(
            setup,
            Load(seed, requests=60, tokens=(30, 70), longest_prompt=20, scarce_memory=True),
        )
        if total["pauses"] >= PAUSES:
            break
    assert total["pauses"] >= PAUSES
    assert total["demotions"] >= PAUSES // 5

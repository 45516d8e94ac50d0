"""KV cache too small for the load: paused requests give way, and no running one is lost."""

from __future__ import annotations

from collections import Counter

import pytest

from engine.random_load import Load, run_random_load
from engine.real_scheduler import Setup
from engine.test_pause import MODES

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(("speculative", "overlap"), MODES)
def test_paused_requests_are_demoted_before_a_running_one_is_lost(
    speculative: bool, overlap: bool
) -> None:
    total: Counter[str] = Counter()
    for seed in range(6):
        # `run_random_load` fails if any request is aborted or its text differs.
        total += run_random_load(
            Setup(speculative=speculative, overlap=overlap, slots=12, kv_tokens=230, seed=seed),
            Load(seed=seed, requests=12, tokens=(30, 70), longest_prompt=20, scarce_memory=True),
        )
    assert total["demotions"] >= 10

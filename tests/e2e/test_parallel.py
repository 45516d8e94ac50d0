"""A data-parallel server under random plans: each replica is a worker of its own at the service.

What it answers is compared with stock SGLang in test_options.py.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from e2e.servers import PATIENCE_S, laps_blocks, until
from laps_sglang.lengths.state import load
from testbed.launch import SglangServer


def test_each_replica_is_a_worker_of_its_own(replicas: SglangServer) -> None:
    assert until(lambda: [b["decided_by"] for b in laps_blocks(replicas)] == ["service"] * 2)


def test_what_the_first_one_learns_of_lengths_is_kept(
    replicas: SglangServer, length_model: Path
) -> None:
    for prompt in ("one", "two", "three", "four"):
        body = {"text": prompt, "sampling_params": {"max_new_tokens": 4, "temperature": 0}}
        reply = httpx.post(f"{replicas.base_url}/generate", json=body, timeout=PATIENCE_S)
        assert reply.status_code == 200
    assert until(length_model.exists)
    assert load(length_model).learnt > 0
    assert all("length_model" in block for block in laps_blocks(replicas))

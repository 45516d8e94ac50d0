"""A data-parallel server under random plans: each replica is a worker of its own at the service.

What it answers is compared with stock SGLang in test_options.py.
"""

from __future__ import annotations

from e2e.servers import laps_blocks, until
from testbed.launch import SglangServer


def test_each_replica_is_a_worker_of_its_own(replicas: SglangServer) -> None:
    assert until(lambda: [b["decided_by"] for b in laps_blocks(replicas)] == ["service"] * 2)

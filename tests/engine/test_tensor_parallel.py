"""Two tensor-parallel ranks in two processes: the same batches at the same iterations, always.

SGLang broadcasts requests over gloo, and the plan rides along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.service import LapsService

pytestmark = pytest.mark.engine

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_S = 200


class TwoRanks:
    """Both processes; they run the load once under each of `services`."""

    def __init__(self, folder: Path, services: Sequence[str]) -> None:
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._outs = [folder / f"rank{rank}.json" for rank in range(2)]
        self._logs = [folder / f"rank{rank}.log" for rank in range(2)]
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "engine.tensor_parallel_rank"),
                    *(str(rank), str(folder / "meet"), str(out), *services),
                ],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdout=log.open("w"),
                stderr=subprocess.STDOUT,
            )
            for rank, (out, log) in enumerate(zip(self._outs, self._logs, strict=True))
        ]

    def wait_for_half(self, service: str) -> None:
        """Return when rank 0 has received half of the load under `service`."""
        signal = self._outs[0].with_suffix(f".half-of-{service}")
        deadline = time.monotonic() + PATIENCE_S
        while not signal.exists() and time.monotonic() < deadline:
            assert self._processes[0].poll() is None, self._logs[0].read_text()
            time.sleep(0.02)

    def results(self) -> list[list[dict[str, Any]]]:
        """Wait for both ranks, and return what each launched and answered, load by load."""
        try:
            for process, log in zip(self._processes, self._logs, strict=True):
                assert process.wait(PATIENCE_S) == 0, log.read_text()[-4000:]
        finally:
            for process in self._processes:
                process.kill()
                process.wait()
        return [json.loads(out.read_text()) for out in self._outs]


def assert_no_divergence(entry: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert the same launches, answers and moves on both ranks, and enough of them to tell."""
    assert entry["batches"] == other["batches"]
    assert entry["texts"] == other["texts"]
    assert entry["counters"] == other["counters"]
    assert entry["counters"]["pauses"] > 20


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], ...]]:
    """What both ranks did under random plans, and under a service that is killed half-way."""
    folder = tmp_path_factory.mktemp("ranks")
    # It may be as slow as the machine is, and counts as away when its stream breaks off.
    with LapsService("--plan-ttl-s", "600", log_path=folder / "laps.log") as service:
        ranks = TwoRanks(folder, ["random", service.address])
        ranks.wait_for_half(service.address)
        service.kill()
        return list(zip(*ranks.results(), strict=True))


def test_both_ranks_follow_random_plans(results: list[tuple[dict[str, Any], ...]]) -> None:
    entry, other = results[0]
    assert_no_divergence(entry, other)
    assert entry["counters"]["demotions"] > 5


def test_both_ranks_survive_the_death_of_the_service(
    results: list[tuple[dict[str, Any], ...]],
) -> None:
    entry, other = results[1]
    assert_no_divergence(entry, other)
    assert entry["deciders"]["service"] > 20
    assert entry["deciders"]["embedded engine"] > 20

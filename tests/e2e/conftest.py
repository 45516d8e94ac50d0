"""Every test here starts real processes, or shares those of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from e2e.fake_random_service import fake_random_service
from e2e.kinds import FEW_SLOTS, FLAGS
from e2e.servers import PLAIN, SYNC, sglang
from e2e.stock import Stock
from e2e.system import System, running_system
from testbed.launch import SglangServer

FOLDER = Path(__file__).parent
TEST_TIMEOUT_S = 900


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="session")
def length_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file in which the replicas keep what they learn of lengths."""
    return tmp_path_factory.mktemp("lengths") / "lengths.npz"


@pytest.fixture(scope="session")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, length_model: Path
) -> Iterator[SglangServer]:
    """Two data-parallel replicas, of which each runs one request at a time, in random order."""
    log = tmp_path_factory.mktemp("replicas") / "sglang.log"
    with fake_random_service() as address:
        laps = [
            *("--laps-endpoint", address),
            *("--laps-max-running", "1"),
            *("--laps-length-model", str(length_model)),
        ]
        with sglang(PLAIN, log, "--dp-size", "2", *FLAGS, *FEW_SLOTS, *laps, loop=SYNC) as server:
            yield server


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system")) as running:
        yield running

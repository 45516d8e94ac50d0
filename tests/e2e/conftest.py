"""Every test here starts real processes, or shares those of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from e2e.stock import Stock

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

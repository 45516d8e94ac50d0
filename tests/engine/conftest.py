"""Engine tests run with SGLang's strict memory checks on, idle and busy."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def strict_memory_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE", "1")
    monkeypatch.setenv("SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY", "1")

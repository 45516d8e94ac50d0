"""Every hook does what it is for, and without any one of them a scenario fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.real_loop import HOOKS, REMOVED
from engine.scenarios import SCENARIOS

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(scenario: Callable[[], None]) -> None:
    scenario()


@pytest.mark.mutation
@pytest.mark.parametrize("target", [target for target, _, _ in HOOKS.table()])
def test_without_a_hook_a_scenario_fails(target: str) -> None:
    REMOVED.add(target)
    try:
        for scenario in SCENARIOS:
            try:
                scenario()
            except Exception:
                return
        pytest.fail(f"no scenario notices that the hook on {target} is missing")
    finally:
        REMOVED.remove(target)

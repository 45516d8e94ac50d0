"""The simulator against queueing theory; for the checks and their bounds see `sim.validation`."""

from __future__ import annotations

import numpy as np
import pytest

from sim import theory
from sim.validation import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_the_simulator_agrees_with_theory(name: str) -> None:
    findings = list(CHECKS[name]())
    assert findings
    assert [finding for finding in findings if not finding.holds] == []


def test_the_formulas_agree_with_each_other() -> None:
    one, certain = np.array([1]), np.array([1.0])
    # Requests of one size: nobody overtakes, so SRPT is FCFS; M/D/1 waits half as long as M/M/1.
    assert theory.mg1_srpt(0.8, one, certain) == pytest.approx(theory.mg1_fcfs(0.8, one, certain))
    assert theory.mg1_fcfs(0.8, one, certain) == pytest.approx(
        1 + 0.5 * (theory.mmc(0.8, 1, 1) - 1)
    )
    # M/M/1: first come first served and processor sharing have the same mean.
    assert theory.mmc(0.8, 1.0, 1) == pytest.approx(theory.mg1_ps(0.8, 1.0))
    # Erlang C of 2 servers at load 0.5 each is 1/3.
    assert theory.mmc(1.0, 1.0, 2) == pytest.approx(1.0 + 1.0 / 3.0)


def test_paths_of_one_server_agree() -> None:
    rng = np.random.default_rng(0)
    arrival_s, sizes = np.cumsum(rng.exponential(2.0, 500)), rng.integers(1, 4, 500)
    single = theory.lindley(arrival_s, sizes)
    assert theory.kiefer_wolfowitz(arrival_s, sizes.astype(float), 1) == pytest.approx(single)

"""The Gittins index: the best that can be done without knowing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from laps.engine.table import Request
from sim import predictions
from sim.acceptance import (
    Drifting,
    Independent,
    Rates,
)
from sim.case import Case
from sim.gittins import Gittins
from sim.host import request_at
from sim.lengths import Lengths
from sim.physics import Physics
from sim.simulate import simulate

SMALL = Case(requests=400, load=0.9)


def test_the_gittins_index_is_what_is_left_where_nothing_is_uncertain() -> None:
    # Two drafts of three are accepted in the mean of p = 0.8, and 40 tokens are to come.
    certain = Independent(rates=Rates(0.8, 0.0))
    case = replace(SMALL, lengths=Lengths(low=41, high=41), acceptance=certain)
    request = Request(request_at(case.draw(0), 0).arrival)
    accept_length = 1 + 0.8 + 0.8**2 + 0.8**3
    assert Gittins.of(case, case.draw(0)).key(request)[0] == np.ceil(40 / accept_length)


def test_the_gittins_index_is_between_knowing_all_and_knowing_nothing() -> None:
    short = Lengths(high=150)
    case = replace(SMALL, requests=150, lengths=short, physics=Physics(max_running=1))
    means = [simulate(case, name, 5).figures.mean_s for name in ("oracle", "gittins", "fcfs")]
    assert means == sorted(means)
    with pytest.raises(ValueError, match="independent acceptance"):
        simulate(replace(case, acceptance=Drifting()), "gittins")
    with pytest.raises(ValueError, match="hints that err"):
        simulate(replace(case, predictions=predictions.Lognormal(0.0)), "gittins")

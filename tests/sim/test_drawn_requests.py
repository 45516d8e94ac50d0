"""Requests as they are drawn: when they come, from whom, how long, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import arrivals, predictions
from sim.acceptance import (
    Independent,
    Rates,
)
from sim.case import Case
from sim.host import request_at
from sim.lengths import Lengths
from sim.simulate import simulate
from sim.tenants import Tenant

SMALL = Case(requests=400, load=0.9)


@pytest.mark.parametrize("process", [arrivals.Poisson(), arrivals.Gamma(), arrivals.Recorded()])
def test_arrivals_have_the_mean_rate(process: arrivals.Arrivals) -> None:
    times = process.times(np.random.default_rng(2), 40_000)
    assert len(times) == 40_000
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(40_000, rel=0.05)


def test_recorded_arrivals_keep_their_bursts() -> None:
    def dispersion(process: arrivals.Arrivals) -> float:
        counts = np.bincount((process.times(np.random.default_rng(3), 19_000) // 300).astype(int))
        return float(counts[:-1].var() / counts[:-1].mean())

    assert dispersion(arrivals.Poisson()) < 2 < dispersion(arrivals.Recorded())


def test_the_load_is_what_the_case_says() -> None:
    case = Case(requests=40_000, load=0.5, workers=3)
    workload = case.draw(0)
    slot_s = workload.rounds.counts.mean() * (8e-3 + 0.15e-3 * 16) / 16
    rate = len(workload) / workload.arrival_s[-1]
    assert rate * slot_s / 3 == pytest.approx(0.5, rel=0.02)


def test_a_request_arrives_as_it_was_drawn() -> None:
    workload = SMALL.draw(0)
    request = request_at(workload, 5)
    assert request.arrival.handle == 6
    assert request.arrival.hints.predicted_tokens == workload.predicted_tokens[5]
    assert sum(request.accept_lengths) == workload.output_tokens[5] - 1


def test_lengths_in_order_depend_on_time() -> None:
    def spread(lengths: Lengths) -> float:
        """Return the variance of the means of 100 neighbours, in units of what chance gives it."""
        outputs = lengths.draw_outputs(np.random.default_rng(4), 20_000)
        return float(outputs.reshape(-1, 100).mean(axis=1).var() / (outputs.var() / 100))

    assert spread(Lengths()) == pytest.approx(1.0, abs=0.3)
    assert spread(Lengths(in_order=True)) > 5
    drawn = (Lengths(in_order=order) for order in (False, True))
    means = [each.draw_outputs(np.random.default_rng(5), 40_000).mean() for each in drawn]
    assert means[1] == pytest.approx(means[0], rel=0.03)


def test_predictions_are_as_good_as_they_say() -> None:
    outputs = Case().lengths.draw_outputs(np.random.default_rng(0), 20_000)

    def correlation(kind: predictions.Predictions) -> float:
        predicted = kind.draw(np.random.default_rng(1), outputs)
        return float(np.corrcoef(np.log(predicted), np.log(outputs))[0, 1])

    assert (predictions.Lognormal(0.0).draw(np.random.default_rng(1), outputs) == outputs).all()
    assert abs(correlation(predictions.Useless())) < 0.05
    assert 0.5 < correlation(predictions.Classes()) < correlation(predictions.Lognormal(0.3))


def test_tenants_send_their_own_kind_of_requests() -> None:
    def kind(name: str, share: float, p: float, low: int) -> Tenant:
        return Tenant(name, share, Lengths(low=low, high=low), Independent(rates=Rates(p, 0.0)))

    tenants = (kind("slow", 0.25, 0.02, 50), kind("quick", 0.75, 0.97, 20))
    case = replace(SMALL, requests=4_000, tenants=tenants, measured=(0, 1))
    workload = case.draw(1)
    quick = workload.tenant == 1
    assert quick.mean() == pytest.approx(0.75, abs=0.03)
    assert set(workload.output_tokens[quick]) == {20}
    assert set(workload.output_tokens[~quick]) == {50}
    assert workload.rounds.counts[quick].max() < 20 < workload.rounds.counts[~quick].min()
    hints = [request_at(workload, index).arrival.hints.tenant for index in (0, 1, 2, 3)]
    assert hints == [("slow", "quick")[sender] for sender in workload.tenant[:4]]
    unnamed = replace(case, says_tenant=False).draw(1)
    assert (unnamed.rounds.accept_lengths == workload.rounds.accept_lengths).all()
    assert request_at(unnamed, 0).arrival.hints.tenant == ""
    figures = simulate(replace(case, requests=400), "fcfs", seed=1).figures
    assert figures.tenants.keys() == {"slow", "quick"}
    assert 1.0 <= figures.tenants["slow"] < figures.tenants["quick"]

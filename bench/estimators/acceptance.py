"""Estimates of a request's acceptance: which one tells best how many rounds are left?

Requests have 8 to 400 verify rounds with 3 drafts. Acceptance per draft is normal(0.5, 0.25),
clipped to 0.02..0.97, for a request; within it it is steady, wanders about (AR(1), 0.8, sd 0.15),
drifts to another such value, or jumps to one every 60 rounds on average.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean

from laps.engine.acceptance import AcceptanceTracker, Prior
from laps.engine.prior import AcceptancePrior

DRAFTS = 3
LEARNT_FROM = 400
REQUESTS = 600
EARLY = 8
"""Rounds up to which an estimate counts as early."""

Estimate = Callable[[int], float]
"""Takes the accepted drafts of a round, returns the expected number of a later one."""


def processes() -> dict[str, Callable[[random.Random, int], list[float]]]:
    """Return by name what draws the acceptance of each of so many rounds."""

    def one(draw: random.Random) -> float:
        return _clipped(draw.gauss(0.5, 0.25))

    def steady(draw: random.Random, rounds: int) -> list[float]:
        return [one(draw)] * rounds

    def wandering(draw: random.Random, rounds: int) -> list[float]:
        mean, off, rates = one(draw), 0.0, []
        for _ in range(rounds):
            off = 0.8 * off + draw.gauss(0.0, 0.15 * math.sqrt(1.0 - 0.8**2))
            rates.append(_clipped(mean + off))
        return rates

    def drifting(draw: random.Random, rounds: int) -> list[float]:
        begin, end = one(draw), one(draw)
        return [begin + (end - begin) * index / rounds for index in range(rounds)]

    def jumping(draw: random.Random, rounds: int) -> list[float]:
        rates = [one(draw)]
        while len(rates) < rounds:
            rates.append(one(draw) if draw.random() < 1.0 / 60.0 else rates[-1])
        return rates

    return {f.__name__: f for f in (steady, wandering, drifting, jumping)}


def estimates(prior: Prior, variance: float) -> dict[str, Callable[[], Estimate]]:
    """Return by name what makes an estimate for a new request."""
    none = Prior(0.0, 0.0)
    return {
        "mean of all rounds": lambda: _faded(none, math.inf),
        "with the prior": lambda: _faded(prior, math.inf),
        "with the prior, fading in 32 rounds": lambda: _faded(prior, 32.0),
        "with the prior, begun anew by CUSUM": lambda: _cusum(prior, variance),
        "the engine's": lambda: _engines(prior),
    }


def errors(seed: int = 7) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean |log(estimated rounds left / rounds left)|, early and late, by estimate."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for process, rates in processes().items():
        draw = random.Random(seed)
        learnt, variances = AcceptancePrior(), []
        for _ in range(LEARNT_FROM):
            tracker = AcceptanceTracker()
            for accepted in _rounds(draw, rates(draw, 80)):
                tracker.add(accepted + 1, DRAFTS)
            learnt.observe(tracker, "")
            variances.append(tracker.variance)
        lengths = [int(min(max(draw.lognormvariate(4.2, 0.8), 8), 400)) for _ in range(REQUESTS)]
        requests = [_rounds(draw, rates(draw, rounds)) for rounds in lengths]
        for name, new in estimates(learnt.predict(""), fmean(variances)).items():
            offs = [_offs(new(), request) for request in requests]
            early = fmean(off for request in offs for off in request[:EARLY])
            late = fmean(off for request in offs for off in request[EARLY:])
            table.setdefault(name, {})[process] = (early, late)
    return table


def _offs(estimate: Estimate, accepted: list[int]) -> list[float]:
    left = sum(accepted) + len(accepted)
    offs = []
    for index, count in enumerate(accepted[:-4], start=1):
        left -= count + 1
        rounds = left / (1.0 + estimate(count))
        offs.append(abs(math.log(rounds / (len(accepted) - index))))
    return offs


def _rounds(draw: random.Random, rates: list[float]) -> list[int]:
    accepted = []
    for rate in rates:
        count = 0
        while count < DRAFTS and draw.random() < rate:
            count += 1
        accepted.append(count)
    return accepted


def _engines(prior: Prior) -> Estimate:
    tracker = AcceptanceTracker()
    tracker.expect(prior)

    def estimate(accepted: int) -> float:
        tracker.add(accepted + 1, DRAFTS)
        return tracker.weighted / tracker.weight

    return estimate


def _faded(prior: Prior, memory: float) -> Estimate:
    fade = 1.0 - 1.0 / memory
    rounds = total = 0.0

    def estimate(accepted: int) -> float:
        nonlocal rounds, total
        rounds, total = fade * rounds + 1.0, fade * total + accepted
        return (prior.rounds * prior.accepted + total) / (prior.rounds + rounds)

    return estimate


def _cusum(prior: Prior, variance: float, slack: float = 0.5, alarm: float = 8.0) -> Estimate:
    """Two-sided CUSUM on deviations in standard units; an alarm keeps what has deviated alone."""
    rounds = total = 0.0
    excursions = {1.0: (0.0, 0, 0), -1.0: (0.0, 0, 0)}  # by side: statistic, rounds, accepted

    def mean() -> float:
        return (prior.rounds * prior.accepted + total) / (prior.rounds + rounds)

    def estimate(accepted: int) -> float:
        nonlocal rounds, total
        deviation = (accepted - mean()) / math.sqrt(variance)
        rounds, total = rounds + 1.0, total + accepted
        for side, (statistic, length, sum_) in excursions.items():
            statistic += side * deviation - slack
            excursions[side] = (statistic, length + 1, sum_ + accepted)
            if statistic <= 0.0:
                excursions[side] = (0.0, 0, 0)
        for statistic, length, sum_ in excursions.values():
            if statistic > alarm:
                rounds, total = float(length), float(sum_)
                excursions.update(dict.fromkeys(excursions, (0.0, 0, 0)))
                break
        return mean()

    return estimate


def _clipped(rate: float) -> float:
    return min(max(rate, 0.02), 0.97)

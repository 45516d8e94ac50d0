"""Is the simulator right? It is held against queueing theory where theory knows the answer.

Rounds take 1 s and bring one token, so that a request's size is its number of rounds. Figures from
random arrivals must be within their confidence interval of the formula; where iterations make the
simulator differ from the formula by design, the interval is widened by just that. What follows from
the arrivals by arithmetic must agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from laps.engine.types import PolicySpec
from laps.policies.base import Policy
from sim import theory
from sim.host import Run, run
from sim.oracle import Oracle
from sim.physics import Linear, Physics
from sim.workload import Floats, Ints, Workload, plain

BATCHES = 30
FALSE_ALARM = 1e-4
"""Chance that a check of a right simulator fails (were its seed not fixed)."""
ROUNDING = 1e-6

FCFS = PolicySpec("fcfs")
ONE_AT_A_TIME = Physics(Linear(0.0, 1.0), max_running=1)


@dataclass(frozen=True)
class Control:
    """A control variate: a figure of the same arrivals whose mean is known.

    By how much it is off says by how much chance has put the simulator off, too.
    """

    samples: Floats
    mean: float


@dataclass(frozen=True)
class Finding:
    """A figure of the simulator, and the bounds that theory gives it."""

    what: str
    simulated: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.simulated <= self.high


def exact(what: str, simulated: Floats, expected: Floats) -> Finding:
    """Return the greatest difference of figures that must be equal."""
    return Finding(what, float(np.abs(simulated - expected).max()), 0.0, ROUNDING)


def estimate(
    what: str, samples: Floats, low: float, high: float, control: Control | None = None
) -> Finding:
    """Return the mean of samples in order of time, and the bounds less and plus its half-width.

    By batch means: neighbours depend on each other, means of long batches hardly.
    """
    means = batch_means(samples)
    freedom = BATCHES - 1
    if control is not None:
        surplus = batch_means(control.samples) - control.mean
        slope = float(np.cov(means, surplus)[0, 1] / surplus.var(ddof=1))
        means = means - slope * surplus
        freedom -= 1
    error = float(means.std(ddof=1)) / BATCHES**0.5
    half = float(student.ppf(1 - FALSE_ALARM / 2, freedom)) * error
    return Finding(what, float(means.mean()), low - half, high + half)


def batch_means(samples: Floats) -> Floats:
    return np.array([batch.mean() for batch in np.array_split(samples, BATCHES)])


def poisson(rate: float, sizes: Ints, chances: Floats, count: int, seed: int) -> Workload:
    """Return Poisson arrivals with sizes (rounds) of the given chances."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate, count))
    return plain(arrival_s, rng.choice(sizes, count, p=chances))


def serve(workload: Workload, policy: PolicySpec | Policy, physics: Physics) -> Run:
    return run(workload, physics, policy)


def oracle(workload: Workload) -> Oracle:
    return Oracle(workload.rounds.counts)


def lindley_control(workload: Workload, rate: float, sizes: Ints, chances: Floats) -> Control:
    path = theory.lindley(workload.arrival_s, workload.rounds.counts)
    return Control(path, theory.mg1_fcfs(rate, sizes, chances))


# Two kinds of requests, far apart: FCFS and SRPT differ much.
MIXED = (np.array([1, 10]), np.array([0.8, 0.2]))


def mg1_fcfs() -> Iterator[Finding]:
    """M/G/1, first come first served: Pollaczek-Khinchine, and Lindley's recursion exactly."""
    sizes, chances = MIXED
    rate = 0.6 / float(sizes @ chances)
    workload = poisson(rate, sizes, chances, 20_000, seed=1)
    latency_s = serve(workload, FCFS, ONE_AT_A_TIME).latency_s
    expected = theory.mg1_fcfs(rate, sizes, chances)
    yield estimate("M/G/1 FCFS: mean latency", latency_s, expected, expected)
    path = theory.lindley(workload.arrival_s, workload.rounds.counts)
    yield exact("M/G/1 FCFS: each latency against Lindley", latency_s, path)


def mg1_srpt() -> Iterator[Finding]:
    """M/G/1, shortest remaining first: Schrage-Miller, and later by at most two steps.

    An arrival is received at the next boundary and is in the plan of the boundary after that.
    """
    sizes = np.arange(1, 40)
    chances = np.full(len(sizes), 1.0 / len(sizes))
    rate = 0.6 / float(sizes @ chances)
    workload = poisson(rate, sizes, chances, 7_000, seed=2)
    latency_s = serve(workload, oracle(workload), ONE_AT_A_TIME).latency_s
    expected = theory.mg1_srpt(rate, sizes, chances)
    control = lindley_control(workload, rate, sizes, chances)
    yield estimate("M/G/1 SRPT: mean latency", latency_s, expected, expected + 2.0, control)
    delay_s = latency_s - workload.rounds.counts
    yield Finding("M/G/1 SRPT: least delay", float(delay_s.min()), -ROUNDING, ROUNDING)


def mmc() -> Iterator[Finding]:
    """M/M/c: Erlang C. An arrival joins a running batch at a boundary, a step later at most."""
    servers, mean, count = 4, 25.0, 8_000
    rate = 0.8 * servers / mean
    rng = np.random.default_rng(3)
    arrival_s = np.cumsum(rng.exponential(1.0 / rate, count))
    sizes = rng.exponential(mean, count)
    # In whole rounds; by chance up or down, so that the mean stays.
    workload = plain(arrival_s, np.maximum(sizes + rng.random(count), 1.0).astype(np.int64))
    latency_s = serve(workload, FCFS, Physics(Linear(1.0), max_running=servers)).latency_s
    expected = theory.mmc(rate, mean, servers)
    control = Control(theory.kiefer_wolfowitz(arrival_s, sizes, servers), expected)
    yield estimate("M/M/4: mean latency", latency_s, expected, expected + 1.0, control)


def processor_sharing() -> Iterator[Finding]:
    """M/G/1-PS: all run, in rounds whose time is in proportion to the batch.

    Of the sizes only the mean counts. Rounds make a request wait for a boundary, and then let it
    run in a batch that lacks those who wait: a round's time either way, which is one second for
    each that is present, load / (1 - load) in the mean.
    """
    mean, load = 14, 0.6
    rate = load / mean
    expected = theory.mg1_ps(rate, mean)
    physics = Physics(Linear(0.0, 1.0), max_running=500)
    for seed, sizes, chances in (
        (4, np.array([14]), np.array([1.0])),
        (5, np.array([4, 54]), np.array([0.8, 0.2])),
    ):
        workload = poisson(rate, sizes, chances, 6_000, seed)
        latency_s = serve(workload, FCFS, physics).latency_s
        control = lindley_control(workload, rate, sizes, chances)
        low, high = expected - load / (1.0 - load), expected + load / (1.0 - load)
        yield estimate(f"M/G/1-PS, sizes {sizes}: mean latency", latency_s, low, high, control)


def conservation() -> Iterator[Finding]:
    """What no policy that keeps the worker busy can change: busy time, and when it ends; Little."""
    sizes, chances = MIXED
    workload = poisson(0.85 / float(sizes @ chances), sizes, chances, 4_000, seed=5)
    work = float(workload.rounds.counts.sum())
    policies: dict[str, PolicySpec | Policy] = {
        "fcfs": FCFS,
        "laps-sd": PolicySpec("laps-sd", {"quantum": 2}),
        "oracle": oracle(workload),
    }
    end_s = theory.lindley(workload.arrival_s, workload.rounds.counts)[-1] + workload.arrival_s[-1]
    for name, policy in policies.items():
        outcome = serve(workload, policy, ONE_AT_A_TIME)
        yield exact(f"{name}: busy time is the work", np.array(outcome.busy_s), np.array(work))
        yield exact(f"{name}: end of the last busy period", np.array(outcome.end_s), end_s)
        # Little: the time integral of the number in the system is the sum of latencies. Workers
        # count a request from the boundary on at which they receive it, a round later at most.
        total = float(outcome.latency_s.sum())
        yield Finding(f"{name}: Little", outcome.live_s, total - len(workload), total + ROUNDING)


def by_hand() -> Iterator[Finding]:
    """Small cases, worked out by hand."""
    together = np.zeros(4)
    sizes = np.array([5, 2, 4, 2])
    batch = plain(together, sizes)
    yield exact(
        "batch at 0, FCFS: ties go by handle",
        serve(batch, FCFS, ONE_AT_A_TIME).latency_s,
        np.array([5.0, 7.0, 11.0, 13.0]),
    )
    # No plan knows them in the first round, which goes to the first: 4 left, and a tie with #3.
    yield exact(
        "batch at 0, SRPT: known from the second round on",
        serve(batch, oracle(batch), ONE_AT_A_TIME).latency_s,
        np.array([9.0, 3.0, 13.0, 5.0]),
    )
    # #2 arrives within round 1 and #3 within round 2; rounds 1-3 have #1, rounds 2-3 #2, #3 joins
    # when both have gone. #4 finds the worker asleep.
    yield exact(
        "two at a time: free places are taken at the next boundary",
        serve(
            plain(np.array([0.0, 0.5, 1.25, 20.75]), np.array([3, 2, 1, 2])),
            FCFS,
            Physics(Linear(1.0), max_running=2),
        ).latency_s,
        np.array([3.0, 2.5, 2.75, 2.0]),
    )
    # Round 1: #1 alone. #2 is received at 1 s, unknown to the plan; it is named at 2 s, runs in
    # round 3, and #1 goes on where it was.
    staggered = plain(np.array([0.0, 0.5]), np.array([6, 1]))
    yield exact(
        "a preemption takes two boundaries and loses no work",
        serve(staggered, oracle(staggered), ONE_AT_A_TIME).latency_s,
        np.array([7.0, 2.5]),
    )


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    check.__name__: check
    for check in (by_hand, mg1_fcfs, mg1_srpt, mmc, processor_sharing, conservation)
}
"""Every check by its name."""

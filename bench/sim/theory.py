"""Formulas of queueing theory that a right simulator agrees with. Times are in service units."""

from __future__ import annotations

import math
from heapq import heapreplace

import numpy as np

from sim.workload import Floats, Ints


def mg1_fcfs(rate: float, sizes: Ints, chances: Floats) -> float:
    """Return the mean time in an M/G/1 queue, first come first served (Pollaczek-Khinchine)."""
    mean, square = float(sizes @ chances), float(sizes**2 @ chances)
    return mean + rate * square / (2.0 * (1.0 - rate * mean))


def mg1_srpt(rate: float, sizes: Ints, chances: Floats) -> float:
    """Return the mean time in an M/G/1 queue, shortest remaining processing time first.

    Schrage and Miller (1966), for a discrete size x of probability p(x), ties in order of arrival:

        E[T(x)] = rate * (m2(x) + x^2 * P(X > x)) / (2 (1 - rho(x-)) (1 - rho(x)))
                  + integral from 0 to x of dt / (1 - rho(t-))

    m2(x) is the second moment over sizes up to x, rho(x) the load of sizes up to x, rho(x-) of
    those below x.
    """
    order = np.argsort(sizes)
    sizes, chances = sizes[order].astype(float), chances[order]
    load = rate * np.cumsum(sizes * chances)
    below = np.concatenate(([0.0], load[:-1]))
    square = np.cumsum(sizes**2 * chances)
    above = 1.0 - np.cumsum(chances)
    waiting = rate * (square + sizes**2 * above) / (2.0 * (1.0 - below) * (1.0 - load))
    steps = np.diff(np.concatenate(([0.0], sizes)))
    residence = np.cumsum(steps / (1.0 - below))
    return float((waiting + residence) @ chances)


def mmc(rate: float, mean: float, servers: int) -> float:
    """Return the mean time in an M/M/c queue with service times of `mean` (Erlang C)."""
    offered = rate * mean
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    full = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = full / (sum(terms) + full)
    return mean + waits * mean / (servers - offered)


def mg1_ps(rate: float, mean: float) -> float:
    """Return the mean time in an M/G/1 processor-sharing queue: only the mean size counts."""
    return mean / (1.0 - rate * mean)


def lindley(arrival_s: Floats, sizes: Ints) -> Floats:
    """Return each latency in a single-server queue, first come first served (Lindley 1952)."""
    latency = np.empty(len(sizes))
    free_s = 0.0
    for index, (arrives_s, size) in enumerate(zip(arrival_s.tolist(), sizes.tolist(), strict=True)):
        free_s = max(free_s, arrives_s) + size
        latency[index] = free_s - arrives_s
    return latency


def kiefer_wolfowitz(arrival_s: Floats, sizes: Floats, servers: int) -> Floats:
    """Return each latency in a queue with several servers, first come first served (1955)."""
    latency = np.empty(len(sizes))
    free_s = [0.0] * servers
    for index, (arrives_s, size) in enumerate(zip(arrival_s.tolist(), sizes.tolist(), strict=True)):
        ends_s = max(free_s[0], arrives_s) + size
        heapreplace(free_s, ends_s)
        latency[index] = ends_s - arrives_s
    return latency

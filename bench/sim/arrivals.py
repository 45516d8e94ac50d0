"""When requests arrive: times of mean rate 1, to be stretched to the rate that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sim.lengths import distribution
from sim.workload import Floats


class Arrivals(Protocol):
    """Draws arrival times."""

    def times(self, rng: np.random.Generator, count: int) -> Floats:
        """Return `count` times in ascending order, of one request per unit of time in the mean."""


@dataclass(frozen=True)
class Poisson:
    """Independent exponential gaps."""

    def times(self, rng: np.random.Generator, count: int) -> Floats:
        return np.cumsum(rng.exponential(size=count))


@dataclass(frozen=True)
class Gamma:
    """Independent gamma gaps of coefficient of variation `cv`: above 1 is burstier than Poisson."""

    cv: float = 3.0

    def times(self, rng: np.random.Generator, count: int) -> Floats:
        shape = self.cv**-2
        return np.cumsum(rng.gamma(shape, 1.0 / shape, size=count))


@dataclass(frozen=True)
class Recorded:
    """The Azure conversation trace: its arrivals per second, in order, each uniform in its second.

    It starts at a second chosen by chance, and after its last second comes its first. All times
    are stretched by one factor, so that bursts are kept relative to the mean rate.
    """

    source: str = "azure-conv-arrivals"

    def times(self, rng: np.random.Generator, count: int) -> Floats:
        per_second = np.array(distribution(self.source)["per_second"])
        mean = float(per_second.mean())
        order = np.roll(per_second, -int(rng.integers(len(per_second))))
        passes = count // int(order.sum()) + 1
        seconds = np.repeat(np.arange(passes * len(order)), np.tile(order, passes))
        times = np.sort(seconds + rng.random(len(seconds)))
        return times[:count] * mean


@dataclass(frozen=True)
class Batch:
    """All at once, at time 0: the paper's closed batch."""

    def times(self, rng: np.random.Generator, count: int) -> Floats:
        return np.zeros(count)

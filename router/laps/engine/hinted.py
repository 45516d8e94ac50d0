"""What a client's hint tells of a length: Bayes' rule over the lengths that outputs had lately."""

from __future__ import annotations

import math

from laps.engine.survival import Survival

ENOUGH = 64
"""Finished requests with a hint from which on hints are weighed; before, they are believed."""
_MEMORY = 1000
"""Requests after which what one said of the worth of hints has faded to 1/e."""
_LEAST_NOISE = 0.1
"""No hint is trusted to less than 10 %: that is how wide a bucket of lengths is."""
_GRID = 8
"""Hints that differ by less than 1/8 (in their logarithm) share their posterior means."""


class HintNoise:
    """How hints go with lengths: log hint = shift + slope * log length + spread * normal(0, 1).

    By least squares over the finished requests, of which the older ones fade. A slope of 0 says
    that hints tell nothing, whatever they are.
    """

    def __init__(self) -> None:
        self.count = 0
        """Finished requests that had a hint."""
        self._sums = [0.0] * 6

    def add(self, tokens: int, hint: int) -> None:
        """Learn from a request that finished with `tokens` (1 or more) and had this hint."""
        self.count += 1
        x, y = math.log(tokens), math.log(hint)
        fade = 1.0 - 1.0 / _MEMORY
        terms = (1.0, x, y, x * x, x * y, y * y)
        self._sums = [fade * old + new for old, new in zip(self._sums, terms, strict=True)]

    def fit(self) -> tuple[float, float, float]:
        """Return shift, slope and spread."""
        weight, *sums = self._sums
        x, y, xx, xy, yy = (total / weight for total in sums)
        across = xx - x * x
        slope = (xy - x * y) / across if across > 1e-9 else 0.0
        variance = yy - y * y - slope * slope * across
        return y - slope * x, slope, math.sqrt(max(variance, _LEAST_NOISE * _LEAST_NOISE))


class HintedLengths:
    """The newest lengths, and how hints went with them.

    The posterior of a length, given a hint, weighs each of those lengths by how likely it would
    have had this hint. Of it only the means are kept, for each hint that was asked for since they
    were last made anew.
    """

    def __init__(self, window: int) -> None:
        self.lengths = Survival(window)
        self.weighs = False
        """Whether enough is known to weigh a hint."""
        self._noise = HintNoise()
        self._fit = (0.0, 0.0, 1.0)
        self._means: dict[int, list[int]] = {}

    def add(self, tokens: int, hint: int) -> bool:
        """Take in a finished output, `hint` 0 if there was none; return whether means are new."""
        if tokens > 0 and hint > 0:
            self._noise.add(tokens, hint)
        renewed = self.lengths.add(tokens)
        if renewed and self._noise.count >= ENOUGH:
            self.weighs = True
            self._fit = self._noise.fit()
            self._means.clear()
        return renewed

    def mean(self, index: int, hint: int) -> int:
        """Return the posterior mean of lengths in that bucket and those after it; 0 if unknown."""
        place = round(math.log(hint) * _GRID)
        means = self._means.get(place)
        if means is None:
            means = self._means[place] = self._posterior(place / _GRID)
        return means[index]

    def _posterior(self, log_hint: float) -> list[int]:
        shift, slope, spread = self._fit
        scale = -0.5 / (spread * spread)

        def log_likelihood(log_length: float) -> float:
            off = log_hint - shift - slope * log_length
            return scale * off * off

        return self.lengths.weighted_means(log_likelihood)

"""The lengths that outputs had lately, and what they say of one that has got so far."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import accumulate

_UNIT = 16
"""Width of the narrowest buckets, in tokens."""
_DIGITS = 4
"""Binary digits that tell the bucket of a number of units: eight buckets from each power of two to
the next, from 16 units on. With these two a request is predicted anew 11 times, not at each of its
78 rounds, and what is left of it is told as well (`bench/estimators`)."""
_SIZE = 256
"""Buckets: enough for 2^36 tokens. Longer outputs share the last one."""
_STALE = 64
"""Means are made anew once one in so many of the lengths that they rest on is new."""


def bucket(tokens: int) -> int:
    """Return the number of the bucket that outputs of `tokens` (0 or more) are in."""
    units = tokens // _UNIT
    shift = units.bit_length() - _DIGITS
    if shift <= 0:
        return units
    index = (shift << _DIGITS - 1) + (units >> shift)
    return index if index < _SIZE else _SIZE - 1


def bucket_end(tokens: int) -> int:
    """Return the first length after the bucket that `tokens` is in."""
    units = tokens // _UNIT
    shift = units.bit_length() - _DIGITS
    return (units + 1 if shift <= 0 else (units >> shift) + 1 << shift) * _UNIT


class Survival:
    """The newest `window` lengths, in buckets.

    Taking one in is O(1), and so is asking for a mean: those of all buckets are made together, at
    first with each length and later with each 64th part of the window, as one more length in a
    thousand says little.
    """

    def __init__(self, window: int) -> None:
        self.means = [0] * _SIZE
        """By bucket: the mean of the lengths in it and in those after it, rounded up; 0: none."""
        self.counts = [0] * _SIZE
        """By bucket: how many lengths are in it and in those after it."""
        self._window = window
        self._newest: deque[int] = deque()
        self._counts = [0] * _SIZE
        self._sums = [0] * _SIZE
        self._unseen = 0
        self._atoms: list[tuple[int, int, float, float]] = []
        """Of each bucket that is not empty, the last one first: its index, how many lengths are in
        it, their mean and the logarithm of that. As of when the means were made anew."""

    def add(self, tokens: int) -> bool:
        """Take in a finished output of `tokens`; the oldest one is forgotten when it is full.

        Returns whether the means were made anew.
        """
        if len(self._newest) == self._window:
            oldest = self._newest.popleft()
            index = bucket(oldest)
            self._counts[index] -= 1
            self._sums[index] -= oldest
        self._newest.append(tokens)
        index = bucket(tokens)
        self._counts[index] += 1
        self._sums[index] += tokens
        self._unseen += 1
        if self._unseen * _STALE < len(self._newest):
            return False
        self._renew()
        return True

    def weighted_means(self, log_weight: Callable[[float], float]) -> list[int]:
        """Return `means` with lengths weighed, by a function of the logarithm of a length."""
        logs = [log_weight(log_mean) for _, _, _, log_mean in self._atoms]
        most = max(logs, default=0.0)
        means = [0] * _SIZE
        weight = total = 0.0
        above = _SIZE
        # From the last bucket down; one that is empty has the mean of those after it.
        for (index, count, mean, _), log in zip(self._atoms, logs, strict=True):
            if weight:
                means[index + 1 : above] = [math.ceil(total / weight)] * (above - index - 1)
            weight += count * math.exp(log - most)
            total += count * math.exp(log - most) * mean
            above = index + 1
        if weight:
            means[:above] = [math.ceil(total / weight)] * above
        return means

    def _renew(self) -> None:
        counts = list(accumulate(reversed(self._counts)))
        sums = accumulate(reversed(self._sums))
        means = [
            -(-total // count) if count else 0 for count, total in zip(counts, sums, strict=True)
        ]
        self.means = means[::-1]
        self.counts = counts[::-1]
        self._unseen = 0
        self._atoms = [
            (index, count, total / count, math.log(max(total / count, 1.0)))
            for index, (count, total) in enumerate(zip(self._counts, self._sums, strict=True))
            if count
        ][::-1]

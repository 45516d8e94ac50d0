"""How long things take: the measured round time, and the paper's time estimate in its terms."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

_NEWEST = 0.1
"""Share of the newest round in the mean of its bucket: it forgets half in about 7 rounds."""
_ENOUGH = 10
"""Rounds of its own from which on a bucket borrows nothing from the others."""
_FAR_OFF = 3.0
"""Mean deviations by which a round moves the mean at most, however far off it is."""
_LEAST_DEVIATION = 0.01
"""Of the mean. Without it, rounds that took equally long would make it deaf to a change."""
_MOST_CURVES = 16
"""Numbers of drafts that are kept apart: more than a server has in use."""
_LONGEST_S = 3600.0
"""What is said to take longer is no round."""


def remaining_s(rounds: float, round_s: float) -> float:
    """Return T~ = R * round_s, the estimated remaining time in seconds.

    The paper estimates the time of a request of L tokens as L * (n*T_SSM + T_LLM) / (n*A + 1),
    with n drafts a round, acceptance rate A, and T_SSM and T_LLM the times of one draft token and
    of one verification. n*A + 1 is the accept length, so L / (n*A + 1) is a number of rounds, and
    n*T_SSM + T_LLM is the time of one round: here it is measured, batch effects included. With L
    the tokens still to come instead of all of them, the estimate is of the remaining time.
    """
    return rounds * round_s


class RoundTimer:
    """Measured wall time of a verify round on one worker, by the number of requests in it.

    It depends on the batch and the model, not on which requests are in it. With CUDA graphs a batch
    is padded to the next size that was captured, so that all sizes up to it take as long: these
    are the buckets (`Capacity.batch_sizes`), or the powers of two where they are not known.

    In a bucket it is the mean of its rounds, in which older ones fade, and on which one that is far
    off has little weight. A bucket that has few leans on a line through the others, base +
    slope * size. Rounds of another number of drafts (adaptive speculation) are kept apart.

    Drafting and verification are one measurement, the paper's n*T_SSM + T_LLM: SGLang's loop for
    speculation ends both in one result, and nothing outside it can tell them apart.
    """

    def __init__(self, batch_sizes: Iterable[int] = ()) -> None:
        self._sizes = sorted(size for size in batch_sizes if size > 0)
        self._curves: dict[int, _Curve] = {}
        self._curve = _Curve()

    def add(self, batch: int, drafts: int, round_s: float) -> float:
        """Take in a round of `batch` requests with `drafts` each that took `round_s` seconds.

        What is not a time above 0 (0: not known) is not learnt from. Returns what the round took:
        where that is not known, what is expected of one of its size. O(1).
        """
        if not 0.0 < round_s < _LONGEST_S:
            return self.seconds(batch)
        curve = self._curves.get(drafts)
        if curve is None:
            if len(self._curves) == _MOST_CURVES:
                self._curves.clear()
            curve = self._curves[drafts] = _Curve()
        self._curve = curve
        curve.add(self._bucket(batch), round_s)
        return round_s

    def seconds(self, batch: int) -> float:
        """Return what a round of `batch` requests takes, with as many drafts as the newest timed
        one; 0 before the first."""
        return self._curve.seconds(self._bucket(batch))

    def _bucket(self, batch: int) -> int:
        """Return the size that a batch is padded to."""
        index = bisect_left(self._sizes, batch)
        return self._sizes[index] if index < len(self._sizes) else 1 << (batch - 1).bit_length()


class _Bucket:
    """Mean and mean deviation of the rounds of one size."""

    __slots__ = ("deviation", "mean", "rounds")

    def __init__(self, round_s: float) -> None:
        self.rounds = 1
        self.mean = round_s
        self.deviation = 0.25 * round_s

    def add(self, round_s: float) -> None:
        """Take in a round. A lasting change grows the deviation, and is followed at once then."""
        self.rounds += 1
        share = 1.0 / self.rounds if self.rounds * _NEWEST < 1.0 else _NEWEST
        most = _FAR_OFF * self.deviation
        off = round_s - self.mean
        if off > most:
            off = most
        elif off < -most:
            off = -most
        self.mean += share * off
        deviation = self.deviation + share * (abs(off) - self.deviation)
        least = _LEAST_DEVIATION * self.mean
        self.deviation = deviation if deviation > least else least


class _Curve:
    """Round time by bucket, all of rounds with as many drafts."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def add(self, size: int, round_s: float) -> None:
        bucket = self._buckets.get(size)
        if bucket is None:
            self._buckets[size] = _Bucket(round_s)
        else:
            bucket.add(round_s)

    def seconds(self, size: int) -> float:
        """Return the time of a round of that size; 0 if there was none of any."""
        bucket = self._buckets.get(size)
        if bucket is None:
            return self._on_line(size) if self._buckets else 0.0
        if bucket.rounds >= _ENOUGH:
            return bucket.mean
        own = bucket.rounds / _ENOUGH
        return own * bucket.mean + (1.0 - own) * self._on_line(size)

    def _on_line(self, size: int) -> float:
        """Return base + slope * size, by least squares over the buckets, neither below 0."""
        points = [(min(b.rounds, _ENOUGH), at, b.mean) for at, b in self._buckets.items()]
        count = sum(weight for weight, _, _ in points)
        middle = sum(weight * at for weight, at, _ in points) / count
        mean = sum(weight * seconds for weight, _, seconds in points) / count
        across = sum(weight * (at - middle) * (at - middle) for weight, at, _ in points)
        along = sum(weight * (at - middle) * (seconds - mean) for weight, at, seconds in points)
        if along <= 0.0:
            return mean
        # Through the origin if the best line would begin below it.
        slope = min(along / across, mean / middle)
        return mean + slope * (size - middle)

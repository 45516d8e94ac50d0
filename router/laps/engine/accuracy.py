"""How far the time estimate is off, held against what requests took."""

from __future__ import annotations

from dataclasses import dataclass

from laps.engine.table import Request


@dataclass(frozen=True, slots=True)
class EstimateError:
    """The relative errors (T~ - T) / T of the requests that finished with an estimate."""

    count: int
    mean: float
    """Signed: above 0 where times were overestimated. 0 if the count is 0."""
    mean_abs: float
    """Its size. 0 if the count is 0."""


class EstimateErrors:
    """Holds T~, noted once for a request, against the time that it then ran.

    T is the time of the rounds that a request was in, from the note to its last one; what it waits
    or rests is not in there, as T~ does not speak of it. The sum over a request's rounds is the
    difference of two readings of a clock that only rounds move, so nothing is done for each.
    """

    def __init__(self) -> None:
        self._clock_s = 0.0
        self._count = 0
        self._sum = 0.0
        self._sum_abs = 0.0

    def start(self, request: Request) -> None:
        """A request runs: from the round on that is being counted."""
        request.timed_s -= self._clock_s

    def stop(self, request: Request) -> None:
        """It does not run any more: the round that is being counted is not its."""
        request.timed_s += self._clock_s

    def end_round(self, round_s: float) -> None:
        """The round that was being counted took so many seconds."""
        self._clock_s += round_s

    def note(self, request: Request, estimate_s: float) -> None:
        """Note the estimate of a running request; the first one that is above 0 stays."""
        if not request.estimate_s:
            request.estimate_s = estimate_s
            request.timed_s = -self._clock_s

    def finish(self, request: Request, running: bool) -> None:
        """A request finished; one that ended with the very round of the note tells nothing."""
        took_s = request.timed_s + (self._clock_s if running else 0.0)
        if request.estimate_s and took_s > 0.0:
            error = request.estimate_s / took_s - 1.0
            self._count += 1
            self._sum += error
            self._sum_abs += abs(error)

    def summary(self) -> EstimateError:
        """Return the errors so far."""
        count = self._count
        if not count:
            return EstimateError(0, 0.0, 0.0)
        return EstimateError(count, self._sum / count, self._sum_abs / count)

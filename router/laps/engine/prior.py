"""What the acceptance of a request will be like, before it has shown its own."""

from __future__ import annotations

from typing import Protocol

from laps.engine.acceptance import AcceptanceTracker, Prior
from laps.engine.chain import at_drafts
from laps.engine.classes import ByClass, RequestClass

_MEMORY = 500
"""Requests after which what one said has faded to 1/e."""
_MOST_ROUNDS = 64.0
"""Largest weight of a prior."""
_ENOUGH = 16
"""Departed requests from which on a class has a prior of its own."""


class AcceptancePredictor(Protocol):
    """Predicts the acceptance of new requests. Asked once a request."""

    def observe(self, acceptance: AcceptanceTracker, request_class: RequestClass) -> None:
        """Learn from a request that has left, finished or aborted."""

    def predict(self, request_class: RequestClass) -> Prior:
        """Return what to expect of a new request of that class."""


class _Spread:
    """Means and variances of requests, each fading with those that come after it."""

    def __init__(self) -> None:
        self.requests = 0.0
        self._mean = 0.0
        self._mean_sq = 0.0
        self._within = 0.0
        self._noise = 0.0

    def add(self, mean: float, variance: float, noise: float) -> None:
        """Take in a request by the mean of its rounds, their variance, and that of the mean."""
        fade = 1.0 - 1.0 / _MEMORY
        self.requests = fade * self.requests + 1.0
        self._mean = fade * self._mean + mean
        self._mean_sq = fade * self._mean_sq + mean * mean
        self._within = fade * self._within + variance
        self._noise = fade * self._noise + noise

    def prior(self) -> Prior:
        """Return the mean over requests, and for how many of a request's own rounds it stands.

        The best linear estimate of a request's mean weighs the mean over requests like v / b rounds
        of its own: v is the variance of rounds within a request, b that of requests' true means
        (empirical Bayes; b is the variance of the observed means less what chance adds to it).
        """
        count = self.requests
        if not count:
            return Prior(0.0, 0.0)
        mean = self._mean / count
        within = self._within / count
        between = self._mean_sq / count - mean * mean - self._noise / count
        # If all are alike by now, a few requests may be so by chance: each one counts a round.
        most = min(count, _MOST_ROUNDS)
        weight = within / between if within < between * most else most
        return Prior(mean, weight)


class AcceptancePrior:
    """The mean of the requests that left, of the class once there are enough, else of all.

    All are put in terms of one number of drafts, that of the first request: where the number
    changes at run time (adaptive speculation), a request counts as if each of its rounds had had
    the mean number. What never had drafts tells nothing.

    Nothing of it is in a snapshot: a new engine begins with no prior, unless it is handed one on.
    """

    def __init__(self) -> None:
        self._spread: ByClass[_Spread] = ByClass(_Spread)
        self._drafts = 0

    def observe(self, acceptance: AcceptanceTracker, request_class: RequestClass) -> None:
        """Learn from a request; one with fewer than two rounds tells no variance."""
        rounds, proposed = acceptance.rounds, acceptance.proposed
        if rounds < 2 or not proposed:
            return
        if not self._drafts:
            self._drafts = max(round(proposed / rounds), 1)
        mean, variance = acceptance.accepted / rounds, acceptance.variance
        if mean and proposed != self._drafts * rounds:
            told = at_drafts(mean, proposed / rounds, self._drafts)
            mean, variance = told, variance * (told / mean) * (told / mean)
        for spread in (self._spread.all, self._spread.learn(request_class)):
            spread.add(mean, variance, variance / rounds)

    def predict(self, request_class: RequestClass) -> Prior:
        """Answer in O(1); see `AcceptancePredictor.predict`."""
        own = self._spread.get(request_class)
        known = own if own is not None and own.requests >= _ENOUGH else self._spread.all
        return known.prior()._replace(drafts=self._drafts)

"""What can be known: the Gittins index over the exact posterior of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from laps.engine.table import Request
from laps.policies.base import OneQueue
from sim.acceptance import Independent, Rates
from sim.case import Case
from sim.lengths import Lengths
from sim.predictions import Lognormal
from sim.workload import Floats, Ints, Workload

GRID = 16
"""Values of p that its posterior is kept for."""


@dataclass(frozen=True)
class Gittins(OneQueue):
    """Smallest Gittins index first, by one who knows how requests are drawn but not the draws.

    Of each request it knows what every scheduler can: its hint, its output so far, and what was
    accepted in each of its rounds. By Bayes' rule, with the true distributions as priors, it has
    the distribution of the rounds R that are left. Its index is the minimum over t of
    E[min(R, t)] / P(R <= t), the least expected effort for a chance to be done. With one request
    running no policy that does not know the draws has a lower mean (Gittins 1979; for M/G/1 see
    Aalto, Ayesta and Righter 2009): it tells what is lost to ignorance from what is lost to us.

    For cases of one tenant, independent acceptance and lognormal hints. Slow: 0.1 ms a key.
    """

    workload: Workload
    lengths: Lengths
    rates: Rates
    sigma: float

    name: ClassVar[str] = "gittins"
    queues: ClassVar[tuple[str, ...]] = ("index",)
    key_parts: ClassVar[tuple[str, ...]] = ("index in rounds", "arrival_s", "handle")
    rule: ClassVar[str] = "least expected effort for a chance to finish first"

    @classmethod
    def of(cls, case: Case, workload: Workload) -> Gittins:
        """Return the policy for the requests of a case; raise ValueError where it knows no odds."""
        acceptance, predictions = case.acceptance, case.predictions
        if not isinstance(acceptance, Independent) or not isinstance(predictions, Lognormal):
            raise ValueError("gittins takes independent acceptance and lognormal predictions")
        if case.tenants or not predictions.sigma:
            raise ValueError("gittins takes requests of one kind, and hints that err")
        return cls(workload, case.lengths, acceptance.rates, predictions.sigma)

    def key(self, request: Request) -> tuple[float, ...]:
        """Return the place by the index."""
        # 1. Smaller index.
        # 2. Earlier arrival.
        # 3. Smaller handle.
        return (self._index(request), request.arrival_s, request.handle)

    def _index(self, request: Request) -> float:
        output, place = max(request.output_tokens, 1), request.handle - 1
        p = self._acceptance
        failed = int(self._failed[self.workload.rounds.offsets[place] + request.rounds])
        failed -= int(self._failed[self.workload.rounds.offsets[place]])
        log_odds = request.acceptance.accepted * np.log(p) + failed * np.log1p(-p)
        odds = np.exp(log_odds - log_odds.max())
        longer = self._posterior(request.hints.predicted_tokens)[output + 1 :]
        rounds = self._rounds[: len(longer)].ravel()
        done = np.cumsum(np.bincount(rounds, np.outer(longer, odds).ravel(), minlength=2))
        if not done[-1]:
            return 1.0
        # E[min(R, t)] is the sum of P(R > s) over s < t; done[0] = P(R <= 0) is 0.
        effort = np.cumsum(done[-1] - done[:-1])
        return float(np.min(effort / np.maximum(done[1:], 1e-300)))

    @cached_property
    def _acceptance(self) -> Floats:
        """Values of p, as likely as each other before the first round."""
        rates = self.rates
        sample = np.sort(rates.draw(np.random.default_rng(0), 100_000))
        return np.array([share.mean() for share in np.array_split(sample, GRID)])

    @cached_property
    def _rounds(self) -> Ints:
        """Rounds that 1, 2, ... tokens take at each p."""
        p = self._acceptance
        accept_length = (1.0 - p ** (self.workload.drafts + 1)) / (1.0 - p)
        tokens = np.arange(1, self.lengths.high + 1)[:, None]
        rounds: Ints = np.ceil(tokens / accept_length).astype(np.int64)
        return rounds

    @cached_property
    def _failed(self) -> Ints:
        """Of all rounds before each, the number in which a draft was refused."""
        refused = self.workload.rounds.accept_lengths <= self.workload.drafts
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(refused)))

    @cached_property
    def _density(self) -> Floats:
        """Chance of each output length."""
        sample = self.lengths.draw_outputs(np.random.default_rng(0), 1_000_000)
        return np.bincount(sample, minlength=self.lengths.high + 1) / len(sample)

    def _posterior(self, hint: int) -> Floats:
        """Return the chance of each output length, given its hint, but for a factor."""
        lengths = np.maximum(np.arange(len(self._density)), 1)
        log_odds = -0.5 * ((np.log(hint) - np.log(lengths)) / self.sigma) ** 2
        odds: Floats = self._density * np.exp(log_odds - log_odds[self._density > 0].max())
        return odds

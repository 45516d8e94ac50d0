"""How many tokens a verify round brings a request, and when that number can be relied on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from laps.engine.chain import at_drafts
from laps.engine.types import Progress

_MEMORY = 64
"""Rounds after which what one said has faded to 1/e. A longer memory is slow to see a drift, a
shorter one is worse where acceptance is steady (`bench/estimators`)."""
_FADE = 1.0 - 1.0 / _MEMORY


class Prior(NamedTuple):
    """What is expected of a request's acceptance before its first round."""

    accepted: float
    """Accepted drafts per round."""
    rounds: float
    """How many rounds of its own that is worth."""
    drafts: float = 0.0
    """Of so many offered per round."""


@dataclass(slots=True)
class AcceptanceTracker:
    """Acceptance of one request: the four sums that `Progress` carries, and the estimate.

    The estimate is the mean of accepted drafts over its rounds, in which older rounds fade, and
    which begins with a prior as if it were some rounds of its own: so it is shrunk to the prior at
    first, and follows a drift later. A tracker rebuilt from a worker's snapshot has the same sums
    as one that saw every round; which of the rounds came last is not in there, so its estimate is
    as if all had been like their mean, and fades on from there.

    It is of rounds with as many drafts as were offered last. When that number changes (adaptive
    speculation), what is known is put in terms of the new one at once (`laps.engine.chain`).
    In plain decoding no drafts are offered, the accept length is exactly 1, and such a round says
    nothing of drafts: what was known of them is kept for when there are some again.
    """

    rounds: int = 0
    """Verify rounds seen."""
    proposed: int = 0
    """Draft tokens offered."""
    accepted: int = 0
    """Draft tokens accepted, bonus tokens not counted."""
    accepted_sq: int = 0
    """Sum over rounds of (accepted drafts in the round) squared."""
    weight: float = 0.0
    """Rounds that the estimate rests on, faded, those of the prior included."""
    weighted: float = 0.0
    """Accepted drafts in them, had there been `drafts` in each."""
    drafts: float = 0.0
    """Drafts offered per round, of which the estimate is; a mean where it was rebuilt."""
    speculated: tuple[float, float] = (0.0, 0.0)
    """While `drafts` is 0: that and `weighted` as they were when there were drafts."""

    @classmethod
    def restored(cls, progress: Progress) -> AcceptanceTracker:
        """Rebuild a tracker from a worker's counts; counts below zero are taken as zero."""
        rounds, accepted = max(progress.rounds, 0), max(progress.accepted, 0)
        tracker = cls(
            rounds=rounds,
            proposed=max(progress.proposed, 0),
            accepted=accepted,
            accepted_sq=max(progress.accepted_sq, 0),
        )
        if rounds and tracker.proposed:
            tracker.weight = (1.0 - _FADE**rounds) * _MEMORY
            tracker.weighted = tracker.weight * (accepted / rounds)
            tracker.drafts = tracker.proposed / rounds
        return tracker

    def expect(self, prior: Prior) -> None:
        """Have the estimate begin with `prior`, as if that had come before the first round."""
        weight = prior.rounds * _FADE**self.rounds
        self.weight += weight
        if self.drafts:
            self.weighted += weight * at_drafts(prior.accepted, prior.drafts, self.drafts)
        elif self.rounds:
            self.speculated = (prior.drafts, weight * prior.accepted)
        else:
            self.drafts, self.weighted = prior.drafts, weight * prior.accepted

    def offer(self, drafts: int) -> None:
        """Have the estimate be of rounds with `drafts` tokens offered."""
        if drafts == self.drafts:
            return
        if self.drafts:
            self.speculated = (self.drafts, self.weighted)
        before, weighted = self.speculated
        self.drafts = drafts
        self.weighted = 0.0
        if drafts and self.weight:
            self.weighted = self.weight * at_drafts(weighted / self.weight, before, drafts)

    def add(self, accept_length: int, drafts: int) -> None:
        """Count one verify round: `drafts` tokens offered, `accept_length` committed."""
        if drafts != self.drafts:
            self.offer(max(drafts, 0))
        self.rounds += 1
        accepted = accept_length - 1 if accept_length > 1 else 0
        if drafts > 0:
            self.proposed += drafts
            self.weight = _FADE * self.weight + 1.0
            self.weighted = _FADE * self.weighted + accepted
        if accepted:
            self.accepted += accepted
            self.accepted_sq += accepted * accepted

    @property
    def accept_length(self) -> float:
        """Mean tokens committed per round, bonus included (n*A+1 in the paper); 0 if no rounds."""
        return 1.0 + self.accepted / self.rounds if self.rounds else 0.0

    @property
    def accept_rate(self) -> float:
        """Accepted drafts over proposed drafts (A in the paper), 0 to 1; 0 if none was proposed."""
        return min(self.accepted / self.proposed, 1.0) if self.proposed else 0.0

    @property
    def variance(self) -> float:
        """Sample variance of the accept length over rounds; 0 before the second round."""
        if self.rounds < 2:
            return 0.0
        spread = self.accepted_sq - self.accepted * self.accepted / self.rounds
        return max(spread, 0.0) / (self.rounds - 1)


@dataclass(frozen=True, slots=True)
class StabilityTest:
    """Says when a request's acceptance is stable, so that its execution time can be estimated.

    The paper makes a request perceptible once it "becomes stable" (Algorithm 1, line 11); the text
    that we could reach does not say how that is tested. This test is ours: the standard error of
    the mean accept length, as a share of that mean, has come down to `tolerance`. So is the latch:
    once stable a request stays perceived, and only its estimate is refined round by round.
    """

    min_rounds: int = 4
    """Fewest rounds to judge by; at least 2. Plain decoding is stable after exactly these."""
    tolerance: float = 0.2
    """Largest standard error of the mean accept length, as a share of the mean."""
    inflation: float = 2.0
    """Factor on the variance of the mean. Rounds of one request are not independent: with
    correlation c from round to round (AR(1)) the variance of the mean is (1 + c) / (1 - c) times
    the naive one. 2 stands for c = 1/3."""

    def stable(self, acceptance: AcceptanceTracker) -> bool:
        """Whether `acceptance` passes the test now."""
        rounds = acceptance.rounds
        if rounds < self.min_rounds:
            return False
        allowed = self.tolerance * acceptance.accept_length
        return acceptance.variance * self.inflation <= allowed * allowed * rounds

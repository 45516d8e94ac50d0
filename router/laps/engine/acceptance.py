"""How many tokens a verify round brings a request, and when that number can be relied on."""

from __future__ import annotations

from dataclasses import dataclass

from laps.engine.types import Progress


@dataclass(slots=True)
class AcceptanceTracker:
    """Acceptance of one request, held as the four sums that `Progress` carries.

    Nothing else is kept, so a tracker rebuilt from a worker's snapshot is equal to one that saw
    every round. In plain decoding no drafts are offered and the accept length is exactly 1.
    """

    rounds: int = 0
    """Verify rounds seen."""
    proposed: int = 0
    """Draft tokens offered."""
    accepted: int = 0
    """Draft tokens accepted, bonus tokens not counted."""
    accepted_sq: int = 0
    """Sum over rounds of (accepted drafts in the round) squared."""

    @classmethod
    def restored(cls, progress: Progress) -> AcceptanceTracker:
        """Rebuild a tracker from a worker's counts; counts below zero are taken as zero."""
        return cls(
            rounds=max(progress.rounds, 0),
            proposed=max(progress.proposed, 0),
            accepted=max(progress.accepted, 0),
            accepted_sq=max(progress.accepted_sq, 0),
        )

    def add(self, accept_length: int, drafts: int) -> None:
        """Count one verify round: `drafts` tokens offered, `accept_length` committed."""
        self.rounds += 1
        if drafts > 0:
            self.proposed += drafts
        if accept_length > 1:
            accepted = accept_length - 1
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
